"""What a restart owes to those who were cut off.

An intent without an outcome may or may not have reached its back end. It gets the outcome "unknown" and, if it moves
money, owes a reversal; an enquiry is simply given up. Only the open intents are read, never the whole journal.
"""

import logging
from collections.abc import Callable

from fengshou.protocol import codes
from fengshou.protocol.record import Record
from fengshou.protocol.service import Conclusion, TerminalFacts
from fengshou.switch.grammar import Catalogue
from fengshou.switch.journal import Entry, Journal, key_of
from fengshou.switch.recording import Recorder

logger = logging.getLogger(__name__)

# Entries a commit while recovering: bounds memory, not time.
_BATCH = 1000


def recover(
    journal: Journal,
    catalogue: Catalogue,
    recorder: Recorder,
    facts: Callable[[str], TerminalFacts | None],
    pseudonym: Callable[[str], str],
) -> int:
    """Give every open intent its outcome. Runs before anything else writes. Returns how many got one.

    Those of a service that was taken out of the configuration stay open until it is back.
    """
    journal.refresh()
    numbers = []
    for number in journal.open_intents():
        if catalogue.service(journal.record(number).template) is None:
            logger.error("record %d stays open: its service is not in the configuration any more", number)
        else:
            numbers.append(number)
    for start in range(0, len(numbers), _BATCH):
        journal.commit(
            [
                _outcome(journal, catalogue, recorder, facts, pseudonym, number)
                for number in numbers[start : start + _BATCH]
            ]
        )
        journal.refresh()
    return len(numbers)


def _outcome(
    journal: Journal,
    catalogue: Catalogue,
    recorder: Recorder,
    facts: Callable[[str], TerminalFacts | None],
    pseudonym: Callable[[str], str],
    number: int,
) -> Entry:
    record = journal.record(number)
    owes = _debt(journal, catalogue, recorder, record, facts(record.terminal), pseudonym)
    return recorder.recovered(record, Conclusion(codes.UNKNOWN_OUTCOME), owes, () if owes else journal.charges(number))


def _debt(
    journal: Journal,
    catalogue: Catalogue,
    recorder: Recorder,
    record: Record,
    facts: TerminalFacts | None,
    pseudonym: Callable[[str], str],
) -> int:
    """The intent that owes a reversal: this one, or the original that it was about to reverse; 0 for none."""
    service = catalogue.service(record.template)
    assert service is not None
    if not service.moves_money:
        return 0
    who = facts or TerminalFacts(record.terminal, record.merchant, 0, "", "", "", "", "", 0)
    named = service.original_key(recorder.request(record, who, pseudonym))
    if named is None:
        return record.number
    known = journal.known(key_of(record.terminal, record.merchant, *named))
    return known.intent if known else 0
