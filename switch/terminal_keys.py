"""The keys of terminals: made from two roots in custody when they are needed, told to each terminal that is behind.

A terminal says which epochs it holds, in its sign-in or in a message of its own (``templates.KEYS``). When they are not
the current ones it is told newer: working keys under its master key in the form of UnionPay's sign-in 006 and, when it
lacks the current master key, that in an SM2 envelope to the key of its certificate. Decision 21 says why they are
derived.
"""

import logging
from collections.abc import Mapping
from typing import NamedTuple

from fengshou.codecs import PublicKey
from fengshou.hsm.custody import (
    TERMINAL_MASTER,
    TERMINAL_WORKING,
    Custody,
    CustodyError,
    Derived,
    Kind,
    WrapForm,
)
from fengshou.protocol import elements as de
from fengshou.protocol.message import COMMAND_KEYS, COMMAND_NONE, Value
from fengshou.protocol.service import TerminalFacts
from fengshou.protocol.signing import key_proof_message
from fengshou.switch.journal.view import JournalView
from fengshou.terminals.pump import Peer

logger = logging.getLogger(__name__)

# In the order in which they stand in DE 96.1.
_WORKING_KINDS = (Kind.PIN, Kind.MAC, Kind.SM4)


class Held(NamedTuple):
    """Epochs of the keys that a terminal has; 0 for none."""

    working: int = 0
    master: int = 0

    @classmethod
    def stated(cls, values: Mapping[int, Value]) -> "Held | None":
        """What a message says; None when its terminal uses no working keys."""
        working, master = values.get(de.KEY_EPOCH), values.get(de.MASTER_EPOCH, 0)
        return cls(working, master) if isinstance(working, int) and isinstance(master, int) else None


def holders(journal: JournalView) -> dict[str, Held]:
    """What each terminal that uses working keys has said to hold, and proved unless it was at a sign-in."""
    return {terminal: Held(working, master) for terminal, working, master in journal.held_keys()}


def working_key(facts: TerminalFacts, kind: Kind, epoch: int | None = None) -> Derived:
    return Derived(kind, TERMINAL_WORKING, _context(facts), epoch)


def master_key(facts: TerminalFacts, epoch: int | None = None) -> Derived:
    return Derived(Kind.TRANSPORT, TERMINAL_MASTER, _context(facts), epoch)


def _context(facts: TerminalFacts) -> bytes:
    """Whose keys: a device that takes the place of another one under the same identification gets keys of its own."""
    return f"{facts.terminal}{facts.serial}".encode()


class TerminalKeys:
    """The keys of all terminals, as far as custody has their roots."""

    def __init__(self, custody: Custody) -> None:
        self._custody = custody
        self.current: Held | None = None  # what terminals should hold; None: this site has no such keys

        self.refresh()

    def refresh(self) -> None:
        """Take note of what custody has now."""
        try:
            working, master = self._custody.key(TERMINAL_WORKING), self._custody.key(TERMINAL_MASTER)
        except CustodyError:
            self.current = None
        else:
            self.current = Held(working.epoch, master.epoch)

    def notice(self, peer: Peer) -> int:
        """The command for a terminal that holds other keys than it should; none for one that uses no keys."""
        held = peer.key_epochs
        return COMMAND_NONE if held is None or self.current is None or held == self.current else COMMAND_KEYS

    def newer(self, facts: TerminalFacts, recipient: PublicKey, held: Held) -> dict[int, Value]:
        """What a terminal is told that holds these; nothing when they are current, or custody is away.

        ``recipient`` is the key of its certificate.
        """
        current = self.current
        if current is None or held == current:
            return {}
        custody, master = self._custody, master_key(facts, current.master)
        try:
            keys = [working_key(facts, kind, current.working) for kind in _WORKING_KINDS]
            told: dict[int, Value] = {
                de.KEY_EPOCH: current.working,
                de.MASTER_EPOCH: current.master,
                de.WORKING_KEYS: b"".join([custody.export_key(key, master, WrapForm.UNIONPAY) for key in keys]),
            }
            if held.master != current.master:
                envelope = custody.export_envelope(master, recipient)
                told[de.MASTER_KEY] = custody.key(master).check_value + envelope
        except CustodyError as error:
            logger.error("terminal %s cannot be told its keys: %s", facts.terminal, error)
            return {}
        return told

    def opened(self, facts: TerminalFacts, values: Mapping[int, Value]) -> dict[int, Value]:
        """The values with what was sealed under the terminal's data key in the place of what seals it.

        Raises SealBroken, CustodyError: its epoch is out of use, UnicodeDecodeError.
        """
        clear = dict(values)
        for sealed, key in de.SEALED.items():
            if isinstance(value := clear.pop(sealed, None), bytes):
                data = self._custody.open(working_key(facts, Kind.SM4), value, de.sealed_context(sealed))
                clear[key] = data.decode("utf-8")
        return clear

    def prove(self, facts: TerminalFacts, binding: bytes, held: Held, proof: bytes) -> None:
        """Check that a terminal holds what it says. Raises MacMismatch, CustodyError: there is no such epoch."""
        message = key_proof_message(binding, held.master, held.working)
        self._custody.verify_mac(working_key(facts, Kind.MAC, held.working), message, proof)
