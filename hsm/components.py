"""A key as the XOR of full-length components, each carried by another person (ISO 11568-2, dual control).

No single component says anything of the key. Each has a check value of its own, so that a typing error is found by the
person who made it, before the components meet.
"""

import secrets
from collections.abc import Sequence

from fengshou.hsm import sm4
from fengshou.hsm.custody import CustodyError
from fengshou.hsm.memory import Secret


class ComponentError(CustodyError):
    """A component is mistyped or too few were given."""


def new_components(count: int) -> list[bytes]:
    """Components of a new random key. Raises ValueError for fewer than two."""
    if count < 2:
        raise ValueError("a key has at least two components")
    return [secrets.token_bytes(sm4.KEY_BYTES) for _ in range(count)]


def format_component(component: bytes) -> str:
    """As it stands on a custodian's form: groups of four hexadecimal digits, then the check value."""
    digits = component.hex().upper()
    groups = " ".join(digits[at : at + 4] for at in range(0, len(digits), 4))
    return f"{groups} / {sm4.check_value(component).hex().upper()}"


def parse_component(text: str) -> bytes:
    """A component as ``format_component`` wrote it; spaces and case do not matter. Raises ComponentError."""
    digits, slash, check = (part.replace(" ", "") for part in text.partition("/"))
    try:
        component, expected = bytes.fromhex(digits), bytes.fromhex(check)
    except ValueError:
        component, expected = b"", b""
    if not slash or len(component) != sm4.KEY_BYTES or len(expected) < 3:
        raise ComponentError("a component is 32 hexadecimal digits, a slash and a check value of 6 or 8")
    if not sm4.equal(sm4.check_value(component)[: len(expected)], expected):
        raise ComponentError("the component does not fit its check value: read it again from the form")
    return component


def combine(components: Sequence[bytes]) -> Secret:
    """The key. Compare its check value with the form before it is used. Raises ComponentError."""
    if len(components) < 2 or len(set(components)) != len(components):
        raise ComponentError("a key has at least two components, each given once")
    key = bytearray(sm4.KEY_BYTES)
    for component in components:
        for at, byte in enumerate(component):
            key[at] ^= byte
    secret = Secret(key)
    key[:] = bytes(len(key))
    return secret
