"""SM4-GCM (AEAD_SM4_GCM of RFC 8998) and SM4-CMAC for short data under a key that stays.

A record or message costs 2 µs, because there is no new context for each.

Table look-ups depend on the data, as in every SM4 without hardware help: for data at rest on a machine of our own, not
where a stranger can measure the cache. The GIL is kept: the work is shorter than a hand-over.
"""

class BadTag(Exception):
    """Sealed bytes, nonce or context were altered, or another key sealed them."""

class Sm4Gcm:
    """One key of 16 bytes; its schedule is wiped with the object. Cannot be pickled."""

    def __new__(cls, key: bytes | bytearray | memoryview) -> Sm4Gcm: ...
    def seal(self, nonce: bytes, data: bytes | bytearray | memoryview, context: bytes) -> bytes:
        """Ciphertext and tag (16 bytes). ``nonce`` has 12 bytes and never serves twice under one key."""

    def open(self, nonce: bytes, sealed: bytes, context: bytes) -> bytearray:
        """The data that ``seal`` hid, for the caller to wipe. Raises BadTag."""

class Sm4Cmac:
    """SM4-CMAC (GB/T 15852.1 mechanism 5, NIST SP 800-38B) under one key of 16 bytes, wiped with the object."""

    def __new__(cls, key: bytes | bytearray | memoryview) -> Sm4Cmac: ...
    def mac(self, data: bytes) -> bytes:
        """16 bytes."""
