"""Receipts: proof that a record stands in the signed journal.

A receipt is the record, its audit path in its commit, the headers from that commit to a signed one, and the signature.
Whoever has the switch's public key can check it without the switch; ``docs/PROTOCOL.md`` shows it with openssl alone.
"""

from collections.abc import Iterator

from fengshou.codecs import merkle_path
from fengshou.hsm.custody import Custody
from fengshou.protocol import elements as de
from fengshou.protocol.message import Value
from fengshou.protocol.record import parse_commit
from fengshou.switch.journal.signature import UNSIGNED_COMMITS_MAX, sign_commit
from fengshou.switch.journal.store import Journal


def receipt(journal: Journal, number: int, custody: Custody | None = None) -> dict[int, Value] | None:
    """The receipt of record ``number`` as elements 120.1 .. 120.6; None while its commit is not signed yet.

    With ``custody`` a commit that lies too far before the next signed one is signed on the spot. Raises KeyError when
    there is no such record.
    """
    record = journal.record_bytes(number)
    if record is None:
        raise KeyError(number)
    headers: list[bytes] = []
    signature = None
    for header in journal.commits(number):
        headers.append(header)
        signature = journal.signature(parse_commit(header).number)
        if signature is not None or len(headers) > UNSIGNED_COMMITS_MAX:
            break
    if signature is None:
        if custody is None or len(headers) <= UNSIGNED_COMMITS_MAX:
            return None
        signature = sign_commit(custody, parse_commit(headers[0]))
        del headers[1:]
    commit = parse_commit(headers[0])
    index = number - commit.first_record
    return {
        de.RECORD_NUMBER: number,
        de.RECORD: record,
        de.LEAF_INDEX: index,
        de.AUDIT_PATH: merkle_path(list(_leaves(journal, commit.first_record, commit.records)), index),
        de.COMMITS: b"".join(headers),
        de.ROOT_SIGNATURE: signature,
    }


def _leaves(journal: Journal, first: int, count: int) -> Iterator[bytes]:
    for number, record in journal.records(first):
        if number >= first + count:
            return
        yield record
