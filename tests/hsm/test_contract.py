"""The contract of custody, which every provider keeps; what it cannot do, it refuses as Unsupported.

The providers and what each cannot do stand in ``conftest.PROVIDERS``. The device of its SDF rows is our own library
behind the real ABI, the card of its card rows is our own behind a real PC/SC daemon.
"""

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from OpenSSL import SSL

from fengshou.codecs import BadSignature, PrivateKey, hmac_sm3, sm2_encrypt, sm3
from fengshou.hsm import sm4
from fengshou.hsm.custody import (
    CipherMode,
    Custody,
    CustodyError,
    Derived,
    Kind,
    MacMismatch,
    PinZone,
    SealBroken,
    Unsupported,
)
from fengshou.protocol.epoch import EpochState


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
    "derived keys": lambda custody: custody.key(Derived(Kind.PIN, "a", b"")),
    "export_key": lambda custody: custody.export_key("sign", "b"),
    "export_envelope": lambda custody: custody.export_envelope("a", PrivateKey.generate().public_key),
    "activate": lambda custody: custody.activate("sign", 1),
    "retire": lambda custody: custody.retire("sign", 1),
    "destroy": lambda custody: custody.destroy("sign", 1),
    "mac": lambda custody: custody.mac("sign", b""),
    "verify_mac": lambda custody: custody.verify_mac("sign", b"", bytes(16)),
    "authenticator": lambda custody: custody.authenticator("sign"),
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


def test_what_a_provider_cannot_do_it_refuses(provider_without: tuple[Custody, str]) -> None:
    custody, what = provider_without
    with pytest.raises(Unsupported):
        ASK[what](custody)


needs = pytest.mark.needs


# --- signatures: every provider


def test_a_signature_verifies_under_the_public_key_and_no_other(provider: Custody) -> None:
    digest = sm3(b"message")
    signature = provider.sign("sign", digest)
    provider.public_key("sign").verify(digest, signature)
    provider.verify("sign", digest, signature, 1)
    with pytest.raises(BadSignature):
        PrivateKey.generate().public_key.verify(digest, signature)
    with pytest.raises(BadSignature):
        provider.verify("sign", sm3(b"another"), signature)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_only_a_whole_digest_is_signed(provider: Custody, length: int) -> None:
    with pytest.raises(ValueError, match="32"):
        provider.sign("sign", bytes(length))


def test_threads_sign_at_once(provider: Custody) -> None:
    key = provider.public_key("sign")
    digests = [sm3(bytes((number,))) for number in range(24)]
    with ThreadPoolExecutor(6) as pool:
        for digest, signature in zip(digests, pool.map(lambda d: provider.sign("sign", d), digests), strict=True):
            key.verify(digest, signature)


def test_a_key_is_described_and_listed(provider: Custody) -> None:
    info = provider.key("sign")
    assert (info.label, info.epoch, info.kind, info.state) == ("sign", 1, Kind.SM2, EpochState.CURRENT)
    assert info.check_value == sm3(provider.public_key("sign").point)[:4]
    assert info.created.tzinfo is not None
    assert info in provider.inventory()
    assert provider.refresh() is False


@pytest.mark.parametrize(
    "use",
    [
        lambda custody: custody.public_key("nobody"),
        lambda custody: custody.sign("nobody", bytes(32)),
        lambda custody: custody.verify("nobody", bytes(32), bytes(64)),
        lambda custody: custody.key("nobody"),
    ],
)
def test_a_missing_key_is_named(provider: Custody, use: Callable[[Custody], object]) -> None:
    with pytest.raises(CustodyError, match="nobody"):
        use(provider)


@pytest.mark.parametrize("epoch", [0, 2, 255])
def test_a_missing_epoch_is_named(provider: Custody, epoch: int) -> None:
    with pytest.raises(CustodyError, match=str(epoch)):
        provider.sign("sign", bytes(32), epoch)


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
    assert able.authenticator("a").mac(bytes(length)) == sm4.cmac(key, bytes(length))


@needs("create", "renew", "retire", "mac", "hmac")
def test_who_asks_for_an_authenticator_hears_whether_the_key_may_be_used(able: Custody) -> None:
    able.create("a", Kind.MAC)
    able.renew("a")
    assert able.authenticator("a", 2).mac(b"x") == able.mac("a", b"x", 2) != able.authenticator("a").mac(b"x")
    able.retire("a", 2)
    for label, epoch in (("a", 2), ("a", 3), ("b", None), ("sign", None)):
        with pytest.raises(CustodyError):
            able.authenticator(label, epoch)
    able.create("c", Kind.HMAC)
    with pytest.raises(CustodyError, match="kind HMAC"):
        able.authenticator("c")


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
