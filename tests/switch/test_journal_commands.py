"""``journal verify``, ``repair`` and ``find`` as an operator types them: what they find, say and return."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from fengshou.protocol import elements as de
from fengshou.switch.cli.main import main
from fengshou.switch.config import load
from fengshou.switch.custodies import custody_of
from fengshou.switch.journal.store import Journal
from fengshou.switch.keeper import Keeper
from fengshou.switch.recording import pseudonyms, tags_of
from fengshou.switch.site import make_site
from tests.switch.entries import CODEC, DAY, TERMINAL, intent, key, outcome, session
from tests.switch.journals import writing

PAGE = 4096
SALES = 60  # on each of the two days
CARD = "9156004000001267043"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site whose switch has traded for two days; the first one stands sealed in its own file."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "accounts.csv").write_text("number,name,kind,opening_fen\n", "utf-8")
    home = make_site(folder / "site", folder / "accounts.csv").folder
    custody = custody_of(load(home / "switch.toml"))
    journal = Journal(home / "journal")

    async def trade() -> None:
        async with writing(journal, custody) as writer:
            for day in (DAY, DAY + 1):
                first = (day - DAY) * SALES + 1
                tag = tags_of({de.PAN: CARD}, pseudonyms(custody))
                await writer.append([session(day=day)])
                signed_in_at = journal.next_record - 1
                for at in range(first, first + SALES, 6):
                    sales = [intent(at + n, day=day, signed_in_at=signed_in_at) for n in range(6)]
                    sales[2].tags, sales[2].record.clear = tag, CODEC.pack({de.PAN: CARD})  # as if it were not secret
                    await writer.append(sales)
                    await writer.append([outcome(sale) for sale in sales])
            await Keeper(journal, writer, custody).seal()

    trio.run(trade)
    journal.close()
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "site"))


def run(home: Path, *words: object, status: int) -> str:
    """What a command says, on whichever of its two outputs. Errors of ours are not swallowed."""
    done = CliRunner().invoke(main, ["journal", str(words[0]), "--home", str(home), *map(str, words[1:])])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    assert done.exit_code == status, done.output
    return done.output


def ask(home: Path, *words: object, status: int) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(run(home, *words, "--json", status=status))
    return answer


def store(home: Path) -> Path:
    return home / "journal/data.mdb"


def change(file: Path, at: int, data: bytes) -> None:
    old = file.read_bytes()
    file.write_bytes(old[:at] + data + old[at + len(data) :])


def alter_a_record(home: Path) -> int:
    """A price in a record, wherever pages have it. Returns the record's number."""
    with_it = Journal(home / "journal", read_only=True)
    number = with_it.known(key(SALES + 30))
    assert number is not None
    leaf = with_it.record_bytes(number.intent)
    assert leaf is not None
    with_it.close()
    data = bytearray(store(home).read_bytes())
    at = data.find(leaf)
    assert at > 0
    while at >= 0:
        data[at + 75] ^= 1
        at = data.find(leaf, at + 1)
    store(home).write_bytes(data)
    return number.intent


def test_a_whole_journal_is_verified(home: Path) -> None:
    assert run(home, "verify", status=0).endswith("journal verified\n")
    found = ask(home, "verify", status=0)
    assert (found["verified"], found["problems"], found["absent_days"]) == (True, [], [])
    assert found["records"] == 2 * (1 + 2 * SALES)
    assert found["terminal_signatures"] == 2 * (1 + SALES)
    assert found["unsigned_tail"] == 0
    assert sum(epoch["commits"] for epoch in found["signed_by"].values()) == found["signed_commits"] > 1
    assert ask(home, "verify", "--day", DAY, status=0)["records"] == 1 + 2 * SALES
    assert ask(home, "verify", "--file", home / f"journal/{DAY}.mdb", status=0)["verified"]


def test_a_day_that_never_was_is_named(home: Path) -> None:
    assert run(home, "verify", "--day", 19_990_101, status=1).endswith("Error: the journal has no day 19990101\n")


def test_an_altered_record_is_named_and_not_verified(home: Path) -> None:
    number = alter_a_record(home)
    said = run(home, "verify", status=1)
    assert said.endswith("journal NOT verified\n")
    assert "its records do not give its Merkle root" in said
    found = ask(home, "verify", status=1)
    assert not found["verified"]
    commit = next(problem for problem in found["problems"] if "Merkle root" in problem)
    assert commit.startswith("commit ")
    assert ask(home, "verify", "--day", DAY + 1, status=1)["problems"] == [commit]
    assert ask(home, "verify", "--day", DAY, status=0)["verified"], f"record {number} is of another day"


def test_keyed_hashes_are_made_again_when_that_is_asked_for(home: Path) -> None:
    found = ask(home, "verify", "--hashes", status=0)
    assert (found["verified"], found["unopened_requests"]) == (True, 0)
    assert ask(home, "verify", "--file", home / f"journal/{DAY}.mdb", "--hashes", status=0)["verified"]
    hashed = tags_of({de.PAN: CARD}, pseudonyms(custody_of(load(home / "switch.toml"))))[0]
    store(home).write_bytes(store(home).read_bytes().replace(hashed, bytes(8)))
    assert ask(home, "verify", status=0)["verified"], "no record says it"
    problems = ask(home, "verify", "--hashes", status=1)["problems"]
    assert len(problems) == SALES / 6
    assert all(problem.startswith("columns: the keyed hashes in the row of record ") for problem in problems)
    assert "--hashes looks at the whole journal" in run(home, "verify", "--day", DAY, "--hashes", status=2)


def test_a_damaged_page_is_named_with_its_place_and_what_to_do(home: Path) -> None:
    data = bytearray(store(home).read_bytes())
    for page in range(2, len(data) // PAGE):
        data[page * PAGE : page * PAGE + 16] = bytes(16)  # its head
    store(home).write_bytes(data)
    found = ask(home, "verify", status=1)
    assert found["records"] == 0, "nothing behind such pages is followed"
    assert found["problems"][0].startswith("data.mdb: page ")
    assert "(byte " in found["problems"][0]
    assert found["problems"][-1].endswith("`fengshou journal repair OUT` copies what is good")
    assert "`fengshou journal repair OUT`" in run(home, "verify", status=1)


def test_a_file_cut_short_is_refused_by_each_command_with_what_to_do(home: Path) -> None:
    data = store(home).read_bytes()
    store(home).write_bytes(data[: len(data) // 2 // PAGE * PAGE])
    assert "the file ends" in run(home, "verify", status=1)
    for words in (("show",), ("find", "--stan", 3), ("segments",)):
        said = run(home, *words, status=1)
        assert "is torn: " in said
        assert "Nothing was changed. Take a copy of the folder; `fengshou journal repair OUT`" in said


def test_another_switchs_certificate_vouches_for_nothing(home: Path, tmp_path: Path, made: Path) -> None:
    other = make_site(tmp_path / "other", made.parent / "accounts.csv").folder
    shutil.copy(other / "certificates/switch-sign.crt", home / "certificates/switch-sign.crt")
    found = ask(home, "verify", status=1)
    assert not found["signed_commits"]
    assert any("the switch's signature does not verify" in problem for problem in found["problems"])
    assert "the switch's signature does not verify" in run(home, "verify", "--day", DAY, status=1)


def test_an_archived_day_is_left_out_by_name_and_read_where_it_lies(home: Path, tmp_path: Path) -> None:
    said = run(home, "archive", "--day", DAY, "--to", tmp_path / "archive", "--remove", status=0)
    assert said.endswith("removed from the journal's folder\n")
    file = tmp_path / f"archive/{DAY}.mdb"
    assert f"day {DAY} is archived and was not read; the chain spans it" in run(home, "verify", status=0)
    found = ask(home, "verify", status=0)
    assert (found["verified"], found["absent_days"], found["records"]) == (True, [DAY], 1 + 2 * SALES)
    assert ask(home, "verify", "--file", file, status=0)["records"] == 1 + 2 * SALES
    change(file, file.stat().st_size // 2, b"\xff" * 8)
    assert ask(home, "verify", "--file", file, status=1)["problems"]
    file.write_bytes(Random(1).randbytes(3 * PAGE))
    assert f"{DAY}.mdb: " in run(home, "verify", "--file", file, status=1)


# Repair -------------------------------------------------------------------------------------------------------------


def put_in_place(home: Path, out: Path) -> None:
    """As the command's help says."""
    (home / "journal").rename(home / "journal-torn")
    out.rename(home / "journal")


def test_a_whole_journal_is_copied_whole_with_its_report(home: Path, tmp_path: Path) -> None:
    before = store(home).read_bytes()
    out = tmp_path / "out"
    said = run(home, "repair", out, status=0)
    assert said == (tmp_path / "out.txt").read_text("utf-8")
    assert "LOST" not in said
    report = json.loads((tmp_path / "out.json").read_bytes())
    assert (report["complete"], report["lost"], report["days"], report["commits_moved"]) == (True, [], [DAY], 0)
    assert store(home).read_bytes() == before
    put_in_place(home, out)
    assert ask(home, "verify", status=0)["verified"]


def test_what_is_lost_is_told_and_the_rest_is_a_journal_again(home: Path, tmp_path: Path) -> None:
    number = alter_a_record(home)
    out = tmp_path / "out"
    report = ask(home, "repair", out, status=1)
    assert report == json.loads((tmp_path / "out.json").read_bytes())
    assert not report["complete"]
    (lost,) = report["lost"]
    assert lost["first_record"] <= number < lost["first_record"] + lost["records"]
    assert lost["why"] == "its records are not those that it was sealed with"
    assert report["commits_moved"] > 0
    text = (tmp_path / "out.txt").read_text("utf-8")
    assert f"LOST: commit {lost['commit']}, {lost['records']} records from {lost['first_record']}" in text
    put_in_place(home, out)
    found = ask(home, "verify", status=1)
    assert found["problems"] == ["keys: a row leads to record 0, which has not this key"] * lost["records"]
    with_it = Journal(home / "journal", read_only=True)
    known = with_it.known(key(SALES + 30))
    with_it.close()
    assert known is not None
    assert (known.intent, known.outcome > 0) == (0, True), "nobody may do again what lost its intent"


def test_a_days_file_that_is_bad_is_copied_as_it_is_and_named(home: Path, tmp_path: Path) -> None:
    file = home / f"journal/{DAY}.mdb"
    change(file, file.stat().st_size // 2, bytes(64))
    report = ask(home, "repair", tmp_path / "out", status=1)
    assert [bad.startswith(f"{DAY}: ") for bad in report["bad_days"]] == [True]
    assert "BAD DAY: " in (tmp_path / "out.txt").read_text("utf-8")
    assert (tmp_path / f"out/{DAY}.mdb").read_bytes() == file.read_bytes()
    days = {row["day"]: row["state"] for row in json.loads(run(home, "segments", "--prove", "--json", status=1))}
    assert days[DAY].startswith("BAD: ")


def test_a_place_that_is_taken_is_left_alone(home: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert run(home, "repair", tmp_path / "out", status=1) == f"Error: {tmp_path / 'out'} is there already\n"
    assert list(tmp_path.glob("out*")) == [tmp_path / "out"]


def no_head(file: Path) -> None:
    change(file, 0, bytes(2 * PAGE))


def nothing(file: Path) -> None:
    file.write_bytes(b"")


def gone(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("harm", [no_head, nothing, gone])
def test_a_store_of_which_nothing_can_be_read_is_said_to_be_one(
    home: Path, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    harm(store(home))
    said = run(home, "repair", tmp_path / "out", status=1)
    assert said.startswith("Error: ")
    assert "data.mdb" in said
    assert not list(tmp_path.glob("out*")), "a second try finds its place free"


# Find -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "stans"),
    [
        (("--rrn", 632_800_000_005), [5]),
        (("--rrn", 632_800_000_000 + SALES + 5), [SALES + 5]),  # written a day later than its RRN says
        (("--terminal", TERMINAL, "--stan", 7), [7]),
        (("--card", CARD, "--limit", 2), [2 * SALES - 9, 2 * SALES - 3]),
        (("--rrn", 632_800_000_005, "--card", CARD), []),
        (("--stan", 9_999), []),
    ],
)
def test_stories_for_programs(home: Path, words: tuple[object, ...], stans: list[int]) -> None:
    found = ask(home, "find", *words, status=0)
    assert [story[1]["stan"] for story in found["stories"]] == stans
    assert (found["absent_days"], found["more"]) == ([], "--limit" in words)
    for story in found["stories"]:
        assert [record["kind"] for record in story] == ["session", "intent", "outcome"]
        assert story[1]["refers"] == story[0]["record"]
        assert story[2]["refers"] == story[1]["record"]
        assert len({record["terminal"] for record in story}) == 1


def test_a_story_for_people(home: Path) -> None:
    lines = run(home, "find", "--rrn", 632_800_000_003, status=0).splitlines()
    assert [line.split()[3] for line in lines if "TT000001" in line] == ["session", "intent", "outcome"]
    assert lines[-1] == "1 found"
    assert "RRN 632800000003" in "".join(lines)
    assert CARD not in "".join(lines)
    assert CARD[-4:] in "".join(lines), "its card is masked, not left out"


def test_an_archived_day_is_named_where_it_may_have_what_is_looked_for(home: Path, tmp_path: Path) -> None:
    away = tmp_path / "away.mdb"
    (home / f"journal/{DAY}.mdb").rename(away)
    assert ask(home, "find", "--rrn", 632_800_000_005, status=0) == {
        "stories": [], "absent_days": [DAY], "more": False,
    }  # fmt: skip
    assert f"day {DAY} is archived and was not searched" in run(home, "find", "--rrn", 632_800_000_005, status=0)
    found = ask(home, "find", "--rrn", 632_800_000_005, "--file", away, status=0)
    assert [story[-1]["code"] for story in found["stories"]] == ["00"]
