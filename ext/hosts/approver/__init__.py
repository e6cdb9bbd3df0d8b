"""A core-banking host without books, for measurements: it approves whatever is well formed and keeps nothing.

Each request is parsed and judged and each answer built as by any host, so the switch and the line have all their work
and the host takes little of a machine that it shares with them. It is no host to trade with: it knows no repeat.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from fengshou.protocol.backend import Fields
from fengshou.protocol.codes import APPROVED, FORMAT_ERROR
from fengshou.protocol.iso8583 import MTI, answer_mti

__all__ = ["Application"]

# Who asks (32, 41, 42), under which numbers (7, 11, 37), for what (3).
_REQUIRED = (3, 7, 11, 32, 37, 41, 42)
# What an answer repeats of its request.
_ECHOED = (3, 4, 7, 11, 32, 37, 41, 49)
_AUTHORISATION_MAX = 10**6


class Application:
    """An ``Iso8583Application`` without options."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """Raises ValueError: it has no options."""
        if options:
            raise ValueError(f"approving host: unknown option {min(options)!r}; it has none")
        self._count = itertools.count(1)

    def answer(self, requests: Sequence[Fields]) -> Sequence[Fields | None]:
        return [self._answer(fields) for fields in requests]

    def close(self) -> None:
        pass

    def _answer(self, fields: Fields) -> Fields:
        answer = {MTI: answer_mti(str(fields[MTI]))}
        for number in _ECHOED:
            if number in fields:
                answer[number] = str(fields[number])
        if all(number in fields for number in _REQUIRED):
            answer[38] = f"{next(self._count) % _AUTHORISATION_MAX:06d}"
            answer[39] = APPROVED
        else:
            answer[39] = FORMAT_ERROR
        return answer
