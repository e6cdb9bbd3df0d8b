"""``fengshou pos purchase --offline`` and ``fengshou pos upload``: trading without coverage."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

from fengshou.codecs import MessageCodec
from fengshou.protocol.codes import APPROVED, text_of
from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.message import Value
from fengshou.protocol.templates import Grammar
from fengshou.switch.cli.common import print_json, print_table
from fengshou.terminals.client import TerminalClient
from fengshou.terminals.home import Home
from fengshou.terminals.identity import Counters
from fengshou.terminals.offline import Offline, Uploaded, keep
from fengshou.terminals.offline_store import OfflineError, OfflineStore

T = TypeVar("T")


class Run(Protocol):
    """Runs something with the client of a terminal and its counters, to its end."""

    def __call__(self, home: Home, use: Callable[[TerminalClient, Counters], Awaitable[T]]) -> T: ...


def store_purchase(home: Home, grammar: Grammar, template: str, values: Mapping[int, Value]) -> dict[str, Any]:
    """Keep a purchase for a later upload. Raises OfflineError."""
    codec = MessageCodec(grammar)
    with home.offline(codec) as store:
        try:
            number = keep(store, codec, grammar, template, values)
        except UntrustedBytesError as error:
            raise OfflineError(f"the grammar does not admit this: {error}") from None
        except KeyError:
            raise OfflineError(f"this terminal has no service {template}") from None
        return {"number": number, "waiting": len(store)}


def upload_all(home: Home, grammar: Grammar, run: Run, as_json: bool) -> bool:
    """Upload what is stored and print how each ended; whether all is done and approved."""
    with home.offline(MessageCodec(grammar)) as store:

        async def upload(client: TerminalClient, counters: Counters) -> list[Uploaded]:
            return await Offline(client, store, home.signer(), counters).upload()

        done = run(home, upload) if len(store) else []
        _print(done, store, as_json)
        return not len(store) and all(one.code == APPROVED for one in done)


def _print(done: list[Uploaded], store: OfflineStore, as_json: bool) -> None:
    rows = [
        {
            "number": one.number,
            "batch": one.batch,
            "stan": one.stan,
            "code": one.code,
            "meaning": text_of(one.code),
            "rrn": f"{one.rrn:012d}" if one.rrn is not None else "",
        }
        for one in done
    ]
    if as_json:
        print_json({"uploaded": rows, "waiting": len(store)})
        return
    columns = ("number", "batch", "stan", "code", "meaning", "rrn")
    print_table(f"uploaded, {len(store)} still waiting", columns, [list(row.values()) for row in rows])
