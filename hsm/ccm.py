"""CCM (NIST SP 800-38C, AEAD_SM4_CCM of RFC 8998) from the two modes that every GM/T 0018 device has: CBC-MAC and CTR.

For devices by the edition of 2012, which know no authenticated encryption. Nonces have 12 bytes, so data fewer than
2**24; tags have 16 bytes. Both modes are given as functions of an IV and data.
"""

from collections.abc import Callable

from fengshou.hsm.sm4 import BLOCK_BYTES, TAG_BYTES, equal

Mode = Callable[[bytes, bytes], bytes]
DATA_BYTES_MAX = 2**24 - 1
_CONTEXT_BYTES_MAX = 0xFEFF  # longer ones have another encoding, which nothing here needs

# SP 800-38C appendix A: the flags of the first block for q = 3 and t = 16, and of a counter block.
_FLAGS = 8 * ((TAG_BYTES - 2) // 2) + 2
_FLAG_CONTEXT = 0x40
_COUNTER_FLAGS = 2


class NotAuthentic(Exception):
    """Data, context or nonce were altered, or another key sealed them."""


def seal(cbc_mac: Mode, ctr: Mode, nonce: bytes, data: bytes, context: bytes) -> bytes:
    """Ciphertext and tag. Raises ValueError for data or context that are too long."""
    mac = _mac(cbc_mac, nonce, data, context)
    hidden = ctr(_first_counter(nonce), mac + data)
    return hidden[TAG_BYTES:] + hidden[:TAG_BYTES]


def unseal(cbc_mac: Mode, ctr: Mode, nonce: bytes, sealed: bytes, context: bytes) -> bytes:
    """The data. Raises NotAuthentic."""
    if len(sealed) < TAG_BYTES:
        raise NotAuthentic
    clear = ctr(_first_counter(nonce), sealed[-TAG_BYTES:] + sealed[:-TAG_BYTES])
    mac, data = clear[:TAG_BYTES], clear[TAG_BYTES:]
    if not equal(_mac(cbc_mac, nonce, data, context), mac):
        raise NotAuthentic
    return data


def _first_counter(nonce: bytes) -> bytes:
    # Counter 0 hides the tag, 1 and those after it the data: one run of CTR over both.
    return bytes((_COUNTER_FLAGS,)) + nonce + bytes(3)


def _mac(cbc_mac: Mode, nonce: bytes, data: bytes, context: bytes) -> bytes:
    if len(data) > DATA_BYTES_MAX or len(context) > _CONTEXT_BYTES_MAX:
        raise ValueError("too long for CCM")
    flags = _FLAGS | (_FLAG_CONTEXT if context else 0)
    head = _padded(len(context).to_bytes(2, "big") + context) if context else b""
    first = bytes((flags,)) + nonce + len(data).to_bytes(3, "big")
    return cbc_mac(bytes(BLOCK_BYTES), first + head + _padded(data))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK_BYTES)
