"""Receipts: how a terminal, or an auditor years later, proves that the switch accepted a request and how it ended.

A receipt is the journal's outcome record, its place in a commit and the commits up to one that the switch has signed;
see ``protocol.record``. It proves by itself that the record stands in the signed journal, and with what the terminal
sent and received that the record is about that exchange.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from fengshou.codecs import BadSignature, PublicKey, merkle_root_from_path, sm3
from fengshou.protocol import elements as de
from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.message import Value
from fengshou.protocol.record import COMMIT_BYTES, Commit, Record, RecordKind, parse_commit, parse_record
from fengshou.protocol.signing import TAG_COMMIT


class ReceiptInvalid(Exception):
    """The receipt proves nothing; the text says which step of the proof failed."""


class SignerUnknown(ReceiptInvalid):
    """All fits, and none of the keys that are believed has signed it: the switch's may have been renewed."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What the receipt must be about: the key of a transaction and both bodies of its messages."""

    terminal: str
    merchant: str
    batch: int
    stan: int
    template: int
    request_body: bytes
    response_body: bytes

    @property
    def content(self) -> bytes:
        """SM3 of the template id and the request's body, as in ``Record.content``."""
        return sm3(bytes((self.template,)) + self.request_body)

    @property
    def evidence(self) -> bytes:
        """SM3 of the response's body, as in the ``Record.evidence`` of an outcome."""
        return sm3(self.response_body)


@dataclass(frozen=True, slots=True)
class Receipt:
    """The parts of a receipt as DE 120 carries them, not yet verified."""

    record_number: int
    record: bytes
    leaf_index: int
    audit_path: bytes  # 32 bytes a hash, from the leaf up
    commits: bytes  # 92 bytes a header, from the record's commit to the signed one
    signature: bytes  # the switch's r || s over the last of the commits

    @classmethod
    def from_values(cls, untrusted: Mapping[int, Value]) -> Self:
        """The receipt in the values of a response. Raises ReceiptInvalid when a part is missing."""
        keys = (de.RECORD_NUMBER, de.RECORD, de.LEAF_INDEX, de.AUDIT_PATH, de.COMMITS, de.ROOT_SIGNATURE)
        if any(key not in untrusted for key in keys):
            raise ReceiptInvalid("a part of the receipt is missing")
        number, record, leaf, path, commits, signature = (untrusted[key] for key in keys)
        assert isinstance(number, int)
        assert isinstance(record, bytes)
        assert isinstance(leaf, int)
        assert isinstance(path, bytes)
        assert isinstance(commits, bytes)
        assert isinstance(signature, bytes)
        return cls(number, record, leaf, path, commits, signature)

    def to_values(self) -> dict[int, Value]:
        return {
            de.RECORD_NUMBER: self.record_number,
            de.RECORD: self.record,
            de.LEAF_INDEX: self.leaf_index,
            de.AUDIT_PATH: self.audit_path,
            de.COMMITS: self.commits,
            de.ROOT_SIGNATURE: self.signature,
        }


def verify_receipt(receipt: Receipt, switch: PublicKey | Sequence[PublicKey], exchange: Exchange) -> Record:
    """The outcome record, when the receipt proves that the journal holds it for ``exchange``. Raises ReceiptInvalid.

    ``switch`` is the public half of the switch's signing key, of all its epochs that are accepted.
    """
    record = verify_inclusion(receipt, switch)
    if record.kind != RecordKind.OUTCOME:
        raise ReceiptInvalid("the record is no outcome")
    if (record.terminal, record.merchant) != (exchange.terminal.rstrip(), exchange.merchant.rstrip()):
        raise ReceiptInvalid("the record is of another terminal")
    if (record.batch, record.stan) != (exchange.batch, exchange.stan):
        raise ReceiptInvalid("the record is of another transaction")
    if (record.template, record.content) != (exchange.template, exchange.content):
        raise ReceiptInvalid("the record is of another request under the same key")
    if record.evidence != exchange.evidence:
        raise ReceiptInvalid("the record is of another response")
    return record


def verify_inclusion(receipt: Receipt, switch: PublicKey | Sequence[PublicKey]) -> Record:
    """The record, when the receipt proves that the signed journal holds it.

    Raises ReceiptInvalid; SignerUnknown when only the signature is wanting.
    """
    try:
        record = parse_record(receipt.record)
        commits = _commits(receipt.commits)
    except UntrustedBytesError as error:
        raise ReceiptInvalid(str(error)) from None
    first = commits[0]
    if record.number != receipt.record_number or record.number != first.first_record + receipt.leaf_index:
        raise ReceiptInvalid("the record's number does not fit its place in the commit")
    try:
        root = merkle_root_from_path(receipt.record, receipt.leaf_index, first.records, receipt.audit_path)
    except ValueError as error:
        raise ReceiptInvalid(str(error)) from None
    if root != first.root:
        raise ReceiptInvalid("the audit path leads to another root")
    for earlier, later in pairwise(commits):
        if later.number != earlier.number + 1 or later.previous != sm3(earlier.to_bytes()):
            raise ReceiptInvalid("the commits are no chain")
    for key in (switch,) if isinstance(switch, PublicKey) else switch:
        try:
            key.verify(sm3(key.za + TAG_COMMIT + commits[-1].to_bytes()), receipt.signature)
        except BadSignature:
            continue
        return record
    raise SignerUnknown("the switch did not sign the last commit")


def _commits(untrusted: bytes) -> list[Commit]:
    if not untrusted:
        raise ReceiptInvalid("there is no commit")
    return [parse_commit(untrusted[at : at + COMMIT_BYTES]) for at in range(0, len(untrusted), COMMIT_BYTES)]
