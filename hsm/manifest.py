"""Signed manifests of applications: which program of which publisher may run at a terminal, and for what.

A manifest is a JSON file of two members. ``body`` is what is signed; ``signature`` is the publisher's, 128 hexadecimal
digits r || s, over::

    e = SM3( ZA || TAG_MANIFEST || canonical body )

with the canonical body as UTF-8 JSON: members in the order of ``Body``, no white space, text not escaped beyond what
JSON demands. The digest that a terminal states at sign-in (DE 57.5) is SM3 of the canonical body, so it does not change
when a publisher signs the same body again.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from fengshou.codecs import BadSignature, PublicKey, sm3
from fengshou.hsm.files import write_public
from fengshou.hsm.x509 import Signer
from fengshou.protocol.signing import TAG_MANIFEST

# A manifest lists names; anything longer is no manifest.
_FILE_BYTES_MAX = 64 * 1024


class ManifestError(Exception):
    """A manifest is malformed, or not signed by the publisher that was expected."""


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a publisher states. ``services`` are the names of templates that the application may send."""

    app: str
    version: str
    vendor: str
    services: tuple[str, ...]
    issued_at: datetime

    def __post_init__(self) -> None:
        # The sizes of DE 57.3 and 57.4, where a terminal states them.
        for name, size in (("app", 32), ("version", 16)):
            if not 1 <= len(getattr(self, name).encode()) <= size:
                raise ValueError(f"{name} has 1 to {size} bytes")
        if len(set(self.services)) != len(self.services):
            raise ValueError("a service is listed twice")
        if self.issued_at.tzinfo is None:
            raise ValueError("issued_at needs its offset from UTC")


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    body: Body
    signature: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A body and its publisher's signature (r || s, 64 bytes). Only ``verify`` makes it worth believing."""

    body: Body
    signature: bytes

    @property
    def canonical(self) -> bytes:
        return msgspec.json.encode(self.body)

    @property
    def digest(self) -> bytes:
        """SM3 of the canonical body, 32 bytes: element ``app_manifest`` of the sign-in."""
        return sm3(self.canonical)

    def verify(self, publisher: PublicKey) -> None:
        """Raises ManifestError unless ``publisher`` signed this body."""
        try:
            publisher.verify(sm3(publisher.za + TAG_MANIFEST + self.canonical), self.signature)
        except BadSignature:
            raise ManifestError(
                f"{self.body.app} {self.body.version}: the publisher's signature does not fit"
            ) from None

    def save(self, path: Path) -> None:
        text = msgspec.json.encode(_File(self.body, self.signature.hex()))
        write_public(path, msgspec.json.format(text, indent=2) + b"\n")


def make(body: Body, publisher: Signer) -> Manifest:
    """Sign a body."""
    digest = sm3(publisher.public_key.za + TAG_MANIFEST + msgspec.json.encode(body))
    return Manifest(body, publisher.sign(digest))


def load(path: Path, publisher: PublicKey) -> Manifest:
    """Read a manifest and verify it. Raises ManifestError."""
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}") from None
    manifest = parse(data)
    manifest.verify(publisher)
    return manifest


def parse(data: bytes) -> Manifest:
    """A manifest as it stands in a file; not yet verified. Raises ManifestError."""
    if len(data) > _FILE_BYTES_MAX:
        raise ManifestError(f"a manifest has at most {_FILE_BYTES_MAX} bytes")
    try:
        file = msgspec.json.decode(data, type=_File)
        return Manifest(file.body, bytes.fromhex(file.signature))
    except (msgspec.DecodeError, ValueError) as error:
        raise ManifestError(f"not a manifest: {error}") from None
