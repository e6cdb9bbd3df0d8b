"""Every report of a real site held against its host's own ledger, to the fen, by the commands an operator types."""

import csv
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from fengshou.protocol import elements as de
from fengshou.protocol.day_file import DayRow, day_file_lines, read_day_file
from fengshou.switch.cli.settlement import settle
from fengshou.switch.clock import Clock
from fengshou.terminals.batch_log import BatchLog
from fengshou.terminals.identity import Counters
from tests.switch.town import FARMER, PAN, TERMINALS, Town, enquiry, purchase, reversal, running_town, withdrawal

RATES = Path(__file__).parents[2] / "examples/commission.toml"
KINDS = {"farm-purchase": "00", "withdrawal": "01", "deposit": "21"}


@pytest.fixture(scope="module")
def season(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A site in which three terminals traded, one transaction was taken back, two batches were settled."""
    with running_town(tmp_path_factory.mktemp("season") / "site") as town:
        trio.run(_trade, town)
        town.settle()
        yield town


async def _trade(town: Town) -> None:
    for terminal, purchases in zip(TERMINALS, (3, 2, 1), strict=False):
        log = BatchLog()
        async with town.client(terminal, Counters(), log=log) as client:
            for weight in range(1_000, 1_000 * (purchases + 1), 1_000):
                assert (await client.trade("farm-purchase", purchase(weight))).approved
            assert (
                await client.trade("deposit", {de.AMOUNT: 5_000, de.ENTRY_MODE: 12, de.TO_ACCOUNT: FARMER})
            ).approved
            assert (await client.trade("gov-enquiry", enquiry())).approved
            cash = await client.trade("withdrawal", withdrawal(20_000))
            assert cash.approved
            if terminal == TERMINALS[0]:
                back = reversal(cash.request.batch, cash.request.stan, 20_000)
                assert (await client.trade("reversal", back)).approved
            assert not (await client.trade("withdrawal", withdrawal(500_000))).approved  # more than the day allows
            if terminal == TERMINALS[1]:
                log.note(cash.request.template, cash.request.batch, {**cash.request.values, de.STAN: 900}, "00")
            if terminal != TERMINALS[2]:
                await client.settle()


def command(town: Town, *arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(settle, [arguments[0], "--home", str(town.folder), *arguments[1:]])
    assert done.exit_code == status, done.output
    return done.stdout


def ask(town: Town, *arguments: str, status: int = 0) -> Any:
    return json.loads(command(town, *arguments, "--json", status=status))


def books(town: Town, query: str, *values: object) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(town.folder / "hosts/core-banking/ledger.db")
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()


def today() -> int:
    clock = Clock()
    return clock.business_day(clock.now_us())


def test_a_day_by_service_is_what_the_ledger_has_by_processing_code(season: Town) -> None:
    found = ask(season, "day", "--counter", "3")
    rows = {row["service"]: row for row in found["services"]}
    posted = {kind[:2]: row for kind, row in season.books()["by_processing_code"].items()}
    for service, kind in KINDS.items():
        counts = {name: rows[service][name] for name in ("debits", "debits_fen", "credits", "credits_fen")}
        side = "credits" if service == "deposit" else "debits"
        other = {"credits": "debits", "debits": "credits"}[side]
        assert counts == {
            side: posted[kind]["count"], f"{side}_fen": posted[kind]["fen"], other: 0, f"{other}_fen": 0,
        }, service  # fmt: skip
    assert rows["gov-enquiry"]["enquiries"] == 3
    assert "reversal" not in rows
    assert "settlement" not in rows
    moved = sum(row["fen"] for row in posted.values())
    assert rows["total"]["debits_fen"] + rows["total"]["credits_fen"] == moved == found["indicators"]["fen"]
    served = 6 + 3 + 3 + 2  # purchases, deposits, enquiries, withdrawals that stand
    assert found["indicators"]["served"] == found["indicators"]["trips_saved"] == served
    assert found["indicators"]["substitution_per_mille"] == round(1000 * served / (served + 3))
    assert found["indicators"]["fees_saved_fen"] == (posted["00"]["fen"] + 500) // 1000


def test_terminals_and_sites_add_up_to_the_ledger_s_legs(season: Town, tmp_path: Path) -> None:
    by_terminal = {row["terminal"]: row for row in ask(season, "merchant", "--csv", str(tmp_path / "m.csv"))}
    month = ask(season, "merchant", "--month", str(today() // 100))
    assert {row["terminal"]: row for row in month} == by_terminal
    for terminal in TERMINALS[:3]:
        ((count, fen),) = books(
            season,
            "SELECT count(*), sum(amount_fen) FROM transactions"
            " WHERE class = '2' AND state = 'posted' AND terminal = ? AND processing_code NOT LIKE '3%'",
            terminal,
        )
        row = by_terminal[terminal]
        assert (row["debits"] + row["credits"], row["debits_fen"] + row["credits_fen"]) == (count, fen)
    *sites, whole = ask(season, "site")
    assert [row["site"] for row in sites] == ["TOWN"]
    assert whole["debits_fen"] == sum(row["debits_fen"] for row in by_terminal.values() if row["terminal"])


def test_rows_in_a_file_are_those_on_the_screen(season: Town, tmp_path: Path) -> None:
    command(season, "merchant", "--csv", str(tmp_path / "rows.csv"))
    with (tmp_path / "rows.csv").open(encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert written == [{name: str(value) for name, value in row.items()} for row in ask(season, "merchant")]


def test_batches_name_what_differs(season: Town) -> None:
    found = ask(season, "batch")
    assert [(row["terminal"], row["state"]) for row in found["batches"]] == [
        (TERMINALS[0], "balanced"),
        (TERMINALS[1], "differs"),
    ]
    for row in found["batches"]:
        ((count, fen),) = books(
            season,
            "SELECT count(*), sum(amount_fen) FROM transactions"
            " WHERE class = '2' AND state = 'posted' AND terminal = ? AND processing_code NOT LIKE '3%'",
            row["terminal"],
        )
        assert (row["debits"] + row["credits"], row["debits_fen"] + row["credits_fen"]) == (count, fen)
    (difference,) = found["differences"]
    assert (difference["terminal"], difference["stan"], difference["what"]) == (
        TERMINALS[1],
        900,
        "not approved in the journal",
    )
    only = ask(season, "batch", "--differing")
    assert [row["terminal"] for row in only["batches"]] == [TERMINALS[1]]
    assert ask(season, "batch", "--terminal", TERMINALS[0])["differences"] == []
    assert TERMINALS[1] in command(season, "batch")


def test_the_host_s_file_agrees_and_every_difference_is_listed_in_both_directions(season: Town, tmp_path: Path) -> None:
    day, file = str(today()), tmp_path / "day.csv"
    command(season, "dayfile", "core-banking", "--day", day, "--out", str(file))
    result = ask(season, "reconcile", "--day", day, str(file))
    assert result["equal"]
    assert result["fen"] == sum(row["fen"] for row in season.books()["by_processing_code"].values())
    assert "equal" in command(season, "reconcile", str(file))

    # The host forgets one, books one twice under another number, and another for a fen more.
    with file.open("rb") as lines:
        rows = list(read_day_file(lines).rows)
    moved = [row for row in rows if row.moved_money]
    forgotten, dearer = moved[0], moved[1]
    rows = [row for row in rows if row not in (forgotten, dearer)]
    rows.append(DayRow(dearer.rrn, dearer.terminal, dearer.kind, dearer.fen + 1, dearer.state))
    invented = DayRow(forgotten.rrn + 9_000_000, "TT000009", "01", 777, "posted")
    file.write_bytes(b"".join(day_file_lines("core-banking", int(day), [*rows, invented])))
    result = ask(season, "reconcile", "--csv", str(tmp_path / "differences.csv"), str(file), status=1)
    assert [(row["rrn"], row["what"]) for row in result["differences"]] == sorted(
        [
            (f"{forgotten.rrn:012d}", "missing in the books"),
            (f"{dearer.rrn:012d}", "amount differs"),
            (f"{invented.rrn:012d}", "missing in the journal"),
        ]
    )
    told = command(season, "reconcile", "--csv", str(tmp_path / "differences.csv"), str(file), status=1)
    assert all(row["rrn"] in told for row in result["differences"])
    assert len((tmp_path / "differences.csv").read_text("utf-8").splitlines()) == 4

    # A file that was altered or is of another day is not used at all.
    file.write_bytes(file.read_bytes().replace(b"TT000009", b"TT000008"))
    command(season, "reconcile", str(file), status=1)
    file.write_bytes(b"".join(day_file_lines("core-banking", 20200101, [])))
    command(season, "reconcile", "--day", day, str(file), status=1)
    assert ask(season, "reconcile", str(file))["transactions"] == 0


def test_commission_of_a_month_that_still_runs(season: Town) -> None:
    month = str(today() // 100)
    rows = ask(season, "commission", "--month", month, "--rates", str(RATES))
    assert len(rows) == 3
    # Purchases 0.1 per mille, a deposit of 50 yuan, an enquiry and, but for the first terminal, a withdrawal of 200.
    fen = [9_650 * 10 * sum(range(1, count + 1)) for count in (3, 2, 1)]
    expected = [(purchases + 5_000) // 10_000 + 50 + 5 + 50 + (80 if at else 0) for at, purchases in enumerate(fen)]
    assert [row["earned_fen"] for row in rows] == expected == [row["payable_fen"] for row in rows]
    command(season, "commission", "--month", month, "--rates", str(RATES), "--close", status=1)
    assert not (season.folder / "settlement").exists()


def test_nothing_of_this_shows_a_card(season: Town) -> None:
    for name in ("day", "merchant", "site", "batch"):
        assert PAN not in command(season, name)
        assert PAN not in json.dumps(ask(season, name))
