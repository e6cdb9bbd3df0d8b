"""PEM (RFC 7468), strict enough that a file means one thing."""

import base64
import re

CERTIFICATE = "CERTIFICATE"
REQUEST = "CERTIFICATE REQUEST"
REVOCATION_LIST = "X509 CRL"
PRIVATE_KEY = "PRIVATE KEY"


def to_pem(kind: str, der: bytes) -> bytes:
    text = base64.b64encode(der).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join((f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----\n")).encode()


def from_pem(kind: str, data: bytes) -> list[bytes]:
    """The DER of every block of ``kind``, in order. Raises ValueError when there is none or one is not base64."""
    blocks = re.findall(rf"-----BEGIN {kind}-----\s+([A-Za-z0-9+/=\s]+?)-----END {kind}-----".encode(), data)
    if not blocks:
        raise ValueError(f"no {kind.lower()} in PEM")
    return [base64.b64decode(b"".join(block.split()), validate=True) for block in blocks]
