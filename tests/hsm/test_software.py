"""Custody in software, in its development form: files, their protection, and what a folder may hold."""

import os
import stat
from pathlib import Path

import pytest

from fengshou.codecs import PrivateKey
from fengshou.hsm.custody import JOURNAL_DATA, PSEUDONYM, SWITCH_SIGN, CustodyError, SealBroken
from fengshou.hsm.pem import to_pem
from fengshou.hsm.software import SWITCH_KEYS, Kind, SoftwareCustody, load_private_key, provision, save_private_key


def test_a_forked_child_draws_its_own_nonces(tmp_path: Path) -> None:
    custody = provision(tmp_path / "keys")
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
    assert {path.name for path in files} == {f"{label}.1.{kind.value}" for label, kind in SWITCH_KEYS.items()}
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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away: run it as root")
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
