"""Message templates: which elements a message carries, in which order, and which of them may be left out.

A template has a request and a response side. Fields stand in ascending order of their key. A required field is always
on the wire; each optional field has one presence bit. The grammar of a running switch is the templates built in here
and those of the services it loads.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from fengshou.protocol import elements as de
from fengshou.protocol import limits
from fengshou.protocol.batch import Side
from fengshou.protocol.elements import BASE_ELEMENTS, PRIVATE_NUMBERS, Element, Kind, Privacy, path_of
from fengshou.protocol.operators import FOR_OPTIONAL, KINDS, Operator


@dataclass(frozen=True, slots=True)
class Field:
    key: int
    required: bool = True


def required(*keys: int) -> tuple[Field, ...]:
    return tuple(Field(key) for key in keys)


def optional(*keys: int) -> tuple[Field, ...]:
    return tuple(Field(key, required=False) for key in keys)


def layout(*groups: tuple[Field, ...]) -> tuple[Field, ...]:
    """Fields of several groups in wire order."""
    return tuple(sorted((field for group in groups for field in group), key=lambda field: field.key))


@dataclass(frozen=True, slots=True)
class Template:
    """A message and its answer. ``mti`` is the ISO 8583:1987 MTI it stands for; the answer's is ``mti + 10``.

    ``side`` is where an approval counts in the totals of its batch. None: it moves no money, or takes another back.
    """

    id: int
    name: str
    mti: int
    request: tuple[Field, ...]
    response: tuple[Field, ...]
    signed: bool = True
    operators: tuple[tuple[int, Operator], ...] = ()

    def operator(self, key: int) -> Operator:
        return dict(self.operators).get(key, Operator.COPY)

    side: Side | None = None


# Every answer can say why, when and under which reference; a service adds its own.
ANSWER = layout(
    required(de.RESPONSE_CODE),
    optional(de.SETTLEMENT_DATE, de.RRN, de.AUTHORISATION, de.TEXT),
)

# What a terminal is told when the switch has newer keys for it than it says that it holds.
_KEYS_TOLD = optional(de.KEY_EPOCH, de.MASTER_EPOCH, de.WORKING_KEYS, de.MASTER_KEY)

SIGN_IN = Template(
    15,
    "sign-in",
    800,
    layout(
        required(
            de.STAN, de.LOCAL_TIME, de.LOCAL_DATE, de.ACQUIRER, de.TERMINAL, de.MERCHANT, de.CURRENCY, de.SERIAL,
            de.CREDIT_CODE, de.APP, de.APP_VERSION, de.APP_MANIFEST, de.BATCH, de.OPERATOR, de.FROM_ACCOUNT,
        ),
        optional(de.KEY_EPOCH, de.MASTER_EPOCH, de.DICTIONARY, de.ASSIST, de.LATITUDE, de.LONGITUDE),
    ),
    layout(ANSWER, optional(de.LOCAL_TIME, de.LOCAL_DATE, de.BATCH, de.DICTIONARY), _KEYS_TOLD),
)  # fmt: skip

SIGN_OFF = Template(16, "sign-off", 820, required(de.STAN), ANSWER)

# The terminal says which keys it holds, and proves it by their authentication key; it is told newer ones.
KEYS = Template(
    17,
    "keys",
    800,
    layout(required(de.STAN, de.KEY_EPOCH, de.MASTER_EPOCH), optional(de.MAC)),
    layout(ANSWER, _KEYS_TOLD),
)

# The terminal wants a certificate for a new key. It asks again until there is one: the authority is not the switch.
RENEWAL = Template(
    19,
    "renewal",
    800,
    required(de.STAN, de.NEW_KEY, de.KEY_PROOF, de.KEY_CONSENT),
    layout(ANSWER, optional(de.CERTIFICATE)),
)

# The terminal met a receipt that no key which it believes has signed. It is not signed, because it changes nothing and
# the answer is proved by the certificate that it brings.
SIGNER = Template(
    22,
    "signer",
    800,
    required(de.STAN),
    layout(ANSWER, optional(de.CERTIFICATE, de.ISSUER)),
    signed=False,
)

ECHO = Template(18, "echo", 820, optional(de.NETWORK_CODE), ANSWER, signed=False)

RECEIPT = Template(
    30,
    "receipt",
    620,
    required(de.ORIGINAL_BATCH, de.ORIGINAL_STAN),
    layout(
        ANSWER,
        optional(de.RECORD_NUMBER, de.RECORD, de.LEAF_INDEX, de.AUDIT_PATH, de.COMMITS, de.ROOT_SIGNATURE),
    ),
    signed=False,
)

# Items are answered each by itself; this answer is for an upload that is refused as a whole.
OFFLINE_UPLOAD = Template(29, "offline-upload", 220, required(de.OFFLINE_ITEMS), ANSWER)

# The answer to bytes that no template explains, and the sign that a delta lost its base. Never a request.
ERROR = Template(63, "error", 620, (), ANSWER, signed=False)

BASE_TEMPLATES: tuple[Template, ...] = (
    SIGN_IN, SIGN_OFF, KEYS, ECHO, RENEWAL, SIGNER, RECEIPT, OFFLINE_UPLOAD, ERROR,
)  # fmt: skip


# The largest maximum or size of each kind. Zigzag doubles; the count of digits is a byte; the rest must fit a frame.
BOUND_MAX = {
    Kind.N: limits.UINT_MAX,
    Kind.Z: limits.UINT_MAX // 2,
    Kind.D: 0xFF,
    Kind.AN: limits.FRAME_BYTES_MAX,
    Kind.ANS: limits.FRAME_BYTES_MAX,
    Kind.B: limits.FRAME_BYTES_MAX,
    Kind.BV: limits.FRAME_BYTES_MAX,
}


class GrammarError(ValueError):
    """Elements or templates contradict each other; raised at start, before any peer is served."""


class Grammar:
    """The elements and templates of one switch or terminal, checked against each other."""

    def __init__(self, elements: Iterable[Element] = (), templates: Iterable[Template] = ()) -> None:
        """The built-in grammar and what services add to it.

        Raises GrammarError: an id or key taken twice, a private element outside 113 .. 119, fields out of order.
        """
        self.elements: dict[int, Element] = {}
        self.by_name: dict[str, Element] = {}
        self.templates: dict[int, Template] = {}
        for element in BASE_ELEMENTS:
            self._add_element(element)
        for element in elements:
            if element.number not in PRIVATE_NUMBERS:
                raise GrammarError(f"{element.path} ({element.name}): services define elements 113 .. 119 only")
            self._add_element(element)
        for template in (*BASE_TEMPLATES, *templates):
            self._add_template(template)

    def _add_element(self, element: Element) -> None:
        if element.key in self.elements or element.name in self.by_name:
            raise GrammarError(f"{element.path} ({element.name}) is defined twice")
        if not (0 < element.number <= 0xFF and 0 <= element.sub <= 0xFF):
            raise GrammarError(f"{element.path} ({element.name}): number and sub-number are a byte each")
        bound = element.maximum if element.kind in (Kind.N, Kind.Z) else element.size
        if not 0 < bound <= BOUND_MAX[element.kind]:
            raise GrammarError(f"{element.path} ({element.name}): {bound} is not 1 .. {BOUND_MAX[element.kind]}")
        self.elements[element.key] = element
        self.by_name[element.name] = element

    def _add_template(self, template: Template) -> None:
        if not 0 < template.id <= limits.TEMPLATE_ID_MAX:
            raise GrammarError(f"template {template.name}: id {template.id} is not 1 .. {limits.TEMPLATE_ID_MAX}")
        if template.id in self.templates:
            raise GrammarError(
                f"template id {template.id} is both {self.templates[template.id].name} and {template.name}"
            )
        for side, fields in (("request", template.request), ("response", template.response)):
            keys = [field.key for field in fields]
            if keys != sorted(set(keys)):
                raise GrammarError(f"template {template.name} {side}: fields are not in ascending order")
            for key in keys:
                if key not in self.elements:
                    raise GrammarError(f"template {template.name} {side}: no element {path_of(key)}")
            if sum(not field.required for field in fields) > limits.OPTIONAL_FIELDS_MAX:
                raise GrammarError(f"template {template.name} {side}: too many optional fields")
        if template.operators:
            self._check_operators(template)
        self.templates[template.id] = template

    def _check_operators(self, template: Template) -> None:
        there = {field.key: field.required for field in template.request}
        if not template.signed or template.id in (row.id for row in BASE_TEMPLATES):
            raise GrammarError(f"template {template.name}: only a signed request of a service has a delta form")
        if len(dict(template.operators)) < len(template.operators) or dict(template.operators).keys() - there.keys():
            raise GrammarError(f"template {template.name}: an operator for each element that is there, and one only")
        for key, needed in there.items():
            operator, element = template.operator(key), self.elements[key]
            where = f"template {template.name}, {element.path}: "
            if element.privacy is Privacy.C3:
                raise GrammarError(where + "C3 is not remembered, not even for a session")
            if element.kind not in KINDS[operator] or not (needed or operator in FOR_OPTIONAL):
                raise GrammarError(where + f"{operator.value} does not fit it")
            if operator is Operator.CLOCK and key != de.LOCAL_TIME:
                raise GrammarError(where + "only local time is a time of day")
            if operator is Operator.DERIVED and not (there.get(de.WEIGHT) and there.get(de.UNIT_PRICE)):
                raise GrammarError(where + "it derives from weight and unit price")
            if operator is Operator.DERIVED and template.operator(de.WEIGHT) is Operator.DERIVED:
                raise GrammarError(where + "nothing derives from what is derived")

    def path(self, key: int) -> str:
        return self.elements[key].path
