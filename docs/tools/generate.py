"""Writes the generated parts of the documents from the tables of the code.

``python docs/tools/generate.py`` rewrites what stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``;
with ``--check`` it changes nothing and ends with status 1 when a part is not what the code says.
"""

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import tables

import examples

DOCS = Path(__file__).parents[1]
DOCUMENTS = ("PROTOCOL.md", "ARCHITECTURE.md", "OPERATIONS.md")
_PART = re.compile(r"(<!-- generated: ([a-z0-9-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

PARTS: Mapping[str, Callable[[], str]] = {
    "elements": tables.elements,
    "templates": tables.templates,
    "wire-errors": tables.wire_errors,
    "limits": tables.protocol_limits,
    "commands": tables.commands,
    "codes": tables.codes,
    "sign-in-ladder": tables.sign_in_ladder,
    "service-ladders": tables.service_ladders,
    "record-kinds": tables.record_kinds,
    "host-fields": tables.host_fields,
    "certificates": tables.certificates,
    "session-states": tables.session_states,
    "transaction-states": tables.transaction_states,
    "closings": tables.closings,
    "faults": tables.faults,
    "feed-states": tables.feed_states,
    "config": tables.config_keys,
    "example-keys": lambda: examples.key_lines(examples.load()),
    "example-messages": lambda: examples.messages(examples.load()),
    "example-compact": lambda: examples.compact_forms(examples.load()),
    "example-json": lambda: examples.json_call(examples.load()),
    "example-host": lambda: examples.host_messages(examples.load()),
}


def regenerated(text: str) -> str:
    """The document with every generated part as it should be. Raises KeyError for a part that nothing makes."""
    return _PART.sub(lambda part: f"{part[1]}{PARTS[part[2]]()}{part[3]}", text)


def main(arguments: list[str]) -> int:
    stale = []
    used = set()
    check = "--check" in arguments
    for name in DOCUMENTS:
        file = DOCS / name
        text = file.read_text("utf-8")
        used |= {part[2] for part in _PART.finditer(text)}
        wanted = regenerated(text)
        if wanted != text:
            stale.append(name)
            if not check:
                file.write_text(wanted, "utf-8")
    for part in sorted(set(PARTS) - used):
        print(f"the part {part} stands in no document", file=sys.stderr)
    if not check:
        return 0
    for name in stale:
        print(f"docs/{name} is not up to date: run python docs/tools/generate.py", file=sys.stderr)
    return 1 if stale or set(PARTS) - used else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
