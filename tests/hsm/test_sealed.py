"""Sealed custody: who opens it, what its file holds and does not hold, the agent, and what happens to altered rows."""

import ctypes
import gc
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from fengshou.hsm import agent, quorum, shamir
from fengshou.hsm.custody import CustodyError, Kind, SealBroken, Unavailable
from fengshou.hsm.database import KeyDatabase
from fengshou.hsm.memory import Secret
from fengshou.hsm.software import SoftwareCustody

NAMES = ("wang", "li", "zhao")


def holders(*names: str, word: str = "remembers this") -> list[quorum.Passphrase]:
    return [quorum.Passphrase(name, f"{name} {word}") for name in names]


@pytest.fixture
def site(sealed_custody: tuple[Path, Secret], tmp_path: Path) -> tuple[Path, Secret]:
    """A sealed custody of 2 in 3, and its master key."""
    shutil.copytree(sealed_custody[0], tmp_path / "keys")
    return tmp_path / "keys", sealed_custody[1]


@contextmanager
def served(folder: Path, master: Secret) -> Iterator[agent.Agent]:
    made = agent.Agent(folder, master)
    thread = Thread(target=made.serve)
    thread.start()
    try:
        yield made
    finally:
        made.close()
        thread.join()


@pytest.fixture
def custody(site: tuple[Path, Secret]) -> Iterator[SoftwareCustody]:
    with served(*site):
        made = SoftwareCustody(site[0])
        for kind in (Kind.SM2, Kind.SM4, Kind.HMAC):
            made.create(f"a.{kind.value}", kind)
        yield made


def test_a_quorum_opens_and_fewer_do_not(site):
    folder, master = site
    for present in (("wang", "li"), ("zhao", "wang"), NAMES):
        assert quorum.unseal(folder, holders(*present)).view == master.view
    with pytest.raises(Unavailable, match="2 of 3 custodians are needed, 1 are here"):
        quorum.unseal(folder, holders("wang"))
    with pytest.raises(Unavailable, match="1 are here"):
        quorum.unseal(folder, holders("wang", "wang"))
    with pytest.raises(quorum.ShareRefused, match="not that of li"):
        quorum.unseal(folder, [*holders("wang"), *holders("li", word="remembers that")])
    with pytest.raises(quorum.ShareRefused, match="mallory is no custodian"):
        quorum.unseal(folder, holders("wang", "mallory"))


@pytest.mark.parametrize(
    ("needed", "names", "reason"),
    [
        (1, NAMES,            "no quorum"),
        (4, NAMES,            "no quorum"),
        (2, ("wang", "wang"), "one share only"),
        (2, ("wang",),        "no quorum"),
    ],
)  # fmt: skip
def test_an_impossible_quorum_leaves_nothing(tmp_path, needed, names, reason):
    with pytest.raises(CustodyError, match=reason):
        quorum.found(tmp_path / "keys", needed, holders(*names))
    assert list((tmp_path / "keys").iterdir()) == []


def test_a_short_passphrase_is_refused(tmp_path):
    with pytest.raises(CustodyError, match="li: a passphrase has at least 12"):
        quorum.found(tmp_path / "keys", 2, [*holders("wang"), quorum.Passphrase("li", "elevenchars")])


def test_a_sealed_custody_starts_in_a_folder_of_its_own(site, tmp_path):
    for folder in (site[0], tmp_path):
        folder.chmod(0o700)
        with pytest.raises(CustodyError, match="not empty"):
            quorum.found(folder, 2, holders(*NAMES))


def test_without_an_agent_nothing_starts(site):
    with pytest.raises(Unavailable, match="fengshou keys unseal"):
        SoftwareCustody(site[0])


def test_keys_outlive_process_and_agent(site):
    folder, master = site
    with served(folder, master):
        first = SoftwareCustody(folder)
        assert first.protection == "sealed"
        first.create("a", Kind.SM4)
        sealed = first.seal("a", b"secret", b"")
    with served(folder, quorum.unseal(folder, holders("li", "zhao"))):
        assert SoftwareCustody(folder).open("a", sealed, b"") == b"secret"


def test_the_file_holds_no_key_and_no_share(custody, site):
    folder, master = site
    secrets = [bytes(master.view)]
    for info in custody.inventory():
        material = custody._table.find(info.label, None).material
        secrets.append(material.to_scalar() if info.kind is Kind.SM2 else bytes(material.view))
    secrets += [bytes(share) for share in shamir.split(master.view, 2, 3).values()]
    for path in folder.iterdir():
        if path.is_file():
            assert path.stat().st_mode & 0o077 == 0, path
            content = path.read_bytes()
            for secret in secrets:
                assert secret not in content
                assert secret.hex().encode() not in content.lower()


ALTERATIONS = {
    "another's body":  "UPDATE keys SET body = (SELECT body FROM keys WHERE label = 'a.sm4') WHERE label = 'a.hmac'",
    "another label":   "UPDATE keys SET label = 'b' WHERE label = 'a.sm4'",
    "another epoch":   "UPDATE keys SET epoch = 2 WHERE label = 'a.sm4'",
    "another kind":    "UPDATE keys SET kind = 'mac' WHERE label = 'a.sm4'",
    "another state":   "UPDATE keys SET state = 'retiring' WHERE label = 'a.sm4'",
    "another time":    "UPDATE keys SET created_us = created_us + 1 WHERE label = 'a.sm4'",
    "a check value":   "UPDATE keys SET check_value = x'00000000' WHERE label = 'a.sm4'",
    "a cut body":      "UPDATE keys SET body = x'00' WHERE label = 'a.sm4'",
}  # fmt: skip


@pytest.mark.parametrize("statement", ALTERATIONS.values(), ids=ALTERATIONS)
def test_an_altered_row_stops_the_start(custody, site, statement):
    with sqlite3.connect(site[0] / "custody.db") as connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises(SealBroken, match="was altered"):
        SoftwareCustody(site[0])


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_file_that_others_can_read_stops_the_start(custody, site, mode):
    (site[0] / "custody.db").chmod(mode)
    with pytest.raises(CustodyError, match="chmod 600"):
        SoftwareCustody(site[0])


def test_another_processes_changes_are_seen(custody, site):
    other = SoftwareCustody(site[0])
    assert other.refresh() is False
    custody.renew("a.sm4")
    sealed = custody.seal("a.sm4", b"x", b"")
    assert other.refresh() is True
    other.activate("a.sm4", 2)
    with pytest.raises(CustodyError, match="another process"):
        custody.activate("a.sm4", 2)
    custody.renew("a.hmac")
    with pytest.raises(CustodyError, match="another process"):
        other.renew("a.hmac")
    assert custody.refresh() is True
    assert custody.key("a.sm4").epoch == 2
    assert other.open("a.sm4", sealed, b"") == b"x"


def test_a_new_master_key_locks_out_the_old_quorum_and_nobody_else(custody, site):
    folder, master = site
    sealed = custody.seal("a.sm4", b"x", b"")
    with pytest.raises(SealBroken, match="not the master key"):
        quorum.change_master(folder, Secret.random(16), 2, holders("sun", "qian"))
    new = quorum.change_master(folder, master, 2, holders("sun", "qian"))
    assert new.view != master.view
    assert custody.refresh() is True, "the agent knows the new key"
    assert custody.open("a.sm4", sealed, b"") == b"x"
    assert SoftwareCustody(folder).open("a.sm4", sealed, b"") == b"x"
    assert quorum.unseal(folder, holders("sun", "qian")).view == new.view
    with pytest.raises(quorum.ShareRefused, match="no custodian"):
        quorum.unseal(folder, holders("wang", "li"))
    assert quorum.describe(folder).needed == 2


def test_killed_at_any_instant_of_it_everything_opens_as_before_or_as_it_shall(custody, site, monkeypatch):
    folder, master = site
    monkeypatch.setattr(quorum, "_SCRYPT_COST", 2)  # what it costs to guess is no matter here
    master = quorum.change_master(folder, master, 2, holders("wang", "li"))
    sealed = custody.seal("a.sm4", b"x", b"")
    whose = []
    for instant in range(1, 100):
        child = os.fork()
        if child == 0:
            _change_and_die(folder, master, instant)
        ended = os.waitpid(child, 0)[1]
        whose.append(tuple(who.name for who in quorum.describe(folder).custodians))
        master = quorum.unseal(folder, holders(*whose[-1]))
        assert SoftwareCustody(folder).open("a.sm4", sealed, b"") == b"x", "the agent has what opens it"
        custody.refresh()
        assert custody.open("a.sm4", sealed, b"") == b"x"
        if os.WIFEXITED(ended):
            break
    assert set(whose) == {("wang", "li"), ("sun", "qian")}
    assert len(whose) > 15


def _change_and_die(folder: Path, master: Secret, instant: int) -> None:
    """Change the master key; be killed at the so-many-th share, word to the agent, or statement to the database."""
    left = instant

    def step(*_: object) -> None:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    keep, tell, opened = quorum.Passphrase.keep, agent._tell, KeyDatabase.__init__
    quorum.Passphrase.keep = lambda *given: (step(), keep(*given))[1]
    agent._tell = lambda *given: (step(), tell(*given), step())[1]
    KeyDatabase.__init__ = lambda self, path: (opened(self, path), self._connection.set_trace_callback(step))[0]
    quorum.change_master(folder, master, 2, holders("sun", "qian"))
    os._exit(0)


# --- the agent


def test_the_agent_survives_peers_that_say_nothing_or_nonsense(site):
    folder, master = site
    with served(folder, master):
        for noise in (b"", b"X", b"G" * 40, b"R", b"R" + bytes(32), os.urandom(33)):
            with socket.socket(socket.AF_UNIX) as peer:
                descriptor = os.open(folder, os.O_RDONLY)
                peer.connect(f"/proc/self/fd/{descriptor}/agent.sock")
                os.close(descriptor)
                peer.sendall(noise)
        assert [key.view for key in agent.fetch(folder)] == [master.view]
        with pytest.raises(Unavailable):
            agent.replace(folder, Secret.random(16), Secret.random(16))
        with pytest.raises(FileExistsError):
            agent.Agent(folder, master)


def test_an_agent_that_was_killed_leaves_nothing_in_the_way(site):
    folder, master = site
    program = (
        "import sys; from pathlib import Path; from fengshou.hsm import agent; from fengshou.hsm.memory import Secret"
    )
    program += "; made = agent.Agent(Path(sys.argv[1]), Secret(bytes.fromhex(sys.stdin.readline())))"
    program += "; print('ready', flush=True); made.serve()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    process.stdin.write(master.view.hex() + "\n")
    process.stdin.flush()
    assert process.stdout.readline() == "ready\n"
    assert [key.view for key in agent.fetch(folder)] == [master.view]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with pytest.raises(Unavailable):
        agent.fetch(folder)
    with served(folder, master):
        assert [key.view for key in agent.fetch(folder)] == [master.view]


# --- memory


def test_a_secret_is_wiped_when_its_last_user_lets_go():
    address = ctypes.addressof(ctypes.c_ubyte.from_buffer(Secret(b"sixteen byte key").view))
    assert ctypes.string_at(address, 16) == bytes(16), "nobody held it"
    key = Secret(b"sixteen byte key").view  # the object is gone, its view is not
    address = ctypes.addressof(ctypes.c_ubyte.from_buffer(key))
    assert ctypes.string_at(address, 16) == b"sixteen byte key"
    del key
    gc.collect()
    assert ctypes.string_at(address, 16) == bytes(16)


def test_a_secret_tells_nothing():
    secret = Secret(b"sixteen byte key")
    assert "sixteen" not in repr(secret)
    with pytest.raises(TypeError):
        secret.__reduce__()
    with pytest.raises(ValueError, match="32"):
        Secret(bytes(33))


def test_a_child_wipes_no_key_of_its_parent():
    secret = Secret(b"sixteen byte key")
    child = os.fork()
    if child == 0:
        secret.__init__(bytes(16))  # lets go of the first one
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert secret.view == b"sixteen byte key"
