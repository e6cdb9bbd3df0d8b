"""The tables of the documents that follow from the code: each function gives one generated part in Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, IntEnum
from typing import Any

import msgspec
import words

from fengshou.ext.services import (
    balance,
    completion,
    deposit,
    farm_purchase,
    gov_enquiry,
    offline_sale,
    preauthorisation,
    preauthorisation_void,
    refund,
    reversal,
    settlement,
    transfer,
    void,
    withdrawal,
)
from fengshou.ext.services.reversal import MATCHING
from fengshou.ext.services.settlement import MATCHING_DETAILS, MATCHING_TOTALS
from fengshou.hsm.channel import Fault
from fengshou.hsm.x509 import HOST, ISSUING, PUBLISHER, ROOT, SWITCH, TERMINAL
from fengshou.protocol import limits, session, transaction
from fengshou.protocol.codes import CODES
from fengshou.protocol.elements import BASE_ELEMENTS, Element, Kind
from fengshou.protocol.errors import WireError
from fengshou.protocol.iso8583 import HOST_FIELDS
from fengshou.protocol.message import COMMANDS
from fengshou.protocol.record import RecordKind
from fengshou.protocol.service import Rung, Service
from fengshou.protocol.templates import Field, Grammar, Template
from fengshou.routing.events import FeedState
from fengshou.switch import config
from fengshou.terminals.binding import LADDER, UNKNOWN_TERMINAL
from fengshou.terminals.pump import Closing

SERVICES: tuple[Service, ...] = tuple(
    module.service
    for module in (
        farm_purchase,
        withdrawal,
        deposit,
        transfer,
        balance,
        reversal,
        gov_enquiry,
        settlement,
        void,
        refund,
        offline_sale,
        preauthorisation,
        completion,
        preauthorisation_void,
    )
)
GRAMMAR = Grammar(templates=[template for service in SERVICES for template in service.templates])


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        cells = [str(cell).replace("|", "\\|") for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def explained(head: Sequence[str], members: Iterable[Any], meaning: Mapping[Any, str]) -> str:
    """One row a member of an enumeration; its words must be complete and none may be left over."""
    members = list(members)
    missing, extra = set(members) - set(meaning), set(meaning) - set(members)
    if missing or extra:
        raise SystemExit(f"docs/tools/words.py: no words for {missing or '{}'}, words for nothing: {extra or '{}'}")
    return table(head, ((_name(member), meaning[member]) for member in members))


def _name(member: Any) -> str:
    if isinstance(member, IntEnum):
        return f"{member.value} {member.name.lower()}"
    return f"`{member.value}`" if isinstance(member, Enum) else f"`{member}`"


# -- the grammar -----------------------------------------------------------------------------------------------------


def elements() -> str:
    return table(
        ("DE", "key", "name", "ISO format", "kind", "bound", "class", "meaning"),
        (
            (
                element.path.removeprefix("DE "),
                f"{element.key:04x}",
                element.name,
                f"`{element.iso_format}`",
                element.kind.value,
                _bound(element),
                element.privacy.value,
                element.about,
            )
            for element in BASE_ELEMENTS
        ),
    )


def _bound(element: Element) -> str:
    match element.kind:
        case Kind.N:
            return f"0 .. {element.maximum}"
        case Kind.Z:
            return f"-{element.maximum} .. {element.maximum}"
        case Kind.D:
            return f"1 .. {element.size} digits"
        case Kind.ANS | Kind.BV:
            return f"0 .. {element.size} bytes"
    return f"{element.size} bytes"


def templates() -> str:
    return "\n".join(_template(template) for template in sorted(GRAMMAR.templates.values(), key=lambda row: row.id))


def _template(template: Template) -> str:
    signed = "signed" if template.signed else "not signed"
    head = f"**{template.id} {template.name}** (MTI {template.mti:04d} / {template.mti + 10:04d}, request {signed})\n\n"
    delta = f"- delta form: {_operators(template)}\n" if template.operators else ""
    return f"{head}- request: {_fields(template.request)}\n- answer: {_fields(template.response)}\n{delta}"


def _operators(template: Template) -> str:
    names = (GRAMMAR.path(field.key).removeprefix("DE ") for field in template.request)
    return ", ".join(
        f"{name} {template.operator(field.key).name}" for name, field in zip(names, template.request, strict=True)
    )


def _fields(fields: Sequence[Field]) -> str:
    optional = sum(not field.required for field in fields)
    names = []
    for field in fields:
        element = GRAMMAR.elements[field.key]
        names.append(f"{element.path.removeprefix('DE ')} {element.name}{'' if field.required else '?'}")
    count = (optional + 7) // 8
    return f"{', '.join(names) or 'no elements'}; {count or 'no'} presence byte{'s' if count > 1 else ''}"


def wire_errors() -> str:
    return explained(("error", "when"), WireError, words.WIRE_ERRORS)


def protocol_limits() -> str:
    names = {
        "FRAME_BYTES_MIN": "least value of length",
        "FRAME_BYTES_MAX": "greatest value of length",
        "LENGTH_BYTES_MAX": "bytes of the length itself",
        "VARINT_BYTES_MAX": "bytes of a varint",
        "UINT_MAX": "greatest integer",
        "SIGNATURE_BYTES": "bytes of a signature",
        "BINDING_BYTES": "bytes of the session binding",
        "TEMPLATE_ID_MAX": "greatest template id",
        "OPTIONAL_FIELDS_MAX": "optional fields of one side of a template",
        "AMOUNT_FEN_MAX": "fen in DE 4",
        "WEIGHT_CENTIKG_MAX": "0.01 kg in DE 48.4",
        "UNIT_PRICE_FEN_MAX": "fen per kg in DE 48.5",
    }
    return table(("what", "bound"), ((text, getattr(limits, name)) for name, text in names.items()))


def commands() -> str:
    return table(("command", "meaning"), COMMANDS.items())


def codes() -> str:
    return table(
        ("code", "class", "meaning", "for the customer"),
        ((row.code, row.action, row.meaning, row.text_zh) for row in CODES.values()),
    )


def sign_in_ladder() -> str:
    rows = [("terminal", UNKNOWN_TERMINAL.code, UNKNOWN_TERMINAL.reason)]
    rows += [(rung.name, rung.code, rung.reason) for rung in LADDER]
    return table(("rung", "code", "refused when"), rows)


def service_ladders() -> str:
    parts = []
    for service in SERVICES:
        rungs: list[tuple[str, Rung]] = [("", rung) for rung in service.ladder]
        if service.name == "reversal":
            rungs += [("found: ", rung) for rung in MATCHING]
        if service.name == "settlement":
            rungs += [("totals: ", rung) for rung in MATCHING_TOTALS]
            rungs += [("details: ", rung) for rung in MATCHING_DETAILS]
        rows = [(f"{where}{rung.name}", rung.code) for where, rung in rungs]
        parts.append(f"**{service.name}**\n\n" + table(("must hold, in this order", "else"), rows))
    return "\n".join(parts)


def record_kinds() -> str:
    return explained(("kind", "a record of it says"), RecordKind, words.RECORD_KINDS)


def host_fields() -> str:
    return table(
        ("DE", "name", "format", "class"),
        ((row.number, row.name, f"`{row.format}`", row.privacy.value) for row in HOST_FIELDS),
    )


def certificates() -> str:
    rows = []
    for profile in (ROOT, ISSUING, SWITCH, TERMINAL, HOST, PUBLISHER):
        usage = ", ".join(sorted(name.replace("_", " ") for name in profile.usage))
        extended = ", ".join(name.replace("_", " ") for name in profile.extended_usage) or "none"
        constraint = f"CA, path length {profile.ca_path_length}" if profile.is_ca else "not a CA"
        rows.append((profile.name, profile.days, constraint, usage, extended))
    return table(("profile", "days", "basic constraints", "key usage", "extended key usage"), rows)


# -- state tables as Mermaid diagrams ----------------------------------------------------------------------------------


def session_states() -> str:
    return _diagram(session.TRANSITIONS, session.State.CONNECTED)


def transaction_states() -> str:
    return _diagram(transaction.TRANSITIONS, transaction.State.RECEIVED)


def _diagram(transitions: Mapping[tuple[Any, Any], Any], start: Enum) -> str:
    def state(member: Enum) -> str:
        return str(member.value).replace(" ", "_")

    edges: dict[tuple[str, str], list[str]] = {}
    for (source, event), target in transitions.items():
        edges.setdefault((state(source), state(target)), []).append(event.value)
    lines = [f"    [*] --> {state(start)}"]
    lines += [f"    {source} --> {target}: {' / '.join(events)}" for (source, target), events in edges.items()]
    return "```mermaid\nstateDiagram-v2\n" + "\n".join(lines) + "\n```\n"


# -- operations --------------------------------------------------------------------------------------------------------


def closings() -> str:
    return explained(("reason", "what it means, what to do"), Closing, words.CLOSINGS)


def faults() -> str:
    return explained(("reason", "what it means, what to do"), Fault, words.FAULTS)


def feed_states() -> str:
    return explained(("state", "what to do"), FeedState, words.FEED_STATES)


def config_keys() -> str:
    sections: tuple[tuple[str, type[Any]], ...] = (
        ("", config.Config),
        ("[files]", config.Files),
        ("[listen]", config.Listen),
        ("[limits]", config.Limits),
        ("[cut-over]", config.CutOverSection),
        ('[destination.NAME] kind = "iso8583"', config.Iso8583Destination),
        ('[destination.NAME] kind = "json"', config.JsonDestination),
        ("[analytics]", config.JsonPeer),
        ("[stand-in]", config.StandInSection),
        ("[[service]]", config.ServiceEntry),
        ('[custody.NAME] kind = "sdf"', config.SdfProvider),
        ('[custody.NAME] kind = "card"', config.CardProvider),
        ("a card of it", config.CardRow),
    )
    tables = {"stand_in", "listen", "service", "destination", "files", "limits", "cut_over", "analytics", "custody"}
    parts, used = [], set()
    for title, section in sections:
        rows = []
        for field in msgspec.structs.fields(section):
            if section is config.Config and field.name in tables:
                continue
            key = f"{section.__name__}.{field.name}"
            if key not in words.CONFIG:
                key = f"JsonPeer.{field.name}"  # a JSON destination and the analytics store share these
            if key not in words.CONFIG:
                raise SystemExit(
                    f"docs/tools/words.py: no words for the configuration key {section.__name__}.{field.name}"
                )
            used.add(key)
            rows.append((f"`{field.encode_name}`", _default(field), words.CONFIG[key]))
        parts.append(f"{f'`{title}`' if title else 'Top level'}\n\n" + table(("key", "default", "meaning"), rows))
    if left := set(words.CONFIG) - used:
        raise SystemExit(f"docs/tools/words.py: words for no configuration key: {left}")
    return "\n".join(parts)


def _default(field: Any) -> str:
    if field.required:
        return "must be given"
    default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return f"`{list(default) if isinstance(default, tuple) else default}`" if default not in ("", {}, None) else "none"
