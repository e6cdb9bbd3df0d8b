"""The contract of custody, which every provider must keep, and what the software provider adds."""

import os
import stat
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from OpenSSL import SSL

from fengshou.codecs import BadSignature, PrivateKey, hmac_sm3, sm3
from fengshou.hsm.custody import JOURNAL_DATA, PSEUDONYM, SWITCH_SIGN, SWITCH_TLS, Custody, CustodyError, SealBroken
from fengshou.hsm.pem import to_pem
from fengshou.hsm.software import Kind, SoftwareCustody, load_private_key, provision, save_private_key


@pytest.fixture(params=["software"])
def custody(request: pytest.FixtureRequest, tmp_path: Path) -> Custody:
    """Each provider with the switch's keys; a new provider is a new parameter."""
    providers: dict[str, Callable[[], Custody]] = {"software": lambda: provision(tmp_path / "keys")}
    return providers[request.param]()


# --- the contract ---


def test_a_signature_verifies_under_the_public_key_and_no_other(custody: Custody) -> None:
    digest = sm3(b"message")
    signature = custody.sign(SWITCH_SIGN, digest)
    custody.public_key(SWITCH_SIGN).verify(digest, signature)
    with pytest.raises(BadSignature):
        custody.public_key(SWITCH_TLS).verify(digest, signature)
    with pytest.raises(BadSignature):
        custody.public_key(SWITCH_SIGN).verify(sm3(b"another"), signature)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_only_a_whole_digest_is_signed(custody: Custody, length: int) -> None:
    with pytest.raises(ValueError, match="32"):
        custody.sign(SWITCH_SIGN, bytes(length))


def test_a_mac_is_stable_and_keyed(custody: Custody) -> None:
    first = custody.mac(PSEUDONYM, b"6231722254919298906")
    assert len(first) == 32
    assert custody.mac(PSEUDONYM, b"6231722254919298906") == first
    assert custody.mac(PSEUDONYM, b"6231722254919298907") != first
    assert first not in (hmac_sm3(b"", b"6231722254919298906"), sm3(b"6231722254919298906"))


@pytest.mark.parametrize("data", [b"", b"x", bytes(2048)], ids=["empty", "one", "record"])
def test_what_was_sealed_opens(custody: Custody, data: bytes) -> None:
    sealed = custody.seal(JOURNAL_DATA, data, b"record 7")
    assert len(sealed) == 1 + 12 + len(data) + 16
    assert sealed[0] == 1, "the first byte is the epoch"
    assert custody.open(JOURNAL_DATA, sealed, b"record 7") == data


def test_every_changed_bit_of_a_sealed_value_is_noticed(custody: Custody) -> None:
    sealed = custody.seal(JOURNAL_DATA, b"6231 7222", b"record 7")
    for bit in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SealBroken):
            custody.open(JOURNAL_DATA, bytes(changed), b"record 7")


def test_a_sealed_value_opens_in_its_context_only(custody: Custody) -> None:
    sealed = custody.seal(JOURNAL_DATA, b"secret", b"record 7")
    for context in (b"", b"record 8", b"record 7 "):
        with pytest.raises(SealBroken):
            custody.open(JOURNAL_DATA, sealed, context)


@pytest.mark.parametrize("length", range(29))
def test_a_cut_sealed_value_is_refused(custody: Custody, length: int) -> None:
    sealed = custody.seal(JOURNAL_DATA, b"", b"")
    with pytest.raises(SealBroken):
        custody.open(JOURNAL_DATA, sealed[:length], b"")


def test_no_nonce_is_used_twice_by_any_thread(custody: Custody) -> None:
    def seal_many(_: int) -> list[bytes]:
        return [custody.seal(JOURNAL_DATA, b"", b"")[1:13] for _ in range(1000)]

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            nonces = [nonce for part in pool.map(seal_many, range(8)) for nonce in part]
    finally:
        sys.setswitchinterval(before)
    assert len(set(nonces)) == 8000


def test_a_forked_child_draws_its_own_nonces(custody: Custody) -> None:
    custody.seal(JOURNAL_DATA, b"", b"")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, custody.seal(JOURNAL_DATA, b"", b"")[1:13])
        os._exit(0)
    os.waitpid(child, 0)
    from_child = os.read(reader, 12)
    os.close(reader)
    os.close(writer)
    assert from_child[:8] != custody.seal(JOURNAL_DATA, b"", b"")[1:9]


@pytest.mark.parametrize(
    ("label", "use"),
    [
        ("nobody", lambda custody: custody.public_key("nobody")),
        ("nobody", lambda custody: custody.sign("nobody", bytes(32))),
        ("nobody", lambda custody: custody.mac("nobody", b"")),
        ("nobody", lambda custody: custody.seal("nobody", b"", b"")),
        ("nobody", lambda custody: custody.arm("nobody", SSL.Context(SSL.TLS_METHOD))),
        (JOURNAL_DATA, lambda custody: custody.sign(JOURNAL_DATA, bytes(32))),
        (SWITCH_SIGN, lambda custody: custody.seal(SWITCH_SIGN, b"", b"")),
        (PSEUDONYM, lambda custody: custody.open(PSEUDONYM, bytes(64), b"")),
        (JOURNAL_DATA, lambda custody: custody.mac(JOURNAL_DATA, b"")),
        (PSEUDONYM, lambda custody: custody.arm(PSEUDONYM, SSL.Context(SSL.TLS_METHOD))),
    ],
)
def test_a_missing_key_or_one_of_another_kind_is_named(
    custody: Custody, label: str, use: Callable[[Custody], object]
) -> None:
    with pytest.raises(CustodyError, match=label):
        use(custody)


# --- the software provider ---


def test_keys_outlive_the_process(tmp_path: Path) -> None:
    first = provision(tmp_path / "keys")
    sealed = first.seal(JOURNAL_DATA, b"secret", b"")
    again = provision(tmp_path / "keys")
    assert again.public_key(SWITCH_SIGN) == first.public_key(SWITCH_SIGN)
    assert again.open(JOURNAL_DATA, sealed, b"") == b"secret"
    assert again.mac(PSEUDONYM, b"x") == first.mac(PSEUDONYM, b"x")


def test_key_files_are_closed_to_others_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        provision(tmp_path / "keys")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    files = list((tmp_path / "keys").iterdir())
    assert sorted(path.name for path in files) == [
        "journal.data.1.sm4", "pseudonym.1.hmac", "switch.sign.1.pem", "switch.tls.1.pem",
    ]  # fmt: skip
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o666])
def test_a_key_file_that_others_can_reach_stops_the_start(tmp_path: Path, mode: int) -> None:
    provision(tmp_path / "keys")
    path = tmp_path / "keys" / "switch.sign.1.pem"
    path.chmod(mode)
    with pytest.raises(CustodyError, match=f"chmod 600 {path}"):
        SoftwareCustody(tmp_path / "keys")


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o711, 0o777])
def test_a_folder_that_others_can_reach_stops_the_start(tmp_path: Path, mode: int) -> None:
    provision(tmp_path / "keys")
    (tmp_path / "keys").chmod(mode)
    with pytest.raises(CustodyError, match=f"chmod 700 {tmp_path / 'keys'}"):
        SoftwareCustody(tmp_path / "keys")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_key_file_of_another_user_stops_the_start(tmp_path: Path) -> None:
    provision(tmp_path / "keys")
    os.chown(tmp_path / "keys" / "switch.sign.1.pem", 12345, -1)
    with pytest.raises(CustodyError, match="another user"):
        SoftwareCustody(tmp_path / "keys")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("notes.txt",             b"",                    "not a key"),
        ("switch.sign.0.pem",     b"",                    "not a key"),
        ("switch.sign.256.pem",   b"",                    "not a key"),
        ("switch.sign.pem",       b"",                    "not a key"),
        ("switch..1.pem",         b"",                    "not a key"),
        ("a.1.sm4",               b"00" * 15,             "32 hexadecimal digits"),
        ("a.1.sm4",               b"zz" * 16,             "32 hexadecimal digits"),
        ("a.1.hmac",              b"00" * 16,             "64 hexadecimal digits"),
        ("a.1.pem",               b"",                    "not an unencrypted SM2 private key"),
        ("a.1.pem",               to_pem("PRIVATE KEY", b"\x30\x00"), "not an unencrypted SM2 private key"),
        ("a.1.pem",               b"\xff" * 1_100_000,       "too long"),
        ("journal.data.2.hmac",   b"00" * 32,             "two kinds"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_key_stops_the_start(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    provision(tmp_path / "keys")
    path = tmp_path / "keys" / name
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(CustodyError, match=reason) as refusal:
        SoftwareCustody(tmp_path / "keys")
    assert str(path) in str(refusal.value)


def test_what_is_not_a_plain_file_is_not_waited_for(tmp_path: Path) -> None:
    provision(tmp_path / "keys")
    os.mkfifo(tmp_path / "keys" / "a.1.sm4", 0o600)
    with pytest.raises(CustodyError, match="plain file"):
        SoftwareCustody(tmp_path / "keys")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CustodyError, match=str(tmp_path / "nowhere")):
        SoftwareCustody(tmp_path / "nowhere")


def test_a_later_epoch_seals_and_an_earlier_one_still_opens(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    old = provision(folder).seal(JOURNAL_DATA, b"old", b"")
    for epoch in (2, 10):  # 10 sorts before 2 as text
        path = folder / f"journal.data.{epoch}.sm4"
        path.write_bytes(os.urandom(16).hex().encode())
        path.chmod(0o600)
    custody = SoftwareCustody(folder)
    new = custody.seal(JOURNAL_DATA, b"new", b"")
    assert new[0] == 10
    assert custody.open(JOURNAL_DATA, old, b"") == b"old"
    (folder / "journal.data.1.sm4").unlink()
    with pytest.raises(SealBroken, match="epoch 1"):
        SoftwareCustody(folder).open(JOURNAL_DATA, old, b"")


def test_a_key_is_created_once(tmp_path: Path) -> None:
    custody = provision(tmp_path / "keys")
    key = custody.public_key(SWITCH_SIGN)
    with pytest.raises(CustodyError, match="already"):
        custody.create(SWITCH_SIGN, Kind.SM2)
    assert SoftwareCustody(tmp_path / "keys").public_key(SWITCH_SIGN) == key


def test_of_two_processes_that_create_a_key_one_wins(tmp_path: Path) -> None:
    first, second = SoftwareCustody.initialise(tmp_path / "keys"), SoftwareCustody.initialise(tmp_path / "keys")
    first.create("a", Kind.SM2)
    with pytest.raises(CustodyError, match="never overwritten"):
        second.create("a", Kind.SM2)
    assert SoftwareCustody(tmp_path / "keys").public_key("a") == first.public_key("a")


@pytest.mark.parametrize("label", ["", "..", "../a", "a/b", "a_b", "a.", ".a", "a b", "a\n", "ä"])
def test_a_label_cannot_leave_the_folder(tmp_path: Path, label: str) -> None:
    with pytest.raises(CustodyError, match="not a label"):
        SoftwareCustody.initialise(tmp_path / "keys").create(label, Kind.SM2)


def test_an_unfinished_write_is_no_key(tmp_path: Path) -> None:
    provision(tmp_path / "keys")
    (tmp_path / "keys" / ".new-abc").write_bytes(b"half a k")
    assert "journal.data" in SoftwareCustody(tmp_path / "keys").labels()


def test_no_error_shows_key_material(tmp_path: Path) -> None:
    key = PrivateKey.generate()
    path = tmp_path / "a.key"
    save_private_key(path, key)
    path.write_bytes(path.read_bytes().replace(b"BEGIN", b"BEGUN"))
    with pytest.raises(CustodyError) as refusal:
        load_private_key(path)
    assert refusal.value.__cause__ is None
    assert key.to_scalar().hex() not in str(refusal.value)
