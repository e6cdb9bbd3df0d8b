"""The contract of custody, which every provider keeps; what it cannot do, it refuses as Unsupported.

A row of ``PROVIDERS`` is a provider and what it cannot do. The device of the SDF rows is our own library behind the
real ABI, the card of the card rows is our own behind a real PC/SC daemon.
"""

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from OpenSSL import SSL

from fengshou.codecs import BadSignature, PrivateKey, hmac_sm3, sm2_decrypt, sm2_encrypt, sm3
from fengshou.hsm import pin, sm4
from fengshou.hsm.custody import (
    CipherMode,
    Custody,
    CustodyError,
    Kind,
    MacMismatch,
    PinBlockError,
    PinFormat,
    PinMismatch,
    PinZone,
    SealBroken,
    Unsupported,
    WrapForm,
    WrappedKeyError,
)
from fengshou.protocol.epoch import EpochState

SYMMETRIC = (Kind.SM4, Kind.HMAC, Kind.MAC, Kind.PIN, Kind.PIN_VERIFY, Kind.TRANSPORT, Kind.DERIVE)
PIN_WORK = {"translate_pin", "pin_offset", "verify_pin"}
# A card signs. Its keys are made at its personalisation, so none begins, changes or ends here.
CARD = PIN_WORK | {
    "create", "renew", "derive", "import_key", "export_key", "export_envelope", "activate", "retire", "destroy", "mac",
    "verify_mac", "seal", "open", "encrypt", "decrypt", "arm",
}  # fmt: skip
SDF = PIN_WORK | {"derive", "export_key", "import under transport", "arm"}
SDF_2012 = SDF | {"hmac"}

#   provider       what it cannot do
PROVIDERS = {
    "development": set(),
    "sealed":      set(),
    "sdf-512":     SDF,
    "sdf-256":     SDF,
    "sdf-2012":    SDF_2012,
    "card-gmt":    CARD,
    "card-iso":    CARD,
}  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``custody`` is every provider, ``able`` each that can do what the test's mark names."""
    if "custody" in metafunc.fixturenames:
        metafunc.parametrize("custody", PROVIDERS, indirect=True)
    if "able" in metafunc.fixturenames:
        needed = set(metafunc.definition.get_closest_marker("needs").args)
        metafunc.parametrize("able", [name for name in PROVIDERS if not needed & PROVIDERS[name]], indirect=True)


@pytest.fixture
def custody(request: pytest.FixtureRequest, make_custody: Callable[[str], Custody]) -> Custody:
    """With one key pair at ``sign`` and, where it can hold one, another at ``envelope``."""
    return make_custody(request.param)


able = custody


def _label(custody: Custody, kind: Kind) -> str:
    label = f"ask.{kind.name.lower().replace('_', '.')}"
    if all(info.label != label for info in custody.inventory()):
        custody.create(label, kind)
    return label


ASK: dict[str, Callable[[Custody], object]] = {
    "create": lambda custody: custody.create("a", Kind.SM4),
    "renew": lambda custody: custody.renew("sign"),
    "derive": lambda custody: custody.derive("a", Kind.SM4, "b", b""),
    "import_key": lambda custody: custody.import_key("a", Kind.SM4, b"", "b"),
    "import under transport": lambda custody: custody.import_key("a", Kind.SM4, b"", _label(custody, Kind.TRANSPORT)),
    "export_key": lambda custody: custody.export_key("sign", "b"),
    "export_envelope": lambda custody: custody.export_envelope("a", PrivateKey.generate().public_key),
    "activate": lambda custody: custody.activate("sign", 1),
    "retire": lambda custody: custody.retire("sign", 1),
    "destroy": lambda custody: custody.destroy("sign", 1),
    "mac": lambda custody: custody.mac("sign", b""),
    "verify_mac": lambda custody: custody.verify_mac("sign", b"", bytes(16)),
    "hmac": lambda custody: custody.create("a", Kind.HMAC),
    "seal": lambda custody: custody.seal(_label(custody, Kind.SM4), b"", b""),
    "open": lambda custody: custody.open(_label(custody, Kind.SM4), bytes(64), b""),
    "encrypt": lambda custody: custody.encrypt("sign", CipherMode.CTR, bytes(16), b""),
    "decrypt": lambda custody: custody.decrypt("sign", CipherMode.CTR, bytes(16), b""),
    "arm": lambda custody: custody.arm("sign", SSL.Context(SSL.TLS_METHOD)),
    "translate_pin": lambda custody: custody.translate_pin(bytes(16), "0" * 16, PinZone("a"), PinZone("b")),
    "pin_offset": lambda custody: custody.pin_offset(bytes(16), "0" * 16, PinZone("a"), "b"),
    "verify_pin": lambda custody: custody.verify_pin(bytes(16), "0" * 16, PinZone("a"), "b", "0000"),
}


@pytest.mark.parametrize(
    ("name", "what"), [(name, what) for name, missing in PROVIDERS.items() for what in sorted(missing)]
)
def test_what_a_provider_cannot_do_it_refuses(make_custody: Callable[[str], Custody], name: str, what: str) -> None:
    with pytest.raises(Unsupported):
        ASK[what](make_custody(name))


needs = pytest.mark.needs


# --- signatures: every provider


def test_a_signature_verifies_under_the_public_key_and_no_other(custody: Custody) -> None:
    digest = sm3(b"message")
    signature = custody.sign("sign", digest)
    custody.public_key("sign").verify(digest, signature)
    custody.verify("sign", digest, signature, 1)
    with pytest.raises(BadSignature):
        PrivateKey.generate().public_key.verify(digest, signature)
    with pytest.raises(BadSignature):
        custody.verify("sign", sm3(b"another"), signature)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_only_a_whole_digest_is_signed(custody: Custody, length: int) -> None:
    with pytest.raises(ValueError, match="32"):
        custody.sign("sign", bytes(length))


def test_threads_sign_at_once(custody: Custody) -> None:
    key = custody.public_key("sign")
    digests = [sm3(bytes((number,))) for number in range(24)]
    with ThreadPoolExecutor(6) as pool:
        for digest, signature in zip(digests, pool.map(lambda d: custody.sign("sign", d), digests), strict=True):
            key.verify(digest, signature)


def test_a_key_is_described_and_listed(custody: Custody) -> None:
    info = custody.key("sign")
    assert (info.label, info.epoch, info.kind, info.state) == ("sign", 1, Kind.SM2, EpochState.CURRENT)
    assert info.check_value == sm3(custody.public_key("sign").point)[:4]
    assert info.created.tzinfo is not None
    assert info in custody.inventory()
    assert custody.refresh() is False


@pytest.mark.parametrize(
    "use",
    [
        lambda custody: custody.public_key("nobody"),
        lambda custody: custody.sign("nobody", bytes(32)),
        lambda custody: custody.verify("nobody", bytes(32), bytes(64)),
        lambda custody: custody.key("nobody"),
    ],
)
def test_a_missing_key_is_named(custody: Custody, use: Callable[[Custody], object]) -> None:
    with pytest.raises(CustodyError, match="nobody"):
        use(custody)


@pytest.mark.parametrize("epoch", [0, 2, 255])
def test_a_missing_epoch_is_named(custody: Custody, epoch: int) -> None:
    with pytest.raises(CustodyError, match=str(epoch)):
        custody.sign("sign", bytes(32), epoch)


# --- the life of a key


@needs("create", "renew", "activate", "retire", "destroy")
def test_the_life_of_an_epoch(able: Custody) -> None:
    def states() -> list[tuple[int, str]]:
        return [(info.epoch, info.state.value) for info in able.inventory() if info.label == "a.data"]

    assert able.create("a.data", Kind.MAC).state is EpochState.CURRENT
    old = able.mac("a.data", b"x")
    assert able.renew("a.data").state is EpochState.NEXT
    assert able.mac("a.data", b"x") == old, "the next epoch is not used before it is activated"
    new = able.mac("a.data", b"x", 2)
    with pytest.raises(CustodyError, match="waits already"):
        able.renew("a.data")

    able.activate("a.data", 2)
    assert states() == [(1, "retiring"), (2, "current")]
    assert able.mac("a.data", b"x") == new
    able.verify_mac("a.data", b"x", old, 1)

    able.activate("a.data", 1)  # roll back
    assert states() == [(1, "current"), (2, "next")]
    assert able.mac("a.data", b"x") == old
    able.activate("a.data", 2)
    for event in (able.activate, able.destroy):
        with pytest.raises(CustodyError, match="current"):
            event("a.data", 2)
    with pytest.raises(CustodyError, match="retire it first"):
        able.destroy("a.data", 1)

    able.retire("a.data", 1)
    with pytest.raises(CustodyError, match="retired"):
        able.verify_mac("a.data", b"x", old, 1)
    with pytest.raises(CustodyError, match="retired"):
        able.activate("a.data", 1)
    assert able.key("a.data", 1).state is EpochState.RETIRED
    able.destroy("a.data", 1)
    assert states() == [(2, "current")]
    assert able.renew("a.data").epoch == 3, "a number is not soon used again"

    able.retire("a.data", 3)
    able.destroy("a.data", 3)
    able.retire("a.data", 2)
    with pytest.raises(CustodyError, match="no current epoch"):
        able.mac("a.data", b"x")
    able.destroy("a.data", 2)
    assert states() == []


@needs("create")
def test_a_label_gets_its_first_key_once(able: Custody) -> None:
    able.create("a", Kind.MAC)
    with pytest.raises(CustodyError, match="already"):
        able.create("a", Kind.MAC)
    for label in ("", "a/b", "../a", "a.", ".a", "a b", "a\n", "ä"):
        with pytest.raises(CustodyError, match="not a label"):
            able.create(label, Kind.MAC)


@needs("create")
def test_a_check_value_is_that_of_the_key(able: Custody) -> None:
    zeros = able.create("a", Kind.SM4).check_value
    assert able.encrypt("a", CipherMode.CBC, bytes(16), bytes(16))[:4] == zeros


@needs("create")
@pytest.mark.parametrize(
    ("kind", "use"),
    [
        (Kind.SM4,       lambda custody: custody.mac("a", b"")),
        (Kind.SM4,       lambda custody: custody.sign("a", bytes(32))),
        (Kind.SM4,       lambda custody: custody.public_key("a")),
        (Kind.SM4,       lambda custody: custody.arm("a", SSL.Context(SSL.TLS_METHOD))),
        (Kind.MAC,       lambda custody: custody.encrypt("a", CipherMode.CTR, bytes(16), b"")),
        (Kind.MAC,       lambda custody: custody.seal("a", b"", b"")),
        (Kind.MAC,       lambda custody: custody.open("a", bytes(64), b"")),
        (Kind.PIN,       lambda custody: custody.mac("a", b"")),
        (Kind.PIN,       lambda custody: custody.decrypt("a", CipherMode.CBC, bytes(16), bytes(16))),
        (Kind.PIN,       lambda custody: custody.open("a", bytes(64), b"")),
        (Kind.TRANSPORT, lambda custody: custody.decrypt("a", CipherMode.CBC, bytes(16), bytes(16))),
        (Kind.TRANSPORT, lambda custody: custody.mac("a", b"")),
        (Kind.DERIVE,    lambda custody: custody.mac("a", b"")),
        (Kind.DERIVE,    lambda custody: custody.encrypt("a", CipherMode.CTR, bytes(16), b"")),
    ],
)  # fmt: skip
def test_a_key_does_what_its_kind_does_and_nothing_else(
    able: Custody, kind: Kind, use: Callable[[Custody], object]
) -> None:
    able.create("a", kind)
    with pytest.raises(CustodyError, match=f"{kind.name}, not"):
        use(able)


# --- MAC, seal, modes


@needs("create", "mac", "hmac")
def test_a_mac_is_stable_and_keyed(able: Custody) -> None:
    for kind, size in ((Kind.HMAC, 32), (Kind.MAC, 16)):
        label = kind.name.lower()
        able.create(label, kind)
        first = able.mac(label, b"6231722254919298906")
        assert len(first) == size
        assert able.mac(label, b"6231722254919298906") == first
        assert able.mac(label, b"6231722254919298907") != first
        assert first not in (hmac_sm3(b"", b"6231722254919298906"), sm3(b"6231722254919298906"))
        able.verify_mac(label, b"6231722254919298906", first[:8])
        for wrong in (b"", first[:7], bytes(size), first[:-1] + bytes((first[-1] ^ 1,)), first + b"\0"):
            with pytest.raises(MacMismatch):
                able.verify_mac(label, b"6231722254919298906", wrong)


@needs("create", "mac", "import_key")
@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 32, 100])
def test_a_cmac_is_that_of_the_key(able: Custody, length: int) -> None:
    key = os.urandom(16)
    able.import_key("a", Kind.MAC, sm2_encrypt(able.public_key("envelope"), key), "envelope")
    assert able.mac("a", bytes(length)) == sm4.cmac(key, bytes(length))


@needs("create", "seal", "open")
def test_what_was_sealed_opens_in_its_context_only(able: Custody) -> None:
    able.create("data", Kind.SM4)
    for data in (b"", b"x", bytes(2048)):
        sealed = able.seal("data", data, b"record 7")
        assert len(sealed) == 1 + 12 + len(data) + 16
        assert sealed[0] == 1, "the first byte is the epoch"
        assert able.open("data", sealed, b"record 7") == data
        for context in (b"", b"record 8", b"record 7 "):
            with pytest.raises(SealBroken):
                able.open("data", sealed, context)


@needs("create", "seal", "open")
def test_every_changed_bit_and_every_cut_of_a_sealed_value_is_noticed(able: Custody) -> None:
    able.create("data", Kind.SM4)
    sealed = able.seal("data", b"6231 7222", b"record 7")
    for bit in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SealBroken):
            able.open("data", bytes(changed), b"record 7")
    for length in range(len(sealed)):
        with pytest.raises(SealBroken):
            able.open("data", sealed[:length], b"record 7")


@needs("create", "seal", "open", "renew")
def test_a_sealed_value_outlives_its_epoch_until_that_is_retired(able: Custody) -> None:
    able.create("data", Kind.SM4)
    old = able.seal("data", b"old", b"")
    able.renew("data")
    able.activate("data", 2)
    assert able.seal("data", b"", b"")[0] == 2
    assert able.open("data", old, b"") == b"old"
    able.retire("data", 1)
    with pytest.raises(SealBroken, match="epoch 1"):
        able.open("data", old, b"")


@needs("create", "seal")
def test_no_nonce_is_used_twice_by_any_thread(able: Custody) -> None:
    able.create("data", Kind.SM4)

    def seal_many(_: int) -> list[bytes]:
        return [able.seal("data", b"", b"")[1:13] for _ in range(250)]

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            nonces = [nonce for part in pool.map(seal_many, range(8)) for nonce in part]
    finally:
        sys.setswitchinterval(before)
    assert len(set(nonces)) == 2000


@needs("create", "encrypt", "decrypt", "import_key")
@pytest.mark.parametrize("mode", CipherMode)
def test_modes_are_those_of_the_standard_and_lengths_are_checked(able: Custody, mode: CipherMode) -> None:
    key, iv, data = os.urandom(16), os.urandom(16), os.urandom(48)
    able.import_key("a", Kind.SM4, sm2_encrypt(able.public_key("envelope"), key), "envelope")
    hidden = able.encrypt("a", mode, iv, data)
    assert hidden == (sm4.cbc_encrypt if mode is CipherMode.CBC else sm4.ctr)(key, iv, data)
    assert able.decrypt("a", mode, iv, hidden) == data
    with pytest.raises(ValueError, match=r"(?i)iv|nonce|length"):
        able.encrypt("a", mode, iv[:12], data)
    if mode is CipherMode.CBC:
        with pytest.raises(ValueError, match=r"(?i)block"):
            able.encrypt("a", mode, iv, data[:-1])


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
