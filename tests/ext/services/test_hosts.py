"""The example data through the scenes into the embedded hosts: every code is the one that the data names.

What stands between scene and host here is the least that a switch does (ladder, limits, originals); the switch itself
has its own tests.
"""

import csv
from collections import Counter as Totals
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from fengshou.ext.hosts.core_banking.application import Application as CoreBanking
from fengshou.ext.hosts.government import Application as Government
from fengshou.protocol import elements as de
from fengshou.protocol.service import (
    Answer,
    Conclusion,
    Fate,
    Iso8583Call,
    JsonCall,
    Original,
    Reply,
    Request,
    Service,
    TerminalFacts,
    refusal,
)
from fengshou.routing.destination import Trace
from fengshou.routing.iso8583_matching import request_fields

Ask = Callable[..., Request]

EXAMPLES = Path(__file__).parents[3] / "examples"
COLUMNS = {
    "entry_mode": "entry_mode",
    "card": "pan",
    "to_account": "to_account",
    "payee": "to_account",
    "amount_fen": "amount",
    "product": "product",
    "variety": "variety",
    "grade": "grade",
    "weight_centikg": "weight",
    "unit_price_fen": "unit_price",
    "item": "item",
    "domain": "domain",
    "subject": "subject",
    "period": "period",
    "town": "town",
    "lot": "lot",
}
TEXT = ("card", "to_account", "payee", "subject", "lot")


def rows(name: str) -> list[dict[str, str]]:
    with (EXAMPLES / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


class Network:
    """Terminals of the examples and the hosts behind them."""

    def __init__(self, services: Mapping[str, Service], ask: Ask, folder: Path) -> None:
        self._services = services
        self._ask = ask
        self._terminals = {
            row["terminal"]: (
                TerminalFacts(**{**row, "acquirer": int(row["acquirer"]), "town": int(row["town"])}),  # type: ignore[arg-type]
                frozenset(services.split()),
            )
            for row in rows("terminals.csv")
            for services in [row.pop("services")]
        }
        self.core = CoreBanking({"database": str(folder / "ledger.db"), "accounts": str(EXAMPLES / "accounts.csv")})
        self._government = Government({"database": str(folder / "government.db")})
        self._used: Totals[tuple[str, str]] = Totals()
        self._rrn = 616_000_000_000
        self._done: dict[int, Original] = {}

    def close(self) -> None:
        self.core.close()
        self._government.close()

    def send(self, scene: str, terminal: str, row: Mapping[str, str], step: int = 0) -> str:
        """The response code of one request; ``step`` is how a later reversal names it."""
        facts, permitted = self._terminals[terminal]
        if scene not in permitted:
            return "58"
        self._rrn += 1
        given = {
            element: row[column] if column in TEXT else int(row[column])
            for column, element in COLUMNS.items()
            if row.get(column) or (column == "subject" and scene == "gov-enquiry")
        }
        absent = {element: None for element in ("pan", "to_account") if scene != "reversal" and element not in given}
        stan = self._rrn % 1_000_000
        request = replace(
            self._ask(scene, **{**absent, **given, "stan": stan}),
            terminal=facts,
            rrn=self._rrn,
            original=self._done.get(int(row.get("reverses") or 0)),
        )
        service = self._services[scene]
        code = self._serve(service, request)
        if scene != "reversal":
            fate = Fate.APPROVED if code == "00" else Fate.DECLINED
            call = service.call(request)
            self._done[step] = Original(
                request.template.id, 200, fate, request.business_day, request.received_us, request.rrn, request.values,
                call if service.moves_money and isinstance(call, Iso8583Call) else None,
            )  # fmt: skip
        elif code == "00" and request.original is not None:
            self._done[int(row["reverses"])] = replace(request.original, fate=Fate.REVERSED)
        return code

    def _serve(self, service: Service, request: Request) -> str:
        failed = refusal(service.ladder, request)
        if failed is not None:
            return failed.code
        for counter in service.counters(request):
            if self._used[counter.name, counter.subject] + counter.amount > counter.cap:
                return counter.code
        call = service.call(request)
        if isinstance(call, Answer):
            return call.code
        conclusion = service.conclude(request, self._ask_host(call, request))
        if conclusion.code == "00":
            for counter in service.counters(request):
                self._used[counter.name, counter.subject] += counter.amount
            service.event(request, conclusion)
        return conclusion.code

    def _ask_host(self, call: Iso8583Call | JsonCall, request: Request) -> Reply:
        facts = request.terminal
        if isinstance(call, JsonCall):
            trace = {"rrn": f"{request.rrn:012d}", "received": "2026-06-09T18:13:20+08:00"}
            body = self._government.answer(call.path, {**call.body, **trace})
            return Reply(str(body["code"]), body=body)
        trace = Trace(request.rrn, request.received_us, facts.terminal, facts.merchant, facts.acquirer)
        (answer,) = self.core.answer([request_fields(call, trace)])
        assert answer is not None
        return Reply(str(answer[39]), fields=answer)


@pytest.fixture
def network(services: Mapping[str, Service], ask: Ask, tmp_path: Path) -> Iterator[Network]:
    network = Network(services, ask, tmp_path)
    yield network
    network.close()


def test_the_mix_is_answered_as_it_says(network: Network) -> None:
    answers = [
        (row["step"], row["why"], row["expect"], network.send(row["service"], row["terminal"], row, int(row["step"])))
        for row in rows("mix.csv")
    ]
    assert [answer for answer in answers if answer[2] != answer[3]] == []
    assert len({code for _, _, _, code in answers}) >= 12
    assert network.core.report("totals")["balanced"]


def test_every_step_of_the_season_is_paid(network: Network) -> None:
    purchases = rows("purchases.csv")
    for row in purchases:
        row["entry_mode"] = "52" if row["card"] else "12"
        assert network.send("farm-purchase", row["terminal"], row) == "00", row
    totals: Mapping[str, Any] = network.core.report("totals")
    assert totals["balanced"]
    assert totals["by_processing_code"] == {
        "00": {"count": len(purchases), "fen": sum(int(row["amount_fen"]) for row in purchases)}
    }


def test_a_reversal_gives_the_money_back_once(network: Network) -> None:
    cash = {"card": "9156004000000079191", "amount_fen": "30000", "entry_mode": "52"}
    back = {"amount_fen": "30000", "reverses": "1"}
    codes = [
        network.send("withdrawal", "FS000015", cash, 1),
        network.send("reversal", "FS000015", back),
        network.send("reversal", "FS000015", back),
    ]
    assert codes == ["00", "00", "25"]
    totals: Mapping[str, Any] = network.core.report("totals")
    assert totals["balanced"]
    assert totals["by_processing_code"] == {}


def test_a_balance_is_what_the_books_say(network: Network, services: Mapping[str, Service], ask: Ask) -> None:
    opening = {row["number"]: int(row["opening_fen"]) for row in rows("accounts.csv")}
    request = ask("balance")
    call = services["balance"].call(request)
    assert isinstance(call, Iso8583Call)
    trace = Trace(request.rrn, request.received_us, "FS000001", "999452007630001", 99_904_520)
    (answer,) = network.core.answer([request_fields(call, trace)])
    assert answer is not None
    balance = opening[request.string(de.PAN)]
    conclusion = services["balance"].conclude(request, Reply(str(answer[39]), fields=answer))
    assert conclusion == Conclusion("00", {de.LEDGER_BALANCE: balance, de.AVAILABLE_BALANCE: balance})
