"""PIN blocks under SM4 and the offsets by which PINs are verified.

ISO 9564-1 format 4 with SM4 in the place of AES, both being 128-bit ciphers::

    PIN field  4 | length | PIN … filled with A to 16 digits | 8 random bytes
    PAN field  length of the PAN - 12 | PAN … filled with 0 to 32 digits
    block      E( E( PIN field ) xor PAN field )

UnionPay's block is format 0 stretched to one SM4 block; it hides equal PINs of one account from nobody, so format 4 is
preferred wherever the peer knows it::

    PIN field  length (2 digits) | PIN … filled with F to 32 digits
    PAN field  20 digits 0 | the 12 digits of the PAN before its check digit
    block      E( PIN field xor PAN field )

PINs are digits in a bytearray, one a byte, so that they can be wiped.
"""

import os

from fengshou.hsm import sm4
from fengshou.hsm.custody import PinBlockError, PinFormat, PinMismatch
from fengshou.hsm.memory import wipe

PIN_DIGITS_MIN, PIN_DIGITS_MAX = 4, 12  # ISO 9564-1 section 8.1
_FILL_4 = 0xA
_FILL_UNIONPAY = 0xF


def encipher(key: sm4.Key, form: PinFormat, pin: bytes | bytearray, account: str) -> bytes:
    """The block of a PIN, given as ASCII digits. Raises PinBlockError when PIN or account is no such thing."""
    if not (PIN_DIGITS_MIN <= len(pin) <= PIN_DIGITS_MAX and pin.isdigit()):
        raise PinBlockError(f"a PIN has {PIN_DIGITS_MIN} to {PIN_DIGITS_MAX} digits")
    digits = bytearray(digit - 0x30 for digit in pin)
    field = _pack(form, digits)
    try:
        if form is PinFormat.ISO_4:
            once = sm4.ecb_encrypt(key, field)
            return bytes(sm4.ecb_encrypt(key, _xor(once, _account_field(form, account))))
        return bytes(sm4.ecb_encrypt(key, _xor(field, _account_field(form, account))))
    finally:
        wipe(digits, field)


def decipher(key: sm4.Key, form: PinFormat, block: bytes, account: str) -> bytearray:
    """The PIN as ASCII digits; wipe it. Raises PinBlockError, which does not say what was wrong with the PIN field."""
    if len(block) != sm4.BLOCK_BYTES:
        raise PinBlockError(f"a PIN block has {sm4.BLOCK_BYTES} bytes")
    if form is PinFormat.ISO_4:
        field = sm4.ecb_decrypt(key, _xor(sm4.ecb_decrypt(key, block), _account_field(form, account)))
    else:
        field = _xor(sm4.ecb_decrypt(key, block), _account_field(form, account))
    digits = bytearray(0)
    try:
        for byte in field:
            digits += bytes((byte >> 4, byte & 0xF))
        return _unpack(form, digits)
    finally:
        wipe(field, digits)


def _pack(form: PinFormat, digits: bytearray) -> bytearray:
    if form is PinFormat.ISO_4:
        head, fill, count = bytearray((4, len(digits))), _FILL_4, 16
        tail = os.urandom(8)
    else:
        head, fill, count, tail = bytearray((0, len(digits))), _FILL_UNIONPAY, 32, b""
    nibbles = head + digits
    nibbles += bytes((fill,)) * (count - len(nibbles))
    field = bytearray(high << 4 | low for high, low in zip(nibbles[::2], nibbles[1::2], strict=True))
    wipe(nibbles)
    return field + tail


def _unpack(form: PinFormat, nibbles: bytearray) -> bytearray:
    control, fill, count = (4, _FILL_4, 16) if form is PinFormat.ISO_4 else (0, _FILL_UNIONPAY, 32)
    length = nibbles[1]
    good = (
        nibbles[0] == control
        and PIN_DIGITS_MIN <= length <= PIN_DIGITS_MAX
        and all(digit < 10 for digit in nibbles[2 : 2 + length])
        and all(nibble == fill for nibble in nibbles[2 + length : count])
    )
    if not good:
        raise PinBlockError("no PIN block of this format, key and account")
    return bytearray(digit + 0x30 for digit in nibbles[2 : 2 + length])


def _account_field(form: PinFormat, account: str) -> bytes:
    if not (12 <= len(account) <= 19 and account.isascii() and account.isdecimal()):
        raise PinBlockError("a PIN is bound to a PAN of 12 to 19 digits")
    if form is PinFormat.ISO_4:
        return bytes.fromhex(f"{len(account) - 12}{account}".ljust(32, "0"))
    # The check digit is left out; an account of twelve digits has eleven before it.
    return bytes.fromhex(account[-13:-1].rjust(32, "0"))


def _xor(first: bytes | bytearray, second: bytes) -> bytearray:
    return bytearray(a ^ b for a, b in zip(first, second, strict=True))


# --- verification: the offset method of IBM 3624, with SM4 in the place of DES. The validation data are the PAN, right-
# aligned in 32 digits, as one block; its encryption, decimalised, gives the natural PIN; offset = PIN - natural PIN,
# digit by digit modulo 10. The decimalisation table is fixed: who may choose it finds a PIN in some fifteen calls.

_DECIMALISE = b"0123456789012345"


def offset_of(key: sm4.Key, pin: bytearray, account: str) -> str:
    natural = _natural(key, account, len(pin))
    try:
        return "".join(str((digit - known) % 10) for digit, known in zip(pin, natural, strict=True))
    finally:
        wipe(natural)


def check(key: sm4.Key, pin: bytearray, account: str, offset: str) -> None:
    """Raises PinMismatch."""
    if not (offset.isascii() and sm4.equal(offset_of(key, pin, account).encode(), offset.encode())):
        raise PinMismatch("the PIN does not fit the offset")


def _natural(key: sm4.Key, account: str, length: int) -> bytearray:
    _account_field(PinFormat.ISO_4, account)
    block = sm4.ecb_encrypt(key, bytes.fromhex(account.rjust(32, "0")))
    digits = bytearray(_DECIMALISE[nibble] for byte in block for nibble in (byte >> 4, byte & 0xF))
    wipe(block)
    natural = digits[:length]
    wipe(digits)
    return natural
