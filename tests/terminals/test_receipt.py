"""Receipts: every part of the proof holds, and every single bit of it matters."""

from dataclasses import replace

import pytest

from fengshou.codecs import PrivateKey, merkle_path, merkle_root, sm3
from fengshou.protocol.record import GENESIS, Commit, Record, RecordKind
from fengshou.protocol.signing import TAG_COMMIT
from fengshou.terminals.receipt import Exchange, Receipt, ReceiptInvalid, verify_receipt

KEY = PrivateKey.generate()
EXCHANGE = Exchange("FS000001", "999452054110013", 7, 42, 5, b"the request", b"the response")


def record_of(**changes: object) -> Record:
    fields = {
        "kind": RecordKind.OUTCOME, "number": 1_003, "time_us": 1, "business_day": 20_260_701, "rrn": 618_200_000_001,
        "template": 5, "terminal": "FS000001", "merchant": "999452054110013", "batch": 7, "stan": 42, "refers": 1_001,
        "code": "00", "content": EXCHANGE.content, "evidence": EXCHANGE.evidence,
    }  # fmt: skip
    return Record(**{**fields, **changes})


def receipt_of(record: Record, *, others: int = 6, index: int = 3, key: PrivateKey = KEY, tail: int = 2) -> Receipt:
    """The record in a commit of ``others + 1`` records, with ``tail`` commits up to the signed one."""
    leaves = [b"record %d" % number for number in range(others)]
    leaves.insert(index, record.to_bytes())
    commits = [Commit(9, record.number - index, len(leaves), 5, merkle_root(leaves), GENESIS)]
    for step in range(tail):
        last = commits[-1]
        commits.append(
            Commit(last.number + 1, last.first_record + last.records, 1, 6 + step, bytes(32), sm3(last.to_bytes()))
        )
    return Receipt(
        record.number, record.to_bytes(), index, merkle_path(leaves, index), b"".join(c.to_bytes() for c in commits),
        key.sign(sm3(key.public_key.za + TAG_COMMIT + commits[-1].to_bytes())),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("others", "index", "tail"), [(0, 0, 0), (1, 0, 1), (1, 1, 0), (6, 3, 2), (6, 6, 3), (511, 300, 32)]
)
def test_a_receipt_proves_its_record(others, index, tail):
    record = record_of()
    receipt = receipt_of(record, others=others, index=index, tail=tail)
    assert verify_receipt(receipt, KEY.public_key, EXCHANGE) == record
    assert verify_receipt(Receipt.from_values(receipt.to_values()), KEY.public_key, EXCHANGE) == record


#   what the record says                      instead
ABOUT_ANOTHER = [
    ({"terminal": "FS000002"},                "another terminal"),
    ({"merchant": "999452054110014"},         "another terminal"),
    ({"batch": 8},                            "another transaction"),
    ({"stan": 43},                            "another transaction"),
    ({"template": 7},                         "another request"),
    ({"content": sm3(b"other")},              "another request"),
    ({"evidence": sm3(b"other")},             "another response"),
    ({"kind": RecordKind.INTENT},             "no outcome"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "reason"), ABOUT_ANOTHER)
def test_a_good_receipt_about_something_else_is_refused(changes, reason):
    with pytest.raises(ReceiptInvalid, match=reason):
        verify_receipt(receipt_of(record_of(**changes)), KEY.public_key, EXCHANGE)


@pytest.mark.parametrize("part", ["record", "audit_path", "commits", "signature"])
def test_every_bit_matters(part):
    receipt = receipt_of(record_of(), tail=1)
    data = getattr(receipt, part)
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ReceiptInvalid):
            verify_receipt(replace(receipt, **{part: bytes(changed)}), KEY.public_key, EXCHANGE)


GOOD = receipt_of(record_of())
#   a receipt
FORGED = [
    ("another signer",           receipt_of(record_of(), key=PrivateKey.generate())),
    ("another number",           replace(GOOD, record_number=1_004)),
    ("another place",            replace(GOOD, leaf_index=2)),
    ("a place outside",          replace(GOOD, leaf_index=7)),
    ("no path",                  replace(GOOD, audit_path=b"")),
    ("a longer path",            replace(GOOD, audit_path=GOOD.audit_path + bytes(32))),
    ("half a hash",              replace(GOOD, audit_path=GOOD.audit_path[:-16])),
    ("no commits",               replace(GOOD, commits=b"")),
    ("half a commit",            replace(GOOD, commits=GOOD.commits[:-46])),
    ("a commit left out",        replace(GOOD, commits=GOOD.commits[:92] + GOOD.commits[184:])),
    ("the last commit left out", replace(GOOD, commits=GOOD.commits[:-92])),
    ("no record",                replace(GOOD, record=b"")),
    ("a record with a tail",     replace(GOOD, record=GOOD.record + b"!")),
    ("no signature",             replace(GOOD, signature=b"")),
    ("zeros",                    replace(GOOD, signature=bytes(64))),
]  # fmt: skip


@pytest.mark.parametrize("receipt", [case[1] for case in FORGED], ids=[case[0] for case in FORGED])
def test_a_forged_receipt_is_refused(receipt):
    with pytest.raises(ReceiptInvalid):
        verify_receipt(receipt, KEY.public_key, EXCHANGE)


def test_a_missing_part_is_told():
    values = GOOD.to_values()
    values.popitem()
    with pytest.raises(ReceiptInvalid, match="missing"):
        Receipt.from_values(values)
