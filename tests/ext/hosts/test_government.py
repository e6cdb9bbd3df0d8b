"""The embedded government gateway: its catalogue, its codes, and that a repeat changes nothing."""

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fengshou.ext.hosts import government
from fengshou.ext.hosts.government import Application
from fengshou.ext.hosts.government.catalogue import Catalogue, CatalogueError, Kind, load
from fengshou.protocol import elements as de
from fengshou.protocol.backend import NotServed
from fengshou.protocol.elements import BASE_ELEMENTS

CATALOGUE = Path(government.__file__).with_name("catalogue.json")
PATH = "/v1/enquiry"
RESIDENT = "990211198604159287"
REPLY_BYTES_MAX = next(element.size for element in BASE_ELEMENTS if element.key == de.REPLY)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load(CATALOGUE)


@pytest.fixture
def gateway(tmp_path: Path) -> Any:
    made = Application({"database": str(tmp_path / "government.sqlite")})
    yield made
    made.close()


def enquiry(rrn: int = 1, item: int = 1, subject: Any = RESIDENT, **more: Any) -> dict[str, Any]:
    body = {"item": item, "subject": subject, "rrn": f"{rrn:012d}", "received": "2026-06-01T08:00:00+08:00", **more}
    return {name: value for name, value in body.items() if value is not None}


def test_catalogue_is_what_the_programme_promises(catalogue: Catalogue) -> None:
    """80 enquiries, 100 and more declarations, seven domains and tax."""
    kinds = Counter(item.kind for item in catalogue.items)
    assert kinds[Kind.QUERY] >= 80
    assert kinds[Kind.DECLARE] > 100
    assert [domain.id for domain in catalogue.domains] == list(range(1, 9))
    assert {item.domain for item in catalogue.items} == set(range(1, 9))
    assert len({item.zh for item in catalogue.items}) == len({item.en for item in catalogue.items}) == 192


def test_every_item_answers_within_the_element(gateway: Application, catalogue: Catalogue) -> None:
    for rrn, item in enumerate(catalogue.items, 1):
        body = enquiry(rrn, item.id, domain=item.domain, period=202505 if "period" in item.fields else None)
        answer = gateway.answer(PATH, body)
        assert answer["code"] == "00", item
        assert item.zh in answer["reply"]
        assert 0 < len(answer["reply"].encode()) <= REPLY_BYTES_MAX
        assert answer["reference"]


CASES: list[tuple[str, dict[str, Any], str]] = [
    ("a query",                    enquiry(),                                     "00"),
    ("a query with a period",      enquiry(item=2, period=2025),                  "00"),
    ("a query with a month",       enquiry(item=2, period=202512),                "00"),
    ("its domain named",           enquiry(domain=1),                             "00"),
    ("another domain named",       enquiry(domain=2),                             "40"),
    ("no such item",               enquiry(item=1023),                            "40"),
    ("item zero",                  enquiry(item=0),                               "40"),
    ("no item",                    enquiry(item=None),                            "30"),
    ("item as text",               enquiry(item="1"),                             "30"),
    ("no subject",                 enquiry(subject=None),                         "30"),
    ("subject is empty",           enquiry(subject=""),                           "30"),
    ("subject is a number",        enquiry(subject=42),                           "30"),
    ("period is missing",          enquiry(item=2),                               "30"),
    ("period is no year",          enquiry(item=2, period=12),                    "30"),
    ("period is a month too many", enquiry(item=2, period=202513),                "30"),
    ("period is to come",          enquiry(item=2, period=202701),                "25"),
    ("born on no day",             enquiry(subject="990211198602309287"),         "25"),
    ("no resident's number",       enquiry(subject="ABC-12345"),                  "25"),
    ("an enterprise",              enquiry(item=401, subject="91370211MA3C0000XX"), "00"),
    ("a resident, other letters",  enquiry(subject="99021119860415928X"),         "00"),
    ("quotes do not escape",       enquiry(subject="' OR 1=1 --"),                "25"),
    ("no rrn",                     {**enquiry(), "rrn": None},                    "30"),
    ("rrn too short",              {**enquiry(), "rrn": "1"},                     "30"),
    ("no time",                    {**enquiry(), "received": ""},                 "30"),
    ("nothing at all",             {},                                            "30"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "body", "code"), CASES, ids=[row[0] for row in CASES])
def test_codes(gateway: Application, name: str, body: dict[str, Any], code: str) -> None:
    answer = gateway.answer(PATH, body)
    assert answer["code"] == code
    assert answer["reply"]


def test_only_its_path_is_served(gateway: Application) -> None:
    with pytest.raises(NotServed):
        gateway.answer("/v1/other", enquiry())


def declaration(gateway: Application, catalogue: Catalogue, *, idempotent: bool) -> int:
    return next(
        item.id
        for item in catalogue.items
        if item.kind is Kind.DECLARE and item.idempotent is idempotent and item.domain == 1
    )


def test_a_repeat_gets_its_first_answer_and_opens_no_second_case(
    tmp_path: Path, gateway: Application, catalogue: Catalogue
) -> None:
    item = declaration(gateway, catalogue, idempotent=False)
    first = gateway.answer(PATH, enquiry(1, item))
    assert gateway.answer(PATH, enquiry(1, item, repeat=True)) == first
    other = gateway.answer(PATH, enquiry(2, item))
    assert other["reference"] != first["reference"]  # a request of its own

    # Also after a restart, and from another process's point of view.
    gateway.close()
    again = Application({"database": str(tmp_path / "government.sqlite")})
    assert again.answer(PATH, enquiry(1, item)) == first
    again.close()


def test_an_idempotent_declaration_opens_one_case_a_period(gateway: Application, catalogue: Catalogue) -> None:
    item = declaration(gateway, catalogue, idempotent=True)
    first = gateway.answer(PATH, enquiry(1, item, period=2026))
    assert gateway.answer(PATH, enquiry(2, item, period=2026))["reference"] == first["reference"]
    assert gateway.answer(PATH, enquiry(3, item, period=2025))["reference"] != first["reference"]


def test_one_rrn_for_two_requests_is_refused(gateway: Application) -> None:
    first = gateway.answer(PATH, enquiry(1))
    assert gateway.answer(PATH, enquiry(1, item=3))["code"] == "94"
    assert gateway.answer(PATH, enquiry(1)) == first


def test_a_refusal_is_repeated_too(gateway: Application) -> None:
    refused = gateway.answer(PATH, enquiry(1, item=999))
    assert refused["code"] == "40"
    assert gateway.answer(PATH, enquiry(1, item=999)) == refused


def test_records_are_the_same_for_the_same_seed_and_stay_when_it_changes(tmp_path: Path) -> None:
    def ask(database: str, seed: str, rrn: int) -> str:
        application = Application({"database": str(tmp_path / database), "seed": seed})
        reply = application.answer(PATH, enquiry(rrn))["reply"]
        application.close()
        assert isinstance(reply, str)
        return reply

    assert ask("a", "one", 1) == ask("b", "one", 1)
    assert ask("c", "two", 1) != ask("a", "one", 2)
    assert ask("a", "two", 3) == ask("a", "one", 2)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": 0}, "not 1 .. 1023"),
        ({"id": 1024}, "not 1 .. 1023"),
        ({"id": 2}, "listed twice"),
        ({"domain": 9}, "no domain 9"),
        ({"fields": ["name"]}, "no field name"),
        ({"idempotent": False}, "idempotent"),
    ],
)
def test_a_wrong_catalogue_is_refused_at_start(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    data = msgspec.json.decode(CATALOGUE.read_bytes())
    data["items"][0] |= change
    path = tmp_path / "catalogue.json"
    path.write_bytes(msgspec.json.encode(data))
    with pytest.raises(CatalogueError, match=reason):
        Application({"database": ":memory:", "catalogue": str(path)})


@pytest.mark.parametrize(
    ("options", "reason"), [({}, "database"), ({"database": 1}, "database"), ({"database": "x", "port": 1}, "port")]
)
def test_options_are_named_when_they_are_wrong(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=reason):
        Application(options)
