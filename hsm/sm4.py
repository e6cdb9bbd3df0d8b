"""SM4 (GB/T 32907) in the modes that custody uses, over the libcrypto of ``cryptography``, by key.

A key is whatever holds 16 bytes; it is not copied.
"""

import itertools
import os
import struct
from collections.abc import Callable
from hmac import compare_digest

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC

KEY_BYTES = 16
BLOCK_BYTES = 16
NONCE_BYTES = 12  # RFC 5116 section 5.1, as AEAD_SM4_GCM of RFC 8998 section 3.1
TAG_BYTES = 16
CHECK_VALUE_BYTES = 4

Key = bytes | bytearray | memoryview


def _sm4(key: Key) -> algorithms.SM4:
    return algorithms.SM4(key)  # type: ignore[arg-type]  # any buffer; only its stub says bytes


def _run(key: Key, mode: modes.ECB | modes.CBC | modes.CTR, data: Key, *, decrypting: bool = False) -> bytearray:
    cipher = Cipher(_sm4(key), mode)
    context = cipher.decryptor() if decrypting else cipher.encryptor()
    out = _update(context, data)
    context.finalize()
    return out


def _update(context: CipherContext, data: Key) -> bytearray:
    # Into a buffer of our own, which the caller can wipe.
    out = bytearray(len(data) + BLOCK_BYTES - 1)
    count = context.update_into(data, out)
    del out[count:]
    return out


def ecb_encrypt(key: Key, data: Key) -> bytearray:
    return _run(key, modes.ECB(), data)  # noqa: S305  # single blocks and key check values


def ecb_decrypt(key: Key, data: Key) -> bytearray:
    return _run(key, modes.ECB(), data, decrypting=True)  # noqa: S305


def cbc_encrypt(key: Key, iv: bytes, data: Key) -> bytearray:
    return _run(key, modes.CBC(iv), data)


def cbc_decrypt(key: Key, iv: bytes, data: Key) -> bytearray:
    return _run(key, modes.CBC(iv), data, decrypting=True)


def ctr(key: Key, iv: bytes, data: Key) -> bytearray:
    """Encrypts and decrypts alike."""
    return _run(key, modes.CTR(iv), data)


def cmac(key: Key, data: Key) -> bytes:
    """16 bytes (GB/T 15852.1 mechanism 5, the construction of NIST SP 800-38B)."""
    state = CMAC(_sm4(key))
    state.update(bytes(data))
    return state.finalize()


def check_value(key: Key) -> bytes:
    """SM4-ECB over zeros, first 4 bytes: UnionPay's field 62 and every payment HSM."""
    return bytes(ecb_encrypt(key, bytes(BLOCK_BYTES))[:CHECK_VALUE_BYTES])


def gcm_seal(key: Key, nonce: bytes, data: Key, context: bytes) -> bytes:
    """Ciphertext and tag (16 bytes)."""
    encryptor = Cipher(_sm4(key), modes.GCM(nonce)).encryptor()
    encryptor.authenticate_additional_data(context)
    hidden = encryptor.update(data)
    encryptor.finalize()
    return hidden + encryptor.tag


def gcm_open(key: Key, nonce: bytes, sealed: bytes, context: bytes) -> bytearray:
    """The data of ``gcm_seal``. Raises cryptography's InvalidTag."""
    if len(sealed) < TAG_BYTES:
        raise InvalidTag
    decryptor = Cipher(_sm4(key), modes.GCM(nonce, sealed[-TAG_BYTES:])).decryptor()
    decryptor.authenticate_additional_data(context)
    data = _update(decryptor, sealed[:-TAG_BYTES])
    decryptor.finalize()
    return data


def derive(mac: Callable[[bytes], bytes], label: bytes, context: bytes, count: int) -> bytearray:
    """NIST SP 800-108 section 4.1, counter mode over CMAC under the parent: [i] || label || 00 || context || [bits].

    i is one byte, the count of bits two; ``label`` holds no zero byte.
    """
    fixed = label + b"\x00" + context + struct.pack(">H", 8 * count)
    out = bytearray()
    for block in range(1, -(-count // BLOCK_BYTES) + 1):
        out += mac(bytes((block,)) + fixed)
    del out[count:]
    return out


def equal(first: bytes, second: bytes) -> bool:
    """In time that does not tell where they differ."""
    return compare_digest(first, second)


_forks = 0  # through which this process came from the one that imported this


def _forked() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_forked)


class Nonces:
    """GCM nonces that never repeat under one key: 8 random bytes a process and a 4-byte count.

    The deterministic construction of NIST SP 800-38D section 8.2.1 with a random fixed field: at 10,000 seals a second,
    purely random nonces would pass that document's bound of 2**32 seals a key in five days. A forked child draws its
    own.
    """

    def __init__(self) -> None:
        self._draw()

    def _draw(self) -> None:
        self._state = (_forks, os.urandom(8), itertools.count())

    def next(self) -> bytes:
        forks, prefix, counter = self._state
        number = next(counter)  # one step of the interpreter: threads never get the same number
        if forks != _forks or number > 0xFFFFFFFF:
            self._draw()
            return self.next()
        return prefix + number.to_bytes(4, "big")
