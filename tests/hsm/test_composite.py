"""A device that signs beside software that does the rest, as one custody."""

import pytest
from OpenSSL import SSL

from fengshou.codecs import sm2_encrypt, sm3
from fengshou.hsm.composite import Composite
from fengshou.hsm.custody import CustodyError, Kind, PinZone, Unsupported


@pytest.fixture
def both(make_custody):
    device, software = make_custody("sdf-512"), make_custody("development")
    return device, software, Composite({"sign": device, "data": device}, software)


def test_each_label_belongs_to_one_provider(both):
    device, software, custody = both
    digest = sm3(b"message")
    device.public_key("sign").verify(digest, custody.sign("sign", digest))
    assert custody.public_key("sign") != software.public_key("sign"), "software has a key of that label too"
    custody.create("data", Kind.SM4)
    custody.create("other", Kind.SM4)
    assert device.open("data", custody.seal("data", b"x", b""), b"") == b"x"
    assert software.open("other", custody.seal("other", b"x", b""), b"") == b"x"
    assert [(info.label, info.epoch) for info in custody.inventory()] == [
        ("data", 1), ("envelope", 1), ("other", 1), ("sign", 1),
    ]  # fmt: skip
    assert custody.key("sign") == device.key("sign")
    with pytest.raises(Unsupported):
        custody.arm("sign", SSL.Context(SSL.TLS_METHOD))


def test_keys_of_two_providers_do_not_work_together(both):
    _, software, custody = both
    custody.create("data", Kind.SM4)
    software.create("zone", Kind.TRANSPORT)
    for use in (
        lambda: custody.export_key("data", "zone"),
        lambda: custody.import_key(
            "data", Kind.SM4, sm2_encrypt(custody.public_key("envelope"), b"x" * 16), "envelope"
        ),
        lambda: custody.derive("data", Kind.SM4, "zone", b""),
        lambda: custody.translate_pin(bytes(16), "0" * 16, PinZone("zone"), PinZone("data")),
    ):
        with pytest.raises(CustodyError, match="different providers"):
            use()


def test_a_change_in_any_provider_is_noticed(both, tmp_path):
    _, software, custody = both
    assert custody.refresh() is False
    other = type(software)(tmp_path / "keys")
    other.create("new", Kind.MAC)
    assert custody.refresh() is True
    assert custody.key("new").kind is Kind.MAC
