"""What a restart owes to those who were cut off.

An intent without an outcome may or may not have reached its back end. It gets the outcome "unknown" and, if it moves
money, owes a reversal; an enquiry is simply given up, and what is repeated goes on. Only the open intents are read,
never the whole journal.
"""

import logging
from collections.abc import Callable

from fengshou.protocol import codes
from fengshou.protocol.record import Record
from fengshou.protocol.service import Conclusion, Service, TerminalFacts
from fengshou.protocol.transaction import Event, Machine, State
from fengshou.switch.grammar import Catalogue
from fengshou.switch.journal.store import Entry, Journal, key_of
from fengshou.switch.recording import Recorder

logger = logging.getLogger(__name__)

# Outcomes a commit while recovering.
_BATCH = 1000


class Recovery:
    """Runs once, before anything else writes."""

    def __init__(
        self,
        journal: Journal,
        catalogue: Catalogue,
        recorder: Recorder,
        facts: Callable[[str], TerminalFacts | None],
        pseudonym: Callable[[str], str],
        machine: Machine,
    ) -> None:
        self._journal = journal
        self._catalogue = catalogue
        self._recorder = recorder
        self._facts = facts
        self._pseudonym = pseudonym
        self._machine = machine

    def run(self) -> int:
        """Give every open intent its outcome. Returns how many got one. Raises JournalError.

        Those of a service that was taken out of the configuration stay open until it is back; those of a service that
        repeats its calls stay open until their back end has answered (``forwarding``).
        """
        journal = self._journal
        journal.refresh()
        found = []
        for record in journal.open_records():
            service = self._catalogue.service(record.template)
            if service is None:
                logger.error("record %d stays open: its service is not in the configuration any more", record.number)
            elif service.repeats:
                self._machine.step(State.JOURNALLED, Event.KEEP)
            else:
                found.append((record, service))
        for start in range(0, len(found), _BATCH):
            journal.commit([self._outcome(record, service) for record, service in found[start : start + _BATCH]])
            journal.refresh()
        return len(found)

    def _outcome(self, record: Record, service: Service) -> Entry:
        owes = self._debt(record, service)
        self._machine.step(State.JOURNALLED, Event.OWE if owes == record.number else Event.DECLINE)
        if owes and owes != record.number:
            self._machine.step(State.APPROVED, Event.OWE)  # of the original that it was about to reverse
        return self._recorder.later_outcome(
            record,
            Conclusion(codes.UNKNOWN_OUTCOME),
            owes=owes,
            gives_back=() if owes else self._journal.charges(record.number),
        )

    def _debt(self, record: Record, service: Service) -> int:
        """The intent that owes a reversal: this one, or the original that it was about to reverse; 0 for none."""
        if not service.moves_money:
            return 0
        who = self._facts(record.terminal) or TerminalFacts(record.terminal, record.merchant, 0, "", "", "", "", "", 0)
        named = None
        if service.undoes:
            named = service.original_key(self._recorder.request(record, who, self._pseudonym))
        if named is None:
            return record.number
        known = self._journal.known(key_of(record.terminal, record.merchant, *named))
        return known.intent if known else 0
