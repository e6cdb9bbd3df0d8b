"""The file of purchases that wait for coverage: nothing that it confirmed is ever lost, nothing else ever appears."""

from pathlib import Path

import pytest

from fengshou.codecs import MessageCodec
from fengshou.ext.services.farm_purchase import FARM_PURCHASE
from fengshou.protocol import elements as de
from fengshou.protocol.templates import Grammar
from fengshou.terminals.offline_store import OfflineError, OfflineStore

CODEC = MessageCodec(Grammar((), (FARM_PURCHASE,)))
SIGNATURE = bytes(range(64))


def goods(weight: int) -> dict[int, int | str | bytes]:
    return {de.PRODUCT: 1, de.WEIGHT: weight, de.TO_ACCOUNT: "9156001004001187857"}


def opened(path: Path) -> OfflineStore:
    return OfflineStore(path, CODEC)


def facts(store: OfflineStore) -> tuple[object, ...]:
    return (
        [(item.number, item.template, dict(item.values)) for item in store.waiting()],
        store.sealed(),
        len(store),
    )


def full_life(path: Path) -> list[tuple[int, tuple[object, ...]]]:
    """Everything that can be done, with what the store says after each and how long the file was then."""
    seen = []
    with opened(path) as store:

        def step() -> None:
            seen.append((path.stat().st_size, facts(store)))

        step()
        for weight in range(1, 6):
            store.store(1, goods(weight))
            step()
        store.seal(7, [1, 2, 3], b"packed", SIGNATURE)
        step()
        store.answered(2, "00")
        step()
        store.returned(3)
        step()
        store.seal(8, [3, 4], b"again", SIGNATURE)
        step()
        store.answered(1, "51")
        step()
    return seen


def test_what_it_says_is_what_it_says_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "offline.log"
    seen = full_life(path)
    assert [number for number, *_ in seen[-1][1][0]] == [5]
    assert [upload.numbers for upload in seen[-1][1][1]] == [(3, 4)]
    with opened(path) as store:
        assert facts(store) == seen[-1][1]
        assert store.store(1, goods(9)) == 6


def test_a_cut_at_any_byte_loses_only_what_was_never_confirmed(tmp_path: Path) -> None:
    path = tmp_path / "whole.log"
    seen = full_life(path)
    data = path.read_bytes()
    for size in range(len(data) + 1):
        cut = tmp_path / "cut.log"
        cut.write_bytes(data[:size])
        confirmed = [said for end, said in seen if end <= size][-1]
        with opened(cut) as store:
            assert facts(store) == confirmed
            if size % 16:
                continue
            store.store(1, goods(77))
        with opened(cut) as store:
            assert len(store) == confirmed[2] + 1


def test_any_other_change_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "whole.log"
    full_life(path)
    data = path.read_bytes()
    bent = tmp_path / "bent.log"
    for place in range(len(data) - 40):  # a longer size at the end looks like a cut
        changed = bytearray(data)
        changed[place] ^= 0x01
        bent.write_bytes(changed)
        try:
            with opened(bent) as store:
                held = len(store)
        except OfflineError:
            continue
        # Only a size that points behind the end is taken for a cut: then everything before it still stands.
        assert held <= 5
        assert bent.read_bytes() == data[: bent.stat().st_size]


def test_when_everything_is_answered_the_file_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "offline.log"
    with opened(path) as store:
        for weight in (1, 2):
            store.store(1, goods(weight))
        store.seal(1, [1, 2], b"packed", SIGNATURE)
        store.answered(1, "00")
        store.answered(2, "61")
        assert path.read_bytes() == b""
        assert store.store(1, goods(3)) == 1
    with opened(path) as store:
        assert len(store) == 1


def test_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "offline.log"
    with opened(path), pytest.raises(OfflineError, match="in use"):
        opened(path)
    with opened(path):
        pass
