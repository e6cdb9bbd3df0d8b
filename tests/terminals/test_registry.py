"""The registry: the sign-in ladder row by row, what a snapshot sees, and writers in each other's way."""

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fengshou.codecs import PrivateKey, sm3
from fengshou.hsm import manifest
from fengshou.hsm.custody import SealBroken
from fengshou.hsm.manifest import ManifestError
from fengshou.hsm.software import provision
from fengshou.hsm.x509 import Certificate, Subject
from fengshou.protocol import elements as de
from fengshou.protocol.codes import CODES
from fengshou.protocol.service import TerminalFacts
from fengshou.terminals.binding import LADDER, Status, binding_refusal
from fengshou.terminals.csv_rows import CsvError
from fengshou.terminals.registry import NewTerminal, Registry, RegistryError, Site
from fengshou.terminals.registry_csv import read_sites, read_terminals

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NOW = datetime(2026, 7, 1, tzinfo=UTC)
PUBLISHER = PrivateKey.generate()
FACTS = TerminalFacts(
    "FS000001",
    "999452007630001",
    99_904_520,
    "FSPOS00000001",
    "93370211FENG000150",
    "9020000000104729",
    "POS",
    "BA12",
    1,
)


def manifest_of(version="1.0", services=("balance", "transfer"), key=PUBLISHER):
    body = manifest.Body(app="point", version=version, vendor="Test", services=services, issued_at=NOW)
    return manifest.make(body, key)


def certificate_of(terminal, der=b"the certificate"):
    key = PUBLISHER.public_key
    return Certificate(der, Subject(terminal, serial="SN"), "CA", 77, NOW, NOW, key, ())


@pytest.fixture
def custody(tmp_path):
    return provision(tmp_path / "keys")


@pytest.fixture
def registry(tmp_path, custody):
    with Registry.open(tmp_path / "registry.db", custody) as registry:
        registry.add_app(manifest_of(), PUBLISHER.public_key)
        registry.add_terminals([NewTerminal(FACTS, frozenset({"balance"}), frozenset({"point"}))])
        registry.enrol("FS000001", "4d", sm3(b"the certificate"))
        yield registry


def sign_in():
    return {
        de.TERMINAL: "FS000001", de.MERCHANT: "999452007630001", de.ACQUIRER: 99_904_520, de.SERIAL: "FSPOS00000001",
        de.CREDIT_CODE: "93370211FENG000150", de.FROM_ACCOUNT: "9020000000104729", de.CURRENCY: 156, de.APP: "point",
        de.APP_VERSION: "1.0", de.APP_MANIFEST: manifest_of().digest,
    }  # fmt: skip


def block(registry):
    registry.set_status("FS000001", Status.BLOCKED)


def retire(registry):
    registry.set_status("FS000001", Status.RETIRED)


def revoke(registry):
    registry.set_app_status("point", "1.0", Status.RETIRED)


# Certificates that the channel may have verified.
HELD = "FS000001", b"the certificate"
OLDER = "FS000001", b"the old one"
OTHER = "FS000002", b"the certificate"

#    what differs                in the sign-in                           registry  channel  code
LADDER_CASES = [
    ("nothing",               {},                                                 None,    HELD,  None),
    ("terminal",              {de.TERMINAL: "FS999999"},                          None,    HELD,  "97"),
    ("blocked",               {},                                                 block,   HELD,  "58"),
    ("retired",               {},                                                 retire,  HELD,  "58"),
    ("of another certificate", {},                                                None,    OTHER, "63"),
    ("an older certificate",  {},                                                 None,    OLDER, "63"),
    ("merchant",              {de.MERCHANT: "999452007630002"},                   None,    HELD,  "03"),
    ("acquirer",              {de.ACQUIRER: 99_904_521},                          None,    HELD,  "92"),
    ("serial",                {de.SERIAL: "FSPOS00000002"},                       None,    HELD,  "97"),
    ("credit code",           {de.CREDIT_CODE: "93370211FENG00023T"},             None,    HELD,  "03"),
    ("settlement account",    {de.FROM_ACCOUNT: "9020000000209458"},              None,    HELD,  "14"),
    ("currency",              {de.CURRENCY: 840},                                 None,    HELD,  "12"),
    ("app",                   {de.APP: "game"},                                   None,    HELD,  "58"),
    ("version of the app",    {de.APP_VERSION: "0.9"},                            None,    HELD,  "58"),
    ("revoked app",           {},                                                 revoke,  HELD,  "58"),
    ("manifest",              {de.APP_MANIFEST: bytes(32)},                       None,    HELD,  "58"),
    # The first rung counts.
    ("merchant and account",  {de.MERCHANT: "9" * 15, de.FROM_ACCOUNT: "9"},      None,    HELD,  "03"),
    ("blocked, of another",   {},                                                 block,   OTHER, "58"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("what", "said", "change", "shown", "code"), LADDER_CASES, ids=[case[0] for case in LADDER_CASES]
)
def test_the_sign_in_ladder(registry, what, said, change, shown, code):
    if change is not None:
        change(registry)
    values = {**sign_in(), **said}
    row = registry.snapshot().get(values[de.TERMINAL])
    refused = binding_refusal(row, certificate_of(*shown), values)
    assert (refused.code if refused else None) == code
    if refused:
        assert refused.code in CODES
        assert not any(str(value) in refused.reason for value in said.values())


def test_every_rung_has_a_case():
    assert len(LADDER_CASES) - 2 - 2 >= len(LADDER)


def test_a_terminal_that_was_never_enrolled_cannot_sign_in(registry):
    registry.add_terminals(
        [NewTerminal(replace(FACTS, terminal="FS000002", serial="X"), frozenset(), frozenset({"point"}))]
    )
    values = {**sign_in(), de.TERMINAL: "FS000002", de.SERIAL: "X"}
    refused = binding_refusal(registry.snapshot().get("FS000002"), certificate_of("FS000002"), values)
    assert refused is not None
    assert refused.code == "63"


def test_a_snapshot_stays_and_a_change_is_seen(registry, tmp_path, custody):
    before = registry.snapshot()
    assert not registry.changed()
    with Registry.open(tmp_path / "registry.db", custody) as operator:
        assert not registry.changed(), "opening changes nothing"
        operator.set_status("FS000001", Status.BLOCKED)
    assert registry.changed()
    assert registry.changed(), "until a snapshot is taken"
    assert before.get("FS000001").status is Status.ACTIVE
    assert registry.snapshot().get("FS000001").status is Status.BLOCKED
    assert not registry.changed()
    registry.set_status("FS000001", Status.ACTIVE)
    assert registry.changed(), "its own changes count too"


def test_settlement_accounts_are_sealed_and_bound_to_their_row(registry, tmp_path):
    registry.add_terminals(
        [
            NewTerminal(
                replace(FACTS, terminal="FS000002", serial="X", settlement_account="9020000000209458"),
                frozenset(),
                frozenset(),
            )
        ]
    )
    registry.close()
    content = b"".join(path.read_bytes() for path in tmp_path.glob("registry.db*"))
    assert b"FSPOS00000001" in content
    assert b"9020000000104729" not in content
    with Registry.open(tmp_path / "registry.db", provision(tmp_path / "keys")) as again:
        again._connection.execute(
            "UPDATE terminals SET settlement_account = (SELECT settlement_account FROM terminals "
            "WHERE terminal = 'FS000002') WHERE terminal = 'FS000001'"
        )
        with pytest.raises(SealBroken):
            again.snapshot()


#   what is wrong                                                     the error names
REFUSED = [
    (replace(FACTS, terminal="SHORT"),                                "terminal"),
    (replace(FACTS, merchant="1" * 14),                               "merchant"),
    (replace(FACTS, acquirer=10**11),                                 "acquirer"),
    (replace(FACTS, terminal="FS000009", serial=""),                  "serial"),
    (replace(FACTS, terminal="FS000009", serial="FSPOS00000001"),     "serial is registered"),
    (replace(FACTS, serial="new"),                                    "terminal is registered"),
    (replace(FACTS, credit_code="9"),                                 "credit_code"),
    (replace(FACTS, settlement_account="90x"),                        "from_account"),
    (replace(FACTS, channel="ATM"),                                   "channel"),
    (replace(FACTS, town=70_000),                                     "town"),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "named"), REFUSED, ids=[case[1] for case in REFUSED])
def test_a_row_that_no_sign_in_could_state_is_refused_and_nothing_is_added(registry, facts, named):
    good = NewTerminal(replace(FACTS, terminal="FS000008", serial="good"), frozenset(), frozenset())
    with pytest.raises(RegistryError, match=named) as caught:
        registry.add_terminals([good, NewTerminal(facts, frozenset(), frozenset())])
    assert "9020000000104729" not in str(caught.value)
    assert set(registry.snapshot().terminals) == {"FS000001"}


def test_retired_is_for_good_and_frees_the_device(registry):
    registry.set_status("FS000001", Status.RETIRED)
    with pytest.raises(RegistryError):
        registry.set_status("FS000001", Status.ACTIVE)
    registry.add_terminals([NewTerminal(replace(FACTS, terminal="FS000002"), frozenset(), frozenset())])
    with pytest.raises(RegistryError):
        registry.set_status("FS000404", Status.BLOCKED)


def test_a_certificate_is_of_one_terminal(registry):
    registry.add_terminals([NewTerminal(replace(FACTS, terminal="FS000002", serial="X"), frozenset(), frozenset())])
    with pytest.raises(RegistryError, match="another terminal"):
        registry.enrol("FS000002", "4d", sm3(b"the certificate"))


def test_applications(registry):
    with pytest.raises(ManifestError):
        registry.add_app(manifest_of("2.0", key=PrivateKey.generate()), PUBLISHER.public_key)
    registry.add_app(manifest_of(), PUBLISHER.public_key)  # the same again is no change
    with pytest.raises(RegistryError, match="another manifest"):
        registry.add_app(manifest_of(services=("balance",)), PUBLISHER.public_key)
    registry.add_app(manifest_of("2.0", ("balance",)), PUBLISHER.public_key)
    snapshot = registry.snapshot()
    assert set(snapshot.get("FS000001").apps) == {("point", "1.0"), ("point", "2.0")}
    assert snapshot.app("point", "2.0").services == {"balance"}
    assert snapshot.app("point", "3.0") is None


def test_the_examples_are_a_registry(registry):
    registry.set_status("FS000001", Status.RETIRED)
    assert registry.add_sites(read_sites(EXAMPLES / "sites.csv")) > 0
    rows = [
        new
        for new in read_terminals(EXAMPLES / "terminals.csv", frozenset({"point"}))
        if new.facts.terminal != "FS000001"
    ]
    assert registry.add_terminals(rows) == len(rows) > 10
    snapshot = registry.snapshot()
    assert {row.facts.channel for row in snapshot.terminals.values()} >= {"POS", "POS_DUAL", "KIOSK"}
    assert all(row.facts.site in snapshot.sites for row in snapshot.terminals.values())


#   a file                                                                      the error names
FILES = [
    ("terminal,merchant\nFS000001,9\n",                                         "no column acquirer"),
    ("site,name,kind,town\nBA,x,point\n",                                       "line 2"),
    ("# a comment\nsite,name,kind,town\n# one more\nBA,x,point,one\n",          "line 4: town"),
    ("site,name,kind,town,colour\n",                                            "colour"),
    ('site,name,kind,town\nBA,"x,point,1\n',                                    "csv"),
    ("",                                                                        "no column"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "named"), FILES, ids=[case[1] for case in FILES])
def test_a_file_that_is_wrong_is_told_by_its_line(tmp_path, text, named):
    file = tmp_path / "file.csv"
    file.write_text(text, "utf-8")
    read = read_terminals if "merchant" in text else read_sites
    with pytest.raises(CsvError, match=named):
        list(read(file))


def test_a_file_that_is_no_registry_is_refused(tmp_path, custody):
    (tmp_path / "other.db").write_bytes(b"not a database, by far" * 100)
    with pytest.raises(RegistryError):
        Registry.open(tmp_path / "other.db", custody)


def test_writers_in_several_processes_lose_nothing(registry, tmp_path):
    program = """
import sys
from pathlib import Path
from fengshou.hsm.software import SoftwareCustody
from fengshou.terminals.registry import Registry, Site
folder, writer = Path(sys.argv[1]), sys.argv[2]
with Registry.open(folder / "registry.db", SoftwareCustody(folder / "keys")) as registry:
    for number in range(25):
        registry.add_sites([Site(f"{writer}-{number}", "a site", "point", 1)])
"""
    writers = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(writer)]) for writer in range(4)]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    assert registry.changed()
    assert len(registry.snapshot().sites) == 100 + 1


def test_sites_are_corrected(registry):
    registry.add_sites([Site("BA12", "Stone Bridge", "branch", 1)])
    assert registry.snapshot().sites["BA12"].kind == "branch"
    with pytest.raises(RegistryError):
        registry.add_sites([Site("BA12", "Stone Bridge", "tree", 1)])
