"""What a running switch says of itself, one JSON object, and how it is asked; ``status_socket`` answers.

Of several workers each answers for itself, and their supervisor for all: what they count is added up.
"""

import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fengshou.protocol.epoch import EpochState

if TYPE_CHECKING:
    from fengshou.switch.server import Switch


def snapshot(switch: "Switch") -> dict[str, Any]:
    """The counters of all parts, and what is open at this moment."""
    switch.journal.refresh()  # other workers write too
    journal = switch.journal.statistics
    return {
        "process": os.getpid(),
        "custody": switch.custody.protection,  # "development": keys in plain files
        "connections": len(switch.pump),
        "handshakes": {
            "accepted": switch.listener.accepted,
            "resumed": switch.listener.resumed,
            "refused": dict(switch.listener.refused),
        },
        "closed": {why.value: count for why, count in switch.closed.items() if count},
        "in_flight": len(switch.duplicates),
        "answered": dict(switch.sender.answered),
        "refused": dict(switch.inbound.refused),
        "journal": {
            "commits": journal.commits,
            "records": journal.records,
            "largest_commit": journal.largest_commit,
            "last_commit": switch.journal.last_commit.number if switch.journal.last_commit else 0,
        },
        "reversals": {"owed": switch.forwarder.owed, "delivered": switch.forwarder.delivered},
        "undeliverable": {str(intent): why for intent, why in switch.forwarder.undeliverable.items()},
        "transitions": switch.machine.counts(),
        "destinations": {
            name: {
                "up": route.destination.up,
                "in_flight": route.destination.in_flight,
                "owed_in_flight": switch.forwarder.depots[name].in_flight,
                "refused": switch.forwarder.depots[name].refused,
            }
            for name, route in switch.routes.items()
        },
        "analytics": None
        if switch.feed is None
        else {
            "state": switch.feed.state.value,
            "delivered": switch.feed.cursor,
            "written": switch.journal.last_event,
        },
        "keys": {info.label: info.epoch for info in switch.custody.inventory() if info.state is EpochState.CURRENT},
        "keys_waiting": {
            info.label: info.epoch
            for info in switch.custody.inventory()
            if info.state is EpochState.NEXT and switch.can_use(info)
        },
        "cpu_s": sum(os.times()[:2]),
    }


def combined(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The snapshots of all workers as one: counts are added up, a back end is up when all workers have it, a key is in
    use when all use it, and what only one of them knows is taken from it."""
    found: dict[str, Any] = _added(answers)
    return found


def _added(values: Sequence[Any]) -> Any:
    known = [value for value in values if value is not None]
    if not known or isinstance(known[0], str):
        return known[0] if known else None
    if isinstance(known[0], dict):
        keys = dict.fromkeys(key for value in known for key in value)
        return {key: _COMBINE.get(key, _added)([value[key] for value in known if key in value]) for key in keys}
    return sum(known)


def _agreed(values: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What all say alike."""
    return dict(set(values[0].items()).intersection(*(value.items() for value in values)))


_COMBINE: dict[str, Callable[[Sequence[Any]], Any]] = {
    "largest_commit": max, "last_commit": max, "up": all, "keys": _agreed, "keys_waiting": _agreed,
}  # fmt: skip


def ask(path: Path) -> dict[str, Any]:
    """The status of the switch whose socket is at ``path``. Raises OSError when none is running."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(5)
        asking.connect(str(path))
        parts = []
        while part := asking.recv(65536):
            parts.append(part)
    answer: dict[str, Any] = msgspec.json.decode(b"".join(parts))
    return answer
