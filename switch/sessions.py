"""Who is signed in, over which connection, with which batch and keys.

A sign-in is judged at once and takes effect when it is durable. What a terminal says of its keys is heard here too: it
belongs to the session and not to any transaction.
"""

from collections.abc import Callable, Mapping, Set

from fengshou.hsm.custody import CustodyError, MacMismatch
from fengshou.protocol import codes
from fengshou.protocol import elements as de
from fengshou.protocol.history import History
from fengshou.protocol.message import Value
from fengshou.protocol.session import Event as SessionEvent
from fengshou.switch.admission import Admission
from fengshou.switch.clock import local_time
from fengshou.switch.exchange import Exchange
from fengshou.switch.journal.store import Entry, batch_key
from fengshou.switch.recording import Recorder
from fengshou.switch.renewals import Renewals
from fengshou.switch.terminal_keys import Held, TerminalKeys
from fengshou.terminals.binding import Status, TerminalRow
from fengshou.terminals.pump import Closing, Peer


class Sessions:
    """The sessions of all terminals of this worker."""

    def __init__(
        self, admission: Admission, recorder: Recorder, keys: TerminalKeys, renewals: Renewals | None = None,
        signer: Callable[[], Mapping[int, Value]] = dict,
    ) -> None:  # fmt: skip
        """``renewals`` None: certificates are not renewed here. ``signer`` is what template 22 answers, see
        ``signing_certificate``; nothing when it is not known here."""
        self._admission = admission
        self._recorder = recorder
        self._keys = keys
        self._renewals = renewals
        self._signer = signer
        self._signed_in: dict[str, Peer] = {}
        self._sign_ins: dict[Exchange, tuple[TerminalRow, int, Entry]] = {}

    @property
    def waiting(self) -> bool:
        """Whether a sign-in was accepted and is not durable yet."""
        return bool(self._sign_ins)

    def sign_in(self, exchange: Exchange, entries: list[Entry]) -> None:
        """Answer a sign-in; accepted, it waits to be durable."""
        accepted = self._admission.sign_in(exchange)
        if accepted is None:
            return
        row, batch = accepted
        held = Held.stated(exchange.asked.values)
        entry = self._recorder.session(exchange, row.facts, batch, held)
        entries.append(entry)
        self._sign_ins[exchange] = (row, batch, entry)
        now = local_time(exchange.received_us)
        exchange.answer_now(
            {
                de.RESPONSE_CODE: codes.APPROVED,
                de.LOCAL_TIME: now.hour * 10_000 + now.minute * 100 + now.second,
                de.LOCAL_DATE: now.month * 100 + now.day,
                de.BATCH: batch,
                **(self._keys.newer(row.facts, exchange.peer.certificate.public_key, held) if held else {}),
            }
        )

    def sign_off(self, exchange: Exchange, entries: list[Entry]) -> None:
        """End the session, not the connection."""
        peer = exchange.peer
        assert peer.row is not None
        batch = peer.session.implied[de.BATCH]
        assert isinstance(batch, int)
        entries.append(self._recorder.session(exchange, peer.row.facts, batch))
        exchange.answer_now({de.RESPONSE_CODE: codes.APPROVED})
        peer.session.advance(SessionEvent.SIGN_OFF, {})

    def hear_of_keys(self, exchange: Exchange, entries: list[Entry]) -> None:
        """A terminal says what keys it holds, proves it unless that is none, and is told newer ones."""
        peer, values = exchange.peer, exchange.asked.values
        held = Held.stated(values)
        assert peer.row is not None
        assert held is not None
        facts, batch, proof = peer.row.facts, peer.session.implied[de.BATCH], values.get(de.MAC, b"")
        assert isinstance(batch, int)
        assert isinstance(proof, bytes)
        if self._keys.current is None:
            exchange.refuse(codes.UNSUPPORTED, "no working keys here")
            return
        try:
            if held.working:
                self._keys.prove(facts, peer.session.binding, held, proof)
        except MacMismatch:
            exchange.refuse(codes.MAC_ERROR, "the terminal's keys are not what they should be")
            return
        except CustodyError:
            held = Held()  # of an epoch that is retired: as good as none
        entries.append(self._recorder.session(exchange, facts, batch, held))
        peer.key_epochs = held
        told = self._keys.newer(facts, peer.certificate.public_key, held)
        exchange.answer_now({de.RESPONSE_CODE: codes.APPROVED, **told})

    def renew(self, exchange: Exchange) -> None:
        """A terminal wants another certificate."""
        if self._renewals is None:
            exchange.refuse(codes.UNSUPPORTED, "certificates are not renewed here")
        else:
            self._renewals.ask(exchange)

    def tell_signer(self, exchange: Exchange) -> None:
        """A terminal met a receipt of a signer that it does not know."""
        if told := self._signer():
            exchange.answer_now({de.RESPONSE_CODE: codes.APPROVED, **told})
        else:
            exchange.refuse(codes.UNSUPPORTED, "no certificate of the signing key here")

    def notice(self, peer: Peer) -> int:
        """The command that a terminal should hear of next. Keys are told at once, while a certificate may take days."""
        return self._keys.notice(peer) or (self._renewals is not None and self._renewals.notice(peer))

    def durable(self, exchange: Exchange, closed: Set[bytes]) -> None:
        """Let an accepted sign-in take effect, unless its batch was closed (``batch_key``) in the same commit."""
        if exchange not in self._sign_ins:
            return
        row, batch, entry = self._sign_ins.pop(exchange)
        peer, values = exchange.peer, exchange.asked.values
        if peer.closed or batch_key(row.facts.terminal, row.facts.merchant, batch) in closed:
            return
        terminal = row.facts.terminal
        before = self._signed_in.get(terminal)
        if before is not None and before is not peer:
            before.pump.close(before, Closing.SUPERSEDED)  # what a terminal left half-open when it lost its link
        self._signed_in[terminal] = peer
        if peer.row is None:
            peer.spent_at = float("-inf")  # a full bucket of its own rate, once a connection
        peer.app = str(values[de.APP]), str(values[de.APP_VERSION])
        peer.row = row
        peer.permitted = row.services & row.apps[peer.app].services
        peer.session_record = entry.record.number
        peer.key_epochs = Held.stated(values)
        if self._renewals is not None:
            self._renewals.signed_in(peer, row)
        peer.session.advance(
            SessionEvent.SIGN_IN,
            {
                de.TERMINAL: row.facts.terminal,
                de.MERCHANT: row.facts.merchant,
                de.CURRENCY: de.CURRENCY_CNY,
                de.BATCH: batch,
                de.OPERATOR: values[de.OPERATOR],
            },
        )
        peer.session.history = History() if exchange.grants_delta else None

    def lost(self, exchange: Exchange) -> None:
        """The journal could not take the sign-in: it was none."""
        if self._sign_ins.pop(exchange, None):
            exchange.shed("96")

    def review(self, peer: Peer, row: TerminalRow | None) -> bool:
        """Take over what the registry says now of a signed-in terminal; False when its session may not go on.

        Another application, another version or a wider list of services concerns nobody who trades.
        """
        was = peer.row
        assert was is not None
        if row is None or row.status is not Status.ACTIVE:
            return False
        app = row.apps.get(peer.app)
        if app is None or app != was.apps[peer.app] or app.status is not Status.ACTIVE:
            return False
        if row.facts != was.facts or not row.knows(peer.certificate):
            return False
        peer.row = row
        peer.permitted = row.services & app.services
        return True

    def forget(self, peer: Peer) -> None:
        """A connection was closed."""
        if peer.row is not None and self._signed_in.get(peer.row.facts.terminal) is peer:
            del self._signed_in[peer.row.facts.terminal]
