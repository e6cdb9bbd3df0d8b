"""The grammar refuses elements and templates that contradict each other or the wire, before any peer is served."""

import pytest

from fengshou.protocol import elements as de
from fengshou.protocol import limits
from fengshou.protocol.elements import Element, Kind
from fengshou.protocol.templates import Field, Grammar, GrammarError, Template, optional, required

GOOD = Element(113, 1, "good", "n", Kind.N, maximum=9)


def element(kind: Kind, *, number: int = 113, sub: int = 2, size: int = 0, maximum: int = 0) -> Element:
    return Element(number, sub, "new", "", kind, size=size, maximum=maximum)


def template(identity: int, fields: tuple[Field, ...]) -> Template:
    return Template(identity, "new", 200, fields, ())


@pytest.mark.parametrize(
    ("added", "why"),
    [
        (GOOD, "twice"),
        (Element(113, 2, "good", "n", Kind.N, maximum=9), "twice"),
        (element(Kind.N, number=4, maximum=9), "113 .. 119"),
        (element(Kind.N, number=120, maximum=9), "113 .. 119"),
        (element(Kind.N, sub=256, maximum=9), "a byte each"),
        (element(Kind.N, sub=-1, maximum=9), "a byte each"),
        (element(Kind.N, maximum=0), "is not 1"),
        (element(Kind.N, maximum=limits.UINT_MAX + 1), "is not 1"),
        (element(Kind.Z, maximum=limits.UINT_MAX // 2 + 1), "is not 1"),
        (element(Kind.D, size=256), "is not 1"),
        (element(Kind.AN, size=0), "is not 1"),
        (element(Kind.ANS, size=limits.FRAME_BYTES_MAX + 1), "is not 1"),
        (element(Kind.B, size=-1), "is not 1"),
        (element(Kind.BV, maximum=9), "is not 1"),
    ],
)
def test_an_element_that_does_not_fit(added: Element, why: str) -> None:
    with pytest.raises(GrammarError, match=why):
        Grammar([GOOD, added])


@pytest.mark.parametrize(
    ("added", "why"),
    [
        (template(0, ()), "is not 1"),
        (template(limits.TEMPLATE_ID_MAX + 1, ()), "is not 1"),
        (template(15, ()), "both"),
        (template(40, required(de.STAN, de.AMOUNT)), "ascending"),
        (template(40, (*required(de.STAN), *optional(de.STAN))), "ascending"),
        (template(40, required(113 << 8 | 9)), r"no element DE 113\.9"),
        (template(40, optional(*sorted(key for key in Grammar().elements)[: limits.OPTIONAL_FIELDS_MAX + 1])), "many"),
    ],
)
def test_a_template_that_does_not_fit(added: Template, why: str) -> None:
    with pytest.raises(GrammarError, match=why):
        Grammar([GOOD], [added])


def test_the_largest_bounds_fit() -> None:
    grammar = Grammar(
        [
            element(Kind.N, sub=0, maximum=limits.UINT_MAX),
            Element(119, 255, "last", "", Kind.Z, maximum=limits.UINT_MAX // 2),
        ],
        [template(limits.TEMPLATE_ID_MAX - 1, optional(*sorted(Grammar().elements)[: limits.OPTIONAL_FIELDS_MAX]))],
    )
    assert grammar.path(119 << 8 | 255) == "DE 119.255"
    assert grammar.path(113 << 8) == "DE 113"
