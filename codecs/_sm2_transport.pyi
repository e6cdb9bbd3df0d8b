"""How keys travel by SM2: encryption (GB/T 32918.4) and key exchange (GB/T 32918.3), over the system's libcrypto.

Every function may be called from any thread. The GIL is free while a curve is at work.
"""

from typing import NamedTuple

from fengshou.codecs._sm2 import PrivateKey, PublicKey

class BadCiphertext(Exception):
    """Bytes are no SM2 ciphertext C1 C3 C2 for this key."""

class Agreement(NamedTuple):
    """What both sides of an exchange hold afterwards. ``confirm_responder`` is S_B of the standard, the other S_A."""

    key: bytes
    confirm_responder: bytes
    confirm_initiator: bytes

def sm2_encrypt(key: PublicKey, data: bytes | bytearray | memoryview) -> bytes:
    """DER of GM/T 0009 section 7.2: x, y, C3, C2. Raises ValueError for no data: nothing would be hidden."""

def sm2_decrypt(key: PrivateKey, ciphertext: bytes) -> bytearray:
    """The data, in a buffer that the caller can wipe. Raises BadCiphertext."""

def sm2_agree(
    own: PrivateKey,
    own_ephemeral: PrivateKey,
    peer: PublicKey,
    peer_ephemeral: PublicKey,
    key_bytes: int,
    *,
    initiator: bool,
) -> Agreement:
    """Derive a key with a peer who does the same; identities are those of GM/T 0009 section 10.

    An ephemeral key serves one exchange only. Send your confirmation and check the peer's in constant time before the
    key is used. Raises BadKey when the points cancel out, which no honest peer brings about.
    """
