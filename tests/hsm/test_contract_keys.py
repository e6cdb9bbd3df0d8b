"""The contract of custody, its second half: keys on their way and PINs. See ``test_contract``."""

import os
from dataclasses import replace

import pytest

from fengshou.codecs import PrivateKey, sm2_decrypt, sm2_encrypt
from fengshou.hsm import pin, sm4
from fengshou.hsm.custody import (
    Custody,
    CustodyError,
    Derived,
    Kind,
    MacMismatch,
    PinBlockError,
    PinFormat,
    PinMismatch,
    PinZone,
    WrapForm,
    WrappedKeyError,
)
from fengshou.protocol.epoch import EpochState

SYMMETRIC = (Kind.SM4, Kind.HMAC, Kind.MAC, Kind.PIN, Kind.PIN_VERIFY, Kind.TRANSPORT, Kind.DERIVE)

needs = pytest.mark.needs


# --- keys on their way


@needs("create", "export_envelope", "import_key", "hmac")
@pytest.mark.parametrize("kind", SYMMETRIC)
def test_a_key_travels_in_an_envelope(able: Custody, kind: Kind) -> None:
    made = able.create("a", kind)
    recipient = PrivateKey.generate()
    key = sm2_decrypt(recipient, able.export_envelope("a", recipient.public_key))
    assert len(key) == (32 if kind is Kind.HMAC else 16)
    back = able.import_key("b", kind, able.export_envelope("a", able.public_key("envelope")), "envelope")
    assert back.check_value == made.check_value
    damaged = bytearray(able.export_envelope("a", able.public_key("envelope")))
    damaged[-1] ^= 1
    for wrong in (bytes(damaged), able.export_envelope("a", recipient.public_key), b"", b"\x30\x00"):
        with pytest.raises(WrappedKeyError):
            able.import_key("c", kind, wrong, "envelope")
    short = sm2_encrypt(able.public_key("envelope"), b"short")
    with pytest.raises(WrappedKeyError):
        able.import_key("c", kind, short, "envelope")


@needs("create", "export_key", "import under transport")
@pytest.mark.parametrize("form", WrapForm)
@pytest.mark.parametrize("kind", SYMMETRIC)
def test_a_key_travels_under_a_transport_key(able: Custody, kind: Kind, form: WrapForm) -> None:
    able.create("zone", Kind.TRANSPORT)
    made = able.create("a", kind)
    if kind is Kind.HMAC and form is WrapForm.UNIONPAY:
        with pytest.raises(CustodyError, match="16 bytes"):
            able.export_key("a", "zone", form)
        return
    wrapped = able.export_key("a", "zone", form)
    assert able.import_key("b", kind, wrapped, "zone", form).check_value == made.check_value
    assert able.import_key("a", kind, wrapped, "zone", form).state is EpochState.NEXT
    for at in range(len(wrapped)):
        damaged = bytearray(wrapped)
        damaged[at] ^= 1
        with pytest.raises(WrappedKeyError):
            able.import_key("c", kind, bytes(damaged), "zone", form)
    able.create("other", Kind.TRANSPORT)
    with pytest.raises(WrappedKeyError):
        able.import_key("c", kind, wrapped, "other", form)


@needs("create", "export_key", "import under transport")
def test_a_key_block_gives_no_key_of_another_kind(able: Custody) -> None:
    able.create("zone", Kind.TRANSPORT)
    able.create("a", Kind.PIN)
    block = able.export_key("a", "zone")
    for kind in set(SYMMETRIC) - {Kind.PIN}:
        with pytest.raises(WrappedKeyError):
            able.import_key("b", kind, block, "zone")
    with pytest.raises(CustodyError, match="SM2, not"):
        able.export_key("sign", "zone")
    with pytest.raises(CustodyError, match="PIN, not TRANSPORT"):
        able.export_key("zone", "a")


@needs("create", "derive")
def test_derived_keys_are_equal_for_equal_names_only(able: Custody) -> None:
    able.create("master", Kind.DERIVE)
    able.create("other", Kind.DERIVE)
    first = able.derive("a", Kind.PIN, "master", b"P0000001").check_value
    assert able.derive("b", Kind.PIN, "master", b"P0000001").check_value == first
    different = [
        able.derive("c", Kind.PIN, "master", b"P0000002").check_value,
        able.derive("d", Kind.MAC, "master", b"P0000001").check_value,
        able.derive("e", Kind.PIN, "other", b"P0000001").check_value,
    ]
    assert len({first, *different}) == 4
    with pytest.raises(CustodyError, match="cannot be derived"):
        able.derive("f", Kind.SM2, "master", b"")
    with pytest.raises(CustodyError, match="PIN, not DERIVE"):
        able.derive("f", Kind.MAC, "a", b"")


@needs("create", "derived keys", "export_key", "import under transport", "renew")
def test_a_key_that_is_kept_nowhere_is_what_deriving_makes(able: Custody) -> None:
    able.create("root", Kind.DERIVE)
    name = Derived(Kind.PIN, "root", b"FS000001")
    assert able.key(name).check_value == able.derive("kept", Kind.PIN, "root", b"FS000001").check_value
    assert (able.key(name).epoch, able.key(name).kind) == (1, Kind.PIN)
    others = (replace(name, context=b"FS000002"), replace(name, kind=Kind.MAC))
    assert len({able.key(other).check_value for other in (name, *others)}) == 3
    able.create("zone", Kind.TRANSPORT)
    wrapped = able.export_key(name, "zone", WrapForm.UNIONPAY)
    assert able.import_key("back", Kind.PIN, wrapped, "zone", WrapForm.UNIONPAY).check_value == wrapped[16:]
    able.renew("root")
    assert able.key(replace(name, epoch=2)).check_value != able.key(name).check_value
    for wrong in (replace(name, epoch=3), replace(name, parent="kept"), replace(name, parent="nobody")):
        with pytest.raises(CustodyError):
            able.key(wrong)
    able.activate("root", 2)
    able.retire("root", 1)
    with pytest.raises(CustodyError, match="retired"):
        able.key(replace(name, epoch=1))


@needs("derived keys", "create", "export_key", "export_envelope")
def test_a_terminal_gets_its_keys_in_an_envelope_and_under_its_master_key(able: Custody) -> None:
    """The hierarchy of terminal keys, whose custody keeps two roots; the terminal's side with libcrypto alone."""
    for root in ("master", "working"):
        able.create(root, Kind.DERIVE)
    terminal = PrivateKey.generate()
    master = Derived(Kind.TRANSPORT, "master", b"FS000001")
    tmk = sm2_decrypt(terminal, able.export_envelope(master, terminal.public_key))
    assert sm4.check_value(tmk) == able.key(master).check_value
    keys = {}
    for kind in (Kind.PIN, Kind.MAC, Kind.SM4):
        name = Derived(kind, "working", b"FS000001")
        wrapped = able.export_key(name, master, WrapForm.UNIONPAY)
        keys[kind] = sm4.ecb_decrypt(tmk, wrapped[:16])
        assert sm4.check_value(keys[kind]) == wrapped[16:] == able.key(name).check_value
    assert len({bytes(key) for key in keys.values()}) == 3
    authentication = Derived(Kind.MAC, "working", b"FS000001")
    able.verify_mac(authentication, b"proof", sm4.cmac(keys[Kind.MAC], b"proof"))
    with pytest.raises(MacMismatch):
        able.verify_mac(replace(authentication, context=b"FS000002"), b"proof", sm4.cmac(keys[Kind.MAC], b"proof"))
    with pytest.raises(CustodyError, match="PIN"):
        able.mac(Derived(Kind.PIN, "working", b"FS000001"), b"")
    data, nonce = Derived(Kind.SM4, "working", b"FS000001"), bytes(12)
    sealed = b"\x01" + nonce + sm4.gcm_seal(keys[Kind.SM4], nonce, b"37021119700101001X", b"element")
    assert able.open(data, sealed, b"element") == b"37021119700101001X"
    for name, value, context in (
        (data, sealed, b"another"), (replace(data, context=b"FS000002"), sealed, b"element"),
        (data, sealed[:-1], b"element"), (data, b"", b"element"), (data, b"\x09" + sealed[1:], b"element"),
    ):  # fmt: skip
        with pytest.raises(CustodyError):
            able.open(name, value, context)


# --- PINs

ACCOUNT = "6231722254919298906"


def _pin_keys(able: Custody) -> tuple[bytes, bytes]:
    """Keys at ``terminal`` and ``zone`` that the test knows too, as terminal and acquirer do."""
    keys = os.urandom(16), os.urandom(16)
    for label, key in zip(("terminal", "zone"), keys, strict=True):
        able.import_key(label, Kind.PIN, sm2_encrypt(able.public_key("envelope"), key), "envelope")
    return keys


@needs("translate_pin", "import_key")
@pytest.mark.parametrize("target", PinFormat)
@pytest.mark.parametrize("source", PinFormat)
@pytest.mark.parametrize("digits", [b"1234", b"123456", b"123456789012"])
def test_a_pin_is_translated(able: Custody, digits: bytes, source: PinFormat, target: PinFormat) -> None:
    terminal, zone = _pin_keys(able)
    block = pin.encipher(terminal, source, digits, ACCOUNT)
    translated = able.translate_pin(block, ACCOUNT, PinZone("terminal", source), PinZone("zone", target))
    assert pin.decipher(zone, target, translated, ACCOUNT) == digits


@needs("translate_pin", "import_key", "derived keys", "create")
@pytest.mark.parametrize("source", PinFormat)
def test_a_pin_under_a_derived_key_is_translated(able: Custody, source: PinFormat) -> None:
    _, zone = _pin_keys(able)
    able.create("working", Kind.DERIVE)
    able.create("transport", Kind.TRANSPORT)
    recipient = PrivateKey.generate()
    name = Derived(Kind.PIN, "working", b"FS000001", 1)
    terminal = sm2_decrypt(recipient, able.export_envelope(name, recipient.public_key))
    block = pin.encipher(terminal, source, b"123456", ACCOUNT)
    translated = able.translate_pin(block, ACCOUNT, PinZone(name, source), PinZone("zone"))
    assert pin.decipher(zone, PinFormat.ISO_4, translated, ACCOUNT) == b"123456"
    with pytest.raises(PinBlockError):  # another terminal's
        able.translate_pin(block, ACCOUNT, PinZone(replace(name, context=b"FS000002"), source), PinZone("zone"))


@needs("translate_pin", "import_key", "renew")
def test_a_pin_of_the_epoch_before_is_translated_until_that_is_retired(able: Custody) -> None:
    terminal, zone = _pin_keys(able)
    block = pin.encipher(terminal, PinFormat.ISO_4, b"1234", ACCOUNT)
    able.renew("terminal")
    able.activate("terminal", 2)
    translated = able.translate_pin(block, ACCOUNT, PinZone("terminal", epoch=1), PinZone("zone"))
    assert pin.decipher(zone, PinFormat.ISO_4, translated, ACCOUNT) == b"1234"
    with pytest.raises(PinBlockError):
        able.translate_pin(block, ACCOUNT, PinZone("terminal"), PinZone("zone"))
    able.retire("terminal", 1)
    with pytest.raises(CustodyError, match="retired"):
        able.translate_pin(block, ACCOUNT, PinZone("terminal", epoch=1), PinZone("zone"))


@needs("translate_pin", "import_key")
@pytest.mark.parametrize("form", PinFormat)
def test_a_block_that_is_none_is_refused(able: Custody, form: PinFormat) -> None:
    terminal, _ = _pin_keys(able)
    block = pin.encipher(terminal, form, b"1234", ACCOUNT)
    source, zone = PinZone("terminal", form), PinZone("zone")
    for wrong, account in (
        (block, "6231722254919298914"), (block, "12345678901"), (block, "x" * 16), (b"", ACCOUNT),
        (block[:15], ACCOUNT), (block + b"\0", ACCOUNT), (bytes(16), ACCOUNT), (block[::-1], ACCOUNT),
    ):  # fmt: skip
        with pytest.raises(PinBlockError) as refusal:
            able.translate_pin(wrong, account, source, zone)
        assert "1234 " not in str(refusal.value)


@needs("verify_pin", "pin_offset", "import_key")
@pytest.mark.parametrize("form", PinFormat)
def test_a_pin_is_verified_by_its_offset(able: Custody, form: PinFormat) -> None:
    terminal, _ = _pin_keys(able)
    able.create("verify", Kind.PIN_VERIFY)
    source = PinZone("terminal", form)
    offset = able.pin_offset(pin.encipher(terminal, form, b"135790", ACCOUNT), ACCOUNT, source, "verify")
    assert len(offset) == 6
    able.verify_pin(pin.encipher(terminal, form, b"135790", ACCOUNT), ACCOUNT, source, "verify", offset)
    for other, account, known in (
        (b"135791", ACCOUNT, offset), (b"13579", ACCOUNT, offset), (b"135790", "6231722254919298914", offset),
        (b"135790", ACCOUNT, "0" * 7), (b"135790", ACCOUNT, ""), (b"135790", ACCOUNT, "１" * 6),
    ):  # fmt: skip
        with pytest.raises(PinMismatch):
            able.verify_pin(pin.encipher(terminal, form, other, account), account, source, "verify", known)
