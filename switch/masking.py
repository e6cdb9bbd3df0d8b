"""What a message carries, as people may see it."""

from collections.abc import Mapping

from fengshou.protocol.elements import mask
from fengshou.protocol.message import Value
from fengshou.protocol.templates import Grammar


def masked(grammar: Grammar, values: Mapping[int, Value]) -> dict[str, str]:
    """Values by element name as a log or a screen may show them: C2 shortened, C3 withheld."""
    return {grammar.elements[key].name: mask(grammar.elements[key], value) for key, value in sorted(values.items())}
