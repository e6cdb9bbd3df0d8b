"""The C interface of GM/T 0018: structures, prototypes, algorithm names, results. Every vendor's library has this face.

The edition of 2012 is taken for granted; authenticated encryption and HMAC came in 2023 and are used where a library
exports them. ``ECCref_MAX_BITS`` is 512 in the standard and 256 in some vendors' headers: it sets the size of every
number, so a wrong choice reads garbage. Numbers are right-aligned.
"""

import ctypes
from collections.abc import Mapping
from ctypes import POINTER, c_char_p, c_int, c_ubyte, c_uint, c_void_p
from typing import Any

from fengshou.hsm.custody import CustodyError, Unavailable
from fengshou.hsm.envelope import Envelope

# GM/T 0006.
SGD_SM4_ECB = 0x0000_0401
SGD_SM4_CBC = 0x0000_0402
SGD_SM4_MAC = 0x0000_0410
SGD_SM4_CTR = 0x0000_0420
SGD_SM4_GCM = 0x0200_0400  # 2023
SGD_SM2_ENCRYPT = 0x0002_0800
SGD_SM3 = 0x0000_0001

_NUMBER_BYTES = 32
_SECRET_BYTES_MAX = 64  # of what an envelope carries: a symmetric key

# GM/T 0018 annex A.
_BASE = 0x0100_0000
ERRORS: Mapping[int, str] = {
    _BASE + number: text
    for number, text in enumerate(
        (
            "unknown error",
            "function not supported",
            "communication with the device failed",
            "the device does not respond",
            "the device cannot be opened",
            "no session can be opened",
            "no right to use the private key",
            "no such key",
            "algorithm not supported",
            "mode not supported",
            "public key operation failed",
            "private key operation failed",
            "signing failed",
            "verification failed",
            "symmetric operation failed",
            "steps out of order",
            "wrong length",
            "no such file",
            "wrong offset in a file",
            "wrong type of key",
            "wrong key",
            "damaged envelope",
            "the random generator failed",
            "the right to the private key was not granted",
            "MAC operation failed",
            "the file exists",
            "the file cannot be written",
            "no room",
            "wrong input argument",
            "wrong output argument",
        ),
        start=1,
    )
}
# The device is gone, or has forgotten its sessions: a new one may do.
LOST = frozenset(_BASE + number for number in (0x03, 0x04, 0x05, 0x06))
NOT_GRANTED = frozenset(_BASE + number for number in (0x07, 0x18))
NOT_AUTHENTIC = frozenset(_BASE + number for number in (0x0E, 0x0F, 0x19))


class SdfError(CustodyError):
    """A call of the device failed; ``code`` is that of GM/T 0018 annex A, or a vendor's own."""

    def __init__(self, function: str, code: int) -> None:
        super().__init__(f"{function}: {ERRORS.get(code, 'an error of the vendor')} (0x{code:08X})")
        self.code = code


class DeviceLost(SdfError, Unavailable):
    """The device went away while it was in use."""


def _prototypes(numbers: "Layout") -> dict[str, list[Any]]:
    device, session, key = c_void_p, c_void_p, c_void_p
    data, size, sizes = c_char_p, c_uint, POINTER(c_uint)
    public, cipher, handle = POINTER(numbers.PublicKey), POINTER(numbers.Cipher), POINTER(c_void_p)
    return {
        "SDF_OpenDevice": [handle],
        "SDF_CloseDevice": [device],
        "SDF_OpenSession": [device, handle],
        "SDF_CloseSession": [session],
        "SDF_GetPrivateKeyAccessRight": [session, c_uint, data, size],
        "SDF_ExportSignPublicKey_ECC": [session, c_uint, public],
        "SDF_ExportEncPublicKey_ECC": [session, c_uint, public],
        "SDF_GenerateKeyWithIPK_ECC": [session, c_uint, c_uint, cipher, handle],
        "SDF_ImportKeyWithISK_ECC": [session, c_uint, cipher, handle],
        "SDF_ExchangeDigitEnvelopeBaseOnECC": [session, c_uint, c_uint, public, cipher, cipher],
        "SDF_DestroyKey": [session, key],
        "SDF_InternalSign_ECC": [session, c_uint, data, size, POINTER(numbers.Signature)],
        "SDF_Encrypt": [session, key, c_uint, c_void_p, data, size, c_void_p, sizes],
        "SDF_Decrypt": [session, key, c_uint, c_void_p, data, size, c_void_p, sizes],
        "SDF_CalculateMAC": [session, key, c_uint, c_void_p, data, size, c_void_p, sizes],
    }


def _prototypes_2023() -> dict[str, list[Any]]:
    session, key, data, size, sizes = c_void_p, c_void_p, c_char_p, c_uint, POINTER(c_uint)
    head = [session, key, c_uint, data, size, data, size]
    return {
        "SDF_AuthEnc": [*head, data, size, c_void_p, sizes, c_void_p, sizes],
        "SDF_AuthDec": [*head, data, sizes, data, size, c_void_p, sizes],
        "SDF_HMACInit": [session, key, c_uint],
        "SDF_HMACUpdate": [session, data, size],
        "SDF_HMACFinal": [session, c_void_p, sizes],
    }


class Layout:
    """The structures of one ECCref_MAX_BITS. Raises ValueError for another than 256 and 512."""

    def __init__(self, bits: int) -> None:
        if bits not in (256, 512):
            raise ValueError(f"ECCref_MAX_BITS is 256 or 512, not {bits}")
        number = c_ubyte * (bits // 8)
        self._pad = bits // 8 - _NUMBER_BYTES

        # A library of the other layout writes past the end: into this, not into a stranger's memory, and we notice.
        slack = ("slack", c_ubyte * 256)

        class PublicKey(ctypes.Structure):
            _fields_ = (("bits", c_uint), ("x", number), ("y", number), slack)

        class Signature(ctypes.Structure):
            _fields_ = (("r", number), ("s", number), slack)

        class Cipher(ctypes.Structure):
            _fields_ = (
                ("x", number),
                ("y", number),
                ("M", c_ubyte * 32),
                ("L", c_uint),
                ("C", c_ubyte * _SECRET_BYTES_MAX),
                slack,
            )

        self.PublicKey, self.Signature, self.Cipher = PublicKey, Signature, Cipher

    def number(self, field: Any) -> bytes:
        """The 32 bytes of a number. Raises CustodyError when there is more: the layout is the other one."""
        data = bytes(field)
        if any(data[: self._pad]):
            raise CustodyError("the device's numbers are not where they should be: try the other ECCref_MAX_BITS")
        return data[self._pad :]

    def padded(self, number: bytes) -> bytes:
        return bytes(self._pad) + number

    def to_cipher(self, envelope: Envelope) -> Any:
        if len(envelope.data) > _SECRET_BYTES_MAX:
            raise CustodyError("the envelope holds more than a key")
        cipher = self.Cipher()
        cipher.x[:], cipher.y[:] = self.padded(envelope.x), self.padded(envelope.y)
        cipher.M[:], cipher.L = envelope.digest, len(envelope.data)
        cipher.C[: cipher.L] = list(envelope.data)
        return cipher

    def from_cipher(self, cipher: Any) -> Envelope:
        if cipher.L > _SECRET_BYTES_MAX:
            raise CustodyError("the device gave an envelope that is too long: try the other ECCref_MAX_BITS")
        return Envelope(self.number(cipher.x), self.number(cipher.y), bytes(cipher.M), bytes(cipher.C)[: cipher.L])


class Library:
    """A vendor's library, called by name; each call raises SdfError unless the device says all is well.

    The GIL is free during a call. A session is used by one thread at a time, as the standard asks.
    """

    def __init__(self, path: str, layout: Layout) -> None:
        try:
            self._library = ctypes.CDLL(path)
            for name, arguments in _prototypes(layout).items():
                self._declare(name, arguments)
        except (OSError, AttributeError) as error:
            raise CustodyError(f"{path} is no GM/T 0018 library: {error}") from None
        # All or nothing: who has one of the functions of 2023 and not its fellows is no use.
        try:
            for name, arguments in _prototypes_2023().items():
                self._declare(name, arguments)
            self.edition = 2023
        except AttributeError:
            self.edition = 2012

    def _declare(self, name: str, arguments: list[Any]) -> None:
        function = getattr(self._library, name)
        function.argtypes, function.restype = arguments, c_int

    def __call__(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments) & 0xFFFF_FFFF
        if code in LOST:
            raise DeviceLost(name, code)
        if code:
            raise SdfError(name, code)
