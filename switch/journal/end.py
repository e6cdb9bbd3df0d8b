"""Where the journal ends, as one view of its tables has it."""

from collections.abc import Mapping
from typing import Any

from fengshou.codecs import sm3
from fengshou.protocol.record import parse_commit
from fengshou.switch.journal.tables import GONE_EVENT, U64, Tail, parse_day


def tail_of(txn: Any, tables: Mapping[str, Any]) -> Tail:
    """Where the journal ends. A day is sealed only when a later one has begun, so the last commit is in the store."""
    with txn.cursor(tables["commits"]) as cursor:
        last = parse_commit(cursor.value()) if cursor.last() else None
    with txn.cursor(tables["days"]) as cursor:
        day = parse_day(cursor.key(), cursor.value()) if cursor.last() else None
    gone, last_event = events_of(txn, tables)
    tail = Tail(last_event=last_event, gone_event=gone, day=day.day if day else 0)
    if last:
        tail.last, tail.commit, tail.previous = last, last.number, sm3(last.to_bytes())
        tail.next_record = last.first_record + last.records
    elif day:  # a repair that found nothing after the sealed days
        tail.commit, tail.previous, tail.next_record = day.last_commit, day.last_hash, day.last_record + 1
    return tail


def events_of(txn: Any, tables: Mapping[str, Any]) -> tuple[int, int]:
    """The last event that is gone, and the last one ever written; a repair may have lost it."""
    gone = int.from_bytes(txn.get(GONE_EVENT, b"", db=tables["meta"]), "big")
    with txn.cursor(tables["events"]) as cursor:
        return gone, max(gone, U64.unpack(cursor.key())[0] if cursor.last() else 0)
