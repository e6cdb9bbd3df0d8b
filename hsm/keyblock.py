"""Key blocks: a wrapped key bound to what it is for (ANSI X9.143, TR-31), with SM4.

X9.143 knows no SM4. Version "9" is a private one (numeric versions are left to proprietary use) and otherwise the
construction of version D with SM4 for AES: two keys derived from the wrapping key, CBC under the one with the
authenticator as IV, CMAC under the other over header and clear key. A block in text::

    header   version 9 | length 4 | usage 2 | algorithm S | mode 1 | key version 2 | export 1 | optional blocks 00
             | key context 0 | reserved 0                                                          16 characters
    key      length in bits (2 bytes) | key | random padding, to whole blocks, encrypted           hexadecimal
    MAC      16 bytes                                                                               hexadecimal

Algorithm "S" for SM4 is ours too, and "H" is HMAC as in the standard. Derivation input, as of version D, with 0x0002 of
AES-128 kept for the 128-bit key: counter 01 | 0000 encryption or 0001 authentication | 00 | 0002 | 0080.
"""

import os

from fengshou.hsm import sm4
from fengshou.hsm.custody import Kind, WrappedKeyError
from fengshou.hsm.memory import Secret, wipe

VERSION = "9"
_HEADER_CHARACTERS = 16
_MAC_BYTES = 16
_KEY_BYTES_MAX = 32

# X9.143 tables 2 to 4: usage, algorithm, mode of use.
_ATTRIBUTES: dict[Kind, str] = {
    Kind.SM4: "D0SB",  # data; both ways
    Kind.HMAC: "M7HC",  # both generate and verify
    Kind.MAC: "M6SC",
    Kind.PIN: "P0SB",
    Kind.PIN_VERIFY: "V1SC",  # IBM 3624
    Kind.TRANSPORT: "K0SB",
    Kind.DERIVE: "B3SX",
}
_KINDS = {attributes: kind for kind, attributes in _ATTRIBUTES.items()}


def derived_keys(wrapping: sm4.Key) -> tuple[bytes, bytes]:
    """KBEK and KBAK of a wrapping key."""
    return (
        sm4.cmac(wrapping, bytes.fromhex("0100000000020080")),
        sm4.cmac(wrapping, bytes.fromhex("0100010000020080")),
    )


def wrap(wrapping: sm4.Key, kind: Kind, key: sm4.Key) -> bytes:
    """The block, ASCII. Raises WrappedKeyError when keys of this kind are not wrapped."""
    if kind not in _ATTRIBUTES:
        raise WrappedKeyError(f"keys of kind {kind.name} do not travel in key blocks")
    clear = bytearray((8 * len(key)).to_bytes(2, "big")) + key
    clear += os.urandom(-len(clear) % sm4.BLOCK_BYTES)
    length = _HEADER_CHARACTERS + 2 * (len(clear) + _MAC_BYTES)
    header = f"{VERSION}{length:04d}{_ATTRIBUTES[kind]}00N0000".encode()
    encryption, authentication = derived_keys(wrapping)
    mac = sm4.cmac(authentication, header + clear)
    hidden = sm4.cbc_encrypt(encryption, mac, clear)
    wipe(clear)
    return header + (bytes(hidden) + mac).hex().upper().encode()


def unwrap(wrapping: sm4.Key, block: bytes) -> tuple[Kind, Secret]:
    """Kind and key of a block. Raises WrappedKeyError: malformed, altered, or under another key."""
    header, body = block[:_HEADER_CHARACTERS], block[_HEADER_CHARACTERS:]
    try:
        kind = _KINDS[header[5:9].decode("ascii")]
        data = bytes.fromhex(body.decode("ascii"))
        well_formed = header == f"{VERSION}{len(block):04d}{_ATTRIBUTES[kind]}00N0000".encode()
    except (KeyError, ValueError):
        raise WrappedKeyError("not a key block of a known kind") from None
    hidden, mac = data[:-_MAC_BYTES], data[-_MAC_BYTES:]
    if not well_formed or not 0 < len(hidden) <= 3 * sm4.BLOCK_BYTES or len(hidden) % sm4.BLOCK_BYTES:
        raise WrappedKeyError("not a key block of a known kind")
    encryption, authentication = derived_keys(wrapping)
    clear = sm4.cbc_decrypt(encryption, mac, hidden)
    try:
        if not sm4.equal(sm4.cmac(authentication, header + clear), mac):
            raise WrappedKeyError("the key block was altered, or was wrapped under another key")
        bits = int.from_bytes(clear[:2], "big")
        if bits % 8 or not 0 < bits // 8 <= min(len(clear) - 2, _KEY_BYTES_MAX):
            raise WrappedKeyError("the key block holds no whole key")
        return kind, Secret(memoryview(clear)[2 : 2 + bits // 8])
    finally:
        wipe(clear)


def compact(block: bytes) -> bytes:
    """A block for narrow links: the header as it is, the rest as bytes instead of digits."""
    return block[:_HEADER_CHARACTERS] + bytes.fromhex(block[_HEADER_CHARACTERS:].decode("ascii"))


def expand(data: bytes) -> bytes:
    """The block that ``compact`` made small."""
    return data[:_HEADER_CHARACTERS] + data[_HEADER_CHARACTERS:].hex().upper().encode()
