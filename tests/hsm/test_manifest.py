"""Application manifests: signed by their publisher, and by nobody else."""

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from asn1crypto.algos import DSASignature

from fengshou.codecs import PrivateKey, sm3
from fengshou.hsm import manifest
from fengshou.hsm.manifest import Body, ManifestError
from fengshou.hsm.pem import to_pem
from fengshou.protocol.signing import TAG_MANIFEST, TAG_REQUEST

PUBLISHER = PrivateKey.generate()
BODY = Body(
    app="farm-pos",
    version="1.0.0",
    vendor="丰收 Apps",
    services=("farm-purchase", "reversal"),
    issued_at=datetime(2026, 6, 1, 8, 30, tzinfo=UTC),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    manifest.make(BODY, PUBLISHER).save(tmp_path / "farm-pos.json")
    return tmp_path / "farm-pos.json"


def test_what_was_signed_loads(path: Path) -> None:
    loaded = manifest.load(path, PUBLISHER.public_key)
    assert loaded.body == BODY
    assert loaded.digest == sm3(loaded.canonical)
    assert (
        loaded.canonical
        == (
            '{"app":"farm-pos","version":"1.0.0","vendor":"丰收 Apps",'
            '"services":["farm-purchase","reversal"],"issued_at":"2026-06-01T08:30:00Z"}'
        ).encode()
    )


def test_the_layout_of_the_file_does_not_matter(path: Path) -> None:
    """Another order of members, other white space, escaped text: the same body, the same digest."""
    content = json.loads(path.read_bytes())
    content["body"] = dict(reversed(content["body"].items()))
    path.write_text(json.dumps(content, indent=7, ensure_ascii=True))
    assert manifest.load(path, PUBLISHER.public_key).digest == manifest.make(BODY, PUBLISHER).digest


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("app",       "farm-kiosk"),
        ("version",   "1.0.1"),
        ("vendor",    "Others"),
        ("services",  ["farm-purchase", "reversal", "withdrawal"]),
        ("services",  ["reversal", "farm-purchase"]),
        ("issued_at", "2026-06-01T08:30:01Z"),
        ("issued_at", "2026-06-01T16:30:00+08:00"),
    ],
)  # fmt: skip
def test_nothing_in_the_body_can_be_changed(path: Path, member: str, value: Any) -> None:
    content = json.loads(path.read_bytes())
    content["body"][member] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ManifestError, match="signature does not fit"):
        manifest.load(path, PUBLISHER.public_key)


def test_another_publisher_and_another_purpose_are_refused(path: Path) -> None:
    with pytest.raises(ManifestError, match="signature does not fit"):
        manifest.load(path, PrivateKey.generate().public_key)
    good = manifest.make(BODY, PUBLISHER)
    other_purpose = PUBLISHER.sign(sm3(PUBLISHER.public_key.za + TAG_REQUEST + good.canonical))
    with pytest.raises(ManifestError, match="signature does not fit"):
        manifest.Manifest(BODY, other_purpose).verify(PUBLISHER.public_key)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content["body"].pop("vendor"),                        "missing required field `vendor`"),
        (lambda content: content["body"].update(root=True),                    "unknown field `root`"),
        (lambda content: content.update(note=""),                              "unknown field `note`"),
        (lambda content: content["body"].update(app="x" * 33),                 "app has 1 to 32 bytes"),
        (lambda content: content["body"].update(app=""),                       "app has 1 to 32 bytes"),
        (lambda content: content["body"].update(version="丰" * 6),             "version has 1 to 16 bytes"),
        (lambda content: content["body"].update(services=["a", "a"]),          "listed twice"),
        (lambda content: content["body"].update(issued_at="2026-06-01T08:30"), "issued_at"),
        (lambda content: content.update(signature="zz"),                       "hexadecimal"),
    ],
)  # fmt: skip
def test_what_is_no_manifest_is_named(path: Path, change: Any, reason: str) -> None:
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ManifestError, match=reason):
        manifest.load(path, PUBLISHER.public_key)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b" " * 70_000])
def test_garbage_is_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(ManifestError):
        manifest.load(path, PUBLISHER.public_key)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="No such file"):
        manifest.load(tmp_path / "none.json", PUBLISHER.public_key)


@pytest.mark.parametrize("length", [0, 63, 65])
def test_a_signature_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ManifestError):
        manifest.Manifest(BODY, bytes(length)).verify(PUBLISHER.public_key)


def test_anybody_can_verify_with_openssl(path: Path, tmp_path: Path) -> None:
    made = manifest.load(path, PUBLISHER.public_key)
    (tmp_path / "message").write_bytes(TAG_MANIFEST + made.canonical)
    (tmp_path / "key").write_bytes(to_pem("PUBLIC KEY", PUBLISHER.public_key.spki))
    (tmp_path / "signature").write_bytes(DSASignature.from_p1363(made.signature).dump())
    command = ["openssl", "dgst", "-sm3", "-sigopt", "distid:1234567812345678", "-verify", tmp_path / "key",
               "-signature", tmp_path / "signature", tmp_path / "message"]  # fmt: skip
    assert subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() == "Verified OK"
