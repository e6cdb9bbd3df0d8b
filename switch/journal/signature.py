"""The switch's signature over a commit's header."""

from fengshou.codecs import sm3
from fengshou.hsm.custody import SWITCH_SIGN, Custody
from fengshou.protocol.record import Commit
from fengshou.protocol.signing import TAG_COMMIT

# A receipt carries the headers from its commit to the next signed one; 44 fit (limits: 4,096 bytes of DE 120.5).
UNSIGNED_COMMITS_MAX = 32


def sign_commit(custody: Custody, header: Commit) -> bytes:
    """r || s by the signing key of this moment. Raises CustodyError."""
    epoch = custody.key(SWITCH_SIGN).epoch  # asked for once: digest and signature must be of the same key
    return custody.sign(SWITCH_SIGN, commit_digest(custody.public_key(SWITCH_SIGN, epoch).za, header), epoch)


def commit_digest(za: bytes, header: Commit) -> bytes:
    """What the switch signs for a commit: SM3(ZA || "FP1J" || header), see ``protocol.signing``."""
    return sm3(za + TAG_COMMIT + header.to_bytes())
