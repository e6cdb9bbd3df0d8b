"""The keys of one custody: which epochs each label has, what each may be used for, and how they change.

The table lives in memory and its vault keeps it; the table decides, the vault makes the decision durable or refuses
because another process was faster. Readers need no lock: a label's ring is replaced, never changed.
"""

import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Generic, Protocol, TypeVar

from fengshou.hsm.custody import EPOCH_MAX, CustodyError, KeyInfo, Kind
from fengshou.protocol.epoch import ACCEPTING, EpochEvent, EpochState, UnlawfulEvent, step

Material = TypeVar("Material")

_LABEL = re.compile(r"[A-Za-z0-9]+(?:[.-][A-Za-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Held(Generic[Material]):
    """A key: what may be known of it, and what the provider computes with."""

    info: KeyInfo
    material: Material


class Vault(Protocol[Material]):
    """Where keys are kept. Every change is durable when it returns."""

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        ...

    def load(self) -> Iterable[Held[Material]]:
        """Every key. Raises CustodyError: one is damaged or badly protected."""
        ...

    def changed(self) -> bool:
        """Whether another process changed anything since ``load``."""
        ...

    def add(self, held: Held[Material]) -> None:
        """Raises CustodyError when the epoch is there already."""
        ...

    def move(self, changes: Sequence[tuple[Held[Material], EpochState]]) -> None:
        """Give each key its new state, all or none. Raises CustodyError when one has no longer the state we know."""
        ...

    def remove(self, held: Held[Material]) -> None: ...


class _Ring(Generic[Material]):
    """The epochs of one label."""

    __slots__ = ("current", "epochs", "kind")

    def __init__(self, epochs: Mapping[int, Held[Material]]) -> None:
        self.epochs = epochs
        kinds = {held.info.kind for held in epochs.values()}
        (self.kind,) = kinds
        current = [held for held in epochs.values() if held.info.state is EpochState.CURRENT]
        self.current = current[0] if current else None

    @property
    def newest(self) -> Held[Material]:
        return max(self.epochs.values(), key=lambda held: held.info.created)

    def following(self) -> int:
        """The number after the newest, around the end of the byte: as long as possible until one is used again."""
        newest = self.newest.info.epoch
        for distance in range(EPOCH_MAX):
            epoch = (newest + distance) % EPOCH_MAX + 1
            if epoch not in self.epochs:
                return epoch
        label = next(iter(self.epochs.values())).info.label
        raise CustodyError(f"{label} has {EPOCH_MAX} epochs: destroy retired ones")


class KeyTable(Generic[Material]):
    def __init__(self, vault: Vault[Material]) -> None:
        """Read every key. Raises CustodyError."""
        self._vault = vault
        self._change = threading.RLock()
        self._rings: dict[str, _Ring[Material]] = {}
        self._load()

    def _load(self) -> None:
        labels: dict[str, dict[int, Held[Material]]] = {}
        for held in self._vault.load():
            labels.setdefault(held.info.label, {})[held.info.epoch] = held
        self._rings = {label: _Ring(epochs) for label, epochs in labels.items()}

    def refresh(self) -> bool:
        with self._change:
            changed = self._vault.changed()
            if changed:
                self._load()
            return changed

    def keys(self) -> list[KeyInfo]:
        rings = sorted(self._rings.items())
        return [ring.epochs[epoch].info for _, ring in rings for epoch in sorted(ring.epochs)]

    def kinds(self) -> dict[str, Kind]:
        return {label: ring.kind for label, ring in self._rings.items()}

    def find(self, label: str, epoch: int | None, *kinds: Kind) -> Held[Material]:
        """The key to compute with; of any kind when none is given. Raises CustodyError."""
        ring = self._rings.get(label)
        if ring is None:
            raise CustodyError(f"no key for {label} in {self._vault.place}")
        if kinds and ring.kind not in kinds:
            raise CustodyError(f"{label} is a key of kind {ring.kind.name}, not {' or '.join(k.name for k in kinds)}")
        if epoch is None:
            if ring.current is None:
                raise CustodyError(f"{label} has no current epoch: activate one")
            return ring.current
        held = ring.epochs.get(epoch)
        if held is None:
            raise CustodyError(f"{label} has no epoch {epoch}")
        if held.info.state not in ACCEPTING:
            raise CustodyError(f"epoch {epoch} of {label} is {held.info.state.value}")
        return held

    def info(self, label: str, epoch: int | None) -> KeyInfo:
        """What may be known, of a retired epoch too. Raises CustodyError when there is none."""
        ring = self._rings.get(label)
        if ring is not None and epoch is not None and epoch in ring.epochs:
            return ring.epochs[epoch].info
        return self.find(label, epoch).info

    def newest(self, label: str) -> Held[Material] | None:
        """The epoch of a label that was made last, of any state."""
        ring = self._rings.get(label)
        return ring.newest if ring else None

    def check_new(self, label: str) -> None:
        """Raises CustodyError unless ``label`` may get its first key."""
        if not _LABEL.fullmatch(label):
            raise CustodyError(f"{label!r} is not a label: letters and digits, parted by . or -")
        if label in self._rings:
            raise CustodyError(f"{label} has a key already")

    def add(self, label: str, kind: Kind, check_value: bytes, material: Material) -> KeyInfo:
        """The first epoch of a label, which is current, or a further one, which is next. Raises CustodyError."""
        with self._change:
            ring = self._rings.get(label)
            if ring is None:
                self.check_new(label)
                epoch, state = 1, EpochState.CURRENT
            else:
                self._check_further(label, ring, kind)
                epoch, state = ring.following(), EpochState.NEXT
            held = Held(KeyInfo(label, epoch, kind, state, datetime.now(UTC), check_value), material)
            self._vault.add(held)
            self._put(label, held)
            return held.info

    def _check_further(self, label: str, ring: _Ring[Material], kind: Kind) -> None:
        if ring.kind is not kind:
            raise CustodyError(f"{label} is a key of kind {ring.kind.name}, not {kind.name}")
        for held in ring.epochs.values():
            if held.info.state is EpochState.NEXT:
                raise CustodyError(f"epoch {held.info.epoch} of {label} waits already: activate it or retire it")

    def activate(self, label: str, epoch: int) -> None:
        with self._change:
            held = self._any(label, epoch)
            # Out of retiring means back: the epoch that made way for its successor takes its place again.
            event = EpochEvent.SUPERSEDE if held.info.state is EpochState.NEXT else EpochEvent.ROLL_BACK
            after = _step(held, EpochEvent.ACTIVATE)
            ring = self._rings[label]
            changes = [(ring.current, _step(ring.current, event))] if ring.current else []
            self._move(label, [*changes, (held, after)])

    def retire(self, label: str, epoch: int) -> None:
        with self._change:
            held = self._any(label, epoch)
            self._move(label, [(held, _step(held, EpochEvent.RETIRE))])

    def destroy(self, label: str, epoch: int) -> None:
        with self._change:
            held = self._any(label, epoch)
            if held.info.state is not EpochState.RETIRED:
                raise CustodyError(f"epoch {epoch} of {label} is {held.info.state.value}: retire it first")
            self._vault.remove(held)
            rest = {number: other for number, other in self._rings[label].epochs.items() if number != epoch}
            if rest:
                self._rings[label] = _Ring(rest)
            else:
                del self._rings[label]

    def _any(self, label: str, epoch: int) -> Held[Material]:
        ring = self._rings.get(label)
        if ring is None or epoch not in ring.epochs:
            raise CustodyError(f"{label} has no epoch {epoch} in {self._vault.place}")
        return ring.epochs[epoch]

    def _move(self, label: str, changes: list[tuple[Held[Material], EpochState]]) -> None:
        self._vault.move(changes)
        self._put(label, *(Held(replace(held.info, state=state), held.material) for held, state in changes))

    def _put(self, label: str, *helds: Held[Material]) -> None:
        ring = self._rings.get(label)
        epochs = dict(ring.epochs) if ring else {}
        epochs.update((held.info.epoch, held) for held in helds)
        self._rings[label] = _Ring(epochs)


def _step(held: Held[Material], event: EpochEvent) -> EpochState:
    try:
        return step(held.info.state, event)
    except UnlawfulEvent as refusal:
        raise CustodyError(f"epoch {held.info.epoch} of {held.info.label}: {refusal}") from None
