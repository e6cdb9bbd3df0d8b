"""A GM/T 0018 device that goes away, comes back, is of the other layout, or keeps its keys to itself."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fengshou.codecs import PrivateKey, sm2_encrypt, sm3
from fengshou.hsm import _sdf_device
from fengshou.hsm._sdf_abi import ERRORS, DeviceLost, Layout, SdfError
from fengshou.hsm.custody import CustodyError, Kind, Unavailable, Unsupported
from fengshou.hsm.sdf import SdfCustody
from tests.devices import SDF_PASSWORDS

DIGEST = sm3(b"message")
PASSWORDS = SDF_PASSWORDS


@pytest.fixture
def device(sdf_library, sdf_device, tmp_path: Path) -> Iterator[SdfCustody]:
    custody = SdfCustody(tmp_path / "sdf", sdf_library(512, 2023), storage_index=3, passwords=PASSWORDS, sessions=2)
    custody.adopt("sign", Kind.SM2, 1)
    custody.create("data", Kind.SM4)
    yield custody
    custody.close()


def test_a_device_that_went_away_is_opened_again(device, sdf_device):
    sealed = device.seal("data", b"secret", b"")
    (sdf_device / "unplugged").touch()
    for use in (lambda: device.sign("sign", DIGEST), lambda: device.seal("data", b"", b"")):
        with pytest.raises(Unavailable) as refusal:
            use()
        assert isinstance(refusal.value, DeviceLost)
    (sdf_device / "unplugged").unlink()
    device.public_key("sign").verify(DIGEST, device.sign("sign", DIGEST))
    assert device.open("data", sealed, b"") == b"secret"


def test_a_device_that_was_away_between_two_calls_is_not_noticed(device, sdf_device):
    sealed = device.seal("data", b"secret", b"")
    for _ in range(3):
        (sdf_device / "unplugged").touch()
        with pytest.raises(Unavailable):
            device.sign("sign", DIGEST)
        (sdf_device / "unplugged").unlink()
        with ThreadPoolExecutor(4) as pool:  # more threads than sessions, each with a dead session at first
            assert set(pool.map(lambda _: device.open("data", sealed, b""), range(16))) == {b"secret"}


def test_keys_outlive_the_process_as_envelopes(device, sdf_library, sdf_device, tmp_path):
    sealed = device.seal("data", b"secret", b"")
    again = SdfCustody(tmp_path / "sdf", sdf_library(512, 2023), storage_index=3, passwords=PASSWORDS)
    assert again.open("data", sealed, b"") == b"secret"
    assert [(info.label, info.kind) for info in again.inventory()] == [("data", Kind.SM4), ("sign", Kind.SM2)]
    again.close()
    # Another device with the same index has another key pair: its envelopes are worth nothing there.
    (sdf_device / "enc.3").write_bytes(PrivateKey.generate().to_scalar())
    other = SdfCustody(tmp_path / "sdf", sdf_library(512, 2023), storage_index=3, passwords=PASSWORDS)
    with pytest.raises(SdfError, match="damaged envelope"):
        other.open("data", sealed, b"")
    other.close()


def test_more_keys_than_a_session_holds(device, monkeypatch):
    monkeypatch.setattr(_sdf_device, "_KEYS_MAX", 4)
    labels = [f"key.{number}" for number in range(10)]
    sealed = {}
    for label in labels:
        device.create(label, Kind.SM4)
        sealed[label] = device.seal(label, label.encode(), b"")
    for label in labels:
        assert device.open(label, sealed[label], b"") == label.encode()


@pytest.mark.parametrize(("right", "wrong"), [(512, 256), (256, 512)])
def test_the_other_layout_is_noticed(sdf_library, sdf_device, tmp_path, right, wrong):
    custody = SdfCustody(
        tmp_path / "sdf", sdf_library(right, 2023), storage_index=3, passwords=PASSWORDS, max_bits=wrong
    )
    with pytest.raises(CustodyError, match="try the other"):
        custody.adopt("sign", Kind.SM2, 1)
    custody.close()


def test_a_layout_is_of_256_or_512_bits():
    with pytest.raises(ValueError, match="256 or 512"):
        Layout(384)


@pytest.mark.parametrize(
    ("passwords", "reason"),
    [
        ({},                          "no right to use the private key"),
        ({1: b"wrong"},               "the right to the private key was not granted"),
        ({7: b"there is no such pair"}, "the right to the private key was not granted"),
    ],
)  # fmt: skip
def test_a_private_key_needs_its_password(sdf_library, sdf_device, tmp_path, passwords, reason):
    custody = SdfCustody(tmp_path / "sdf", sdf_library(512, 2023), storage_index=3, passwords=passwords)
    with pytest.raises(SdfError, match=reason) as refusal:  # noqa: PT012  # a session asks for all its rights at once
        custody.adopt("sign", Kind.SM2, 1)
        custody.sign("sign", DIGEST)
    assert "wrong" not in str(refusal.value)
    custody.close()


def test_what_the_device_has_not_is_named(device):
    with pytest.raises(SdfError, match="no such key"):
        device.adopt("other", Kind.SM2, 9)
    with pytest.raises(Unsupported, match="no key pair of the device is left for pair"):
        device.create("pair", Kind.SM2)
    with pytest.raises(CustodyError, match="only key pairs"):
        device.adopt("other", Kind.SM4, 1)


def test_key_pairs_that_were_prepared_become_epochs_in_their_order(sdf_library, sdf_device, tmp_path):
    custody = SdfCustody(
        tmp_path / "sdf", sdf_library(512, 2023), storage_index=3, passwords=PASSWORDS, pairs={"switch.sign": [2, 1]}
    )
    custody.create("switch.sign", Kind.SM2)
    first = custody.public_key("switch.sign")
    assert custody.renew("switch.sign").epoch == 2
    custody.activate("switch.sign", 2)
    assert custody.public_key("switch.sign", 1) == first != custody.public_key("switch.sign")
    custody.retire("switch.sign", 1)
    custody.destroy("switch.sign", 1)
    with pytest.raises(Unsupported, match="add the index"):  # not the first one again
        custody.renew("switch.sign")
    custody.close()


def test_a_file_that_is_no_library_is_refused(tmp_path, sdf_device):
    (tmp_path / "text.so").write_text("not a library")
    for library in (tmp_path / "text.so", tmp_path / "nowhere.so", "libm.so.6"):
        with pytest.raises(CustodyError, match="no GM/T 0018 library"):
            SdfCustody(tmp_path / "sdf", library, storage_index=3)


def test_an_envelope_with_more_than_a_key_is_refused(device):
    device.adopt("envelope", Kind.ENVELOPE, 2)
    with pytest.raises(CustodyError):
        device.import_key("a", Kind.SM4, sm2_encrypt(device.public_key("envelope"), bytes(100)), "envelope")


def test_every_code_of_the_standard_has_words():
    assert sorted(ERRORS) == list(range(0x01000001, 0x0100001F))
    assert "an error of the vendor (0x00000063)" in str(SdfError("SDF_Encrypt", 0x63))
