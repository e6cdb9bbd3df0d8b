"""Makes ``docs/vectors.json``: the worked examples of PROTOCOL.md, with their keys.

An SM2 signature has a random part, so each run gives other signatures. The file is made once and kept; run this again
only when the protocol changes, and then ``generate.py``. A test verifies every value in it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from example_data import (
    BATCH,
    BINDING,
    BUSINESS_DAY,
    CARD,
    CLOCK,
    DELTA_SEQUENCE,
    FACTS,
    GATEWAY_KEY,
    IMPLIED,
    KEY_EPOCH,
    MASTER_EPOCH,
    MASTER_KEY,
    PIN,
    PURCHASE_ANSWER,
    PURCHASE_VALUES,
    RECEIVED_US,
    RRN,
    SECOND_PURCHASE,
    SIGN_IN_VALUES,
    STAN,
    STORED,
    SWITCH_KEY,
    TERMINAL_KEY,
    UPLOAD_SEQUENCE,
    WORKING_KEYS,
)

from fengshou.codecs import Iso8583Codec, PrivateKey, merkle_path, merkle_root, sm2_encrypt, sm3
from fengshou.ext.services import balance, farm_purchase, withdrawal
from fengshou.hsm import pin, sm4
from fengshou.hsm.custody import PinFormat
from fengshou.protocol import elements as de
from fengshou.protocol import offline
from fengshou.protocol.delta import ReferenceDeltaWriter
from fengshou.protocol.grammar import ReferenceCodec
from fengshou.protocol.iso8583 import HostFormat, transmission_time
from fengshou.protocol.message import Flag, Message, Value
from fengshou.protocol.record import Commit, Record, RecordKind
from fengshou.protocol.reversal import reversal_of
from fengshou.protocol.service import Request, Service
from fengshou.protocol.signing import TAG_COMMIT, json_answer_message, json_request_message, key_proof_message
from fengshou.protocol.templates import ECHO, ERROR, KEYS, OFFLINE_UPLOAD, RECEIPT, SIGN_IN, Grammar
from fengshou.routing.destination import Trace
from fengshou.routing.iso8583_matching import request_fields

FILE = Path(__file__).parents[1] / "vectors.json"


class Maker:
    """Turns examples into rows of the file."""

    def __init__(self) -> None:
        self.grammar = Grammar(
            templates=(*farm_purchase.service.templates, *balance.service.templates, *withdrawal.service.templates)
        )
        self.codec = ReferenceCodec(self.grammar)
        self.terminal = PrivateKey.from_scalar(TERMINAL_KEY)
        self.switch = PrivateKey.from_scalar(SWITCH_KEY)
        self.gateway = PrivateKey.from_scalar(GATEWAY_KEY)

    def shown(self, values: Mapping[int, Value]) -> dict[str, Any]:
        """Values by name; bytes in hexadecimal."""
        return {
            self.grammar.elements[key].name: value.hex() if isinstance(value, bytes) else value
            for key, value in sorted(values.items())
        }

    def message(
        self,
        name: str,
        template: int,
        flags: int,
        sequence: int,
        values: Mapping[int, Value],
        implied: Mapping[int, Value] | None = None,
    ) -> dict[str, Any]:
        """One message; signed when its flags say so, with all that its signature covers."""
        message = Message(template, flags, sequence, dict(values))
        row: dict[str, Any] = {
            "name": name,
            "template": template,
            "flags": flags,
            "sequence": sequence,
            "values": self.shown(values),
        }
        if flags & Flag.SIGNED:
            session = implied or {}
            canonical = self.codec.canonical(template, flags, sequence, {**session, **values})
            digest = self.codec.digest(self.terminal.public_key.za, BINDING, message, session)
            message.signature = self.terminal.sign(digest)
            row |= {"canonical": canonical.hex(), "digest": digest.hex(), "signature": message.signature.hex()}
        return row | {"frame": self.codec.encode(message).hex()}

    def messages(self) -> list[dict[str, Any]]:
        signed, answer = int(Flag.SIGNED), int(Flag.RESPONSE)
        purchase = farm_purchase.FARM_PURCHASE.id
        enquiry = balance.BALANCE.id
        unknown = bytes((1 << 6 | 62, 0, 9))  # version 1, template 62
        return [
            self.message("sign-in", SIGN_IN.id, signed, 1, SIGN_IN_VALUES),
            self.message("sign-in answer", SIGN_IN.id, answer, 1, {**CLOCK, de.RESPONSE_CODE: "00", de.BATCH: BATCH}),
            self.message("farm purchase", purchase, signed | Flag.RECEIPT, 2, PURCHASE_VALUES, IMPLIED),
            self.message("farm purchase answer", purchase, answer | Flag.RECEIPT, 2, PURCHASE_ANSWER),
            self.message("receipt", RECEIPT.id, answer, 2, {de.RESPONSE_CODE: "00", **self.receipt()}),
            self.message("balance", enquiry, signed, 3, {de.STAN: STAN + 1, **CLOCK, de.ENTRY_MODE: 12}, IMPLIED),
            self.message(
                "balance answer",
                enquiry,
                answer,
                3,
                {
                    de.SETTLEMENT_DATE: 712,
                    de.RRN: RRN + 1,
                    de.AUTHORISATION: "004712",
                    de.RESPONSE_CODE: "00",
                    de.LEDGER_BALANCE: -12_345,
                    de.AVAILABLE_BALANCE: -12_345,
                },
            ),
            self.message("keys", KEYS.id, signed, 5, {de.STAN: STAN + 2, de.KEY_EPOCH: 0, de.MASTER_EPOCH: 0}, IMPLIED),
            self.message("keys answer", KEYS.id, answer, 5, self.keys_told()),
            self.message("keys proved", KEYS.id, signed, 6, self.keys_proved(), IMPLIED),
            self.message("withdrawal with a PIN", withdrawal.WITHDRAWAL.id, signed, 7, self.withdrawal(), IMPLIED),
            self.message("echo", ECHO.id, 0, 4, {de.NETWORK_CODE: 301}),
            self.message("echo answer", ECHO.id, answer, 4, {de.RESPONSE_CODE: "00"}),
            {"name": "a frame of no template", "bad": True, "frame": (bytes((len(unknown),)) + unknown).hex()},
            self.message("error", ERROR.id, answer, 9, {de.RESPONSE_CODE: "30"}),
        ]

    # -- the two compact forms ---------------------------------------------------------------------------------

    def delta(self) -> dict[str, Any]:
        """A second purchase, as its difference to the first."""
        first = self.message("farm purchase", farm_purchase.FARM_PURCHASE.id, Flag.SIGNED, 2, PURCHASE_VALUES, IMPLIED)
        row = self.message("farm purchase", first["template"], Flag.SIGNED, DELTA_SEQUENCE, SECOND_PURCHASE, IMPLIED)
        writer = ReferenceDeltaWriter(self.grammar)
        writer.keep(Message(first["template"], Flag.SIGNED, 2, dict(PURCHASE_VALUES)))
        signature = bytes.fromhex(row["signature"])
        frame = writer.frame(Message(row["template"], Flag.SIGNED, DELTA_SEQUENCE, dict(SECOND_PURCHASE), signature))
        assert frame is not None
        return {**row, "base": 2, "whole": row["frame"], "frame": frame.hex()}

    def offline(self) -> dict[str, Any]:
        """Three purchases that were made without coverage, in one upload."""
        template = farm_purchase.FARM_PURCHASE.id
        leaves = [offline.leaf(self.codec, template, values, IMPLIED) for values in STORED]
        root = merkle_root(leaves)
        signed = offline.signed_part(root, len(leaves))
        digest = sm3(self.terminal.public_key.za + signed)
        signature = self.terminal.sign(digest)
        items = offline.pack_items(self.codec, ReferenceDeltaWriter(self.grammar), template, STORED)
        upload = Message(OFFLINE_UPLOAD.id, Flag.SIGNED, UPLOAD_SEQUENCE, {de.OFFLINE_ITEMS: items}, signature)
        return {
            "template": template,
            "sequence": UPLOAD_SEQUENCE,
            "items": [self.shown(values) for values in STORED],
            "leaves": [leaf.hex() for leaf in leaves],
            "root": root.hex(),
            "signed": signed.hex(),
            "digest": digest.hex(),
            "signature": signature.hex(),
            "frame": self.codec.encode(upload).hex(),
        }

    # -- keys and a PIN --------------------------------------------------------------------------------------

    def keys_told(self) -> dict[int, Value]:
        return {
            de.RESPONSE_CODE: "00",
            de.KEY_EPOCH: KEY_EPOCH,
            de.MASTER_EPOCH: MASTER_EPOCH,
            de.WORKING_KEYS: b"".join(
                bytes(sm4.ecb_encrypt(MASTER_KEY, key)) + sm4.check_value(key) for key in WORKING_KEYS
            ),
            de.MASTER_KEY: sm4.check_value(MASTER_KEY) + sm2_encrypt(self.terminal.public_key, MASTER_KEY),
        }

    def keys_proved(self) -> dict[int, Value]:
        proof = sm4.cmac(WORKING_KEYS[1], key_proof_message(BINDING, MASTER_EPOCH, KEY_EPOCH))
        return {de.STAN: STAN + 3, de.KEY_EPOCH: KEY_EPOCH, de.MASTER_EPOCH: MASTER_EPOCH, de.MAC: proof}

    def withdrawal(self) -> dict[int, Value]:
        return {
            de.PAN: CARD,
            de.AMOUNT: 30_000,
            de.STAN: STAN + 4,
            **CLOCK,
            de.ENTRY_MODE: 51,
            de.PIN_BLOCK: pin.encipher(WORKING_KEYS[0], PinFormat.ISO_4, PIN, CARD),
            de.KEY_EPOCH: KEY_EPOCH,
        }

    # -- the receipt: an outcome, second of three records of commit 41, proved by the signature over commit 42 ---

    def outcome(self) -> Record:
        template = farm_purchase.FARM_PURCHASE.id
        body = self.codec.encode_body(template, False, PURCHASE_VALUES)
        return Record(
            RecordKind.OUTCOME,
            102,
            RECEIVED_US + 9_000,
            BUSINESS_DAY,
            RRN,
            template,
            FACTS.terminal,
            FACTS.merchant,
            BATCH,
            STAN,
            refers=100,
            code="00",
            content=sm3(bytes((template,)) + body),
            evidence=sm3(self.codec.encode_body(template, True, PURCHASE_ANSWER)),
            clear=self.codec.pack({de.SETTLEMENT_DATE: 712, de.AUTHORISATION: "004711"}),
        )

    def neighbour(self, number: int, time_us: int) -> bytes:
        return Record(
            RecordKind.LATE, number, time_us, BUSINESS_DAY, RRN - 9, 7, "FS000009", FACTS.merchant, 3, 8,
            refers=number - 9, code="00", content=sm3(number.to_bytes(8, "big")),
        ).to_bytes()  # fmt: skip

    def receipt(self) -> dict[int, Value]:
        outcome = self.outcome()
        leaves = [
            self.neighbour(101, outcome.time_us - 1),
            outcome.to_bytes(),
            self.neighbour(103, outcome.time_us + 1),
        ]
        first = Commit(
            41, 101, 3, outcome.time_us + 1, merkle_root(leaves), sm3(b"Fengshou example: header of commit 40")
        )
        signed = Commit(42, 104, 1, outcome.time_us + 900, merkle_root([self.neighbour(104, 0)]), sm3(first.to_bytes()))
        digest = sm3(self.switch.public_key.za + TAG_COMMIT + signed.to_bytes())
        return {
            de.RECORD_NUMBER: outcome.number,
            de.RECORD: outcome.to_bytes(),
            de.LEAF_INDEX: 1,
            de.AUDIT_PATH: merkle_path(leaves, 1),
            de.COMMITS: first.to_bytes() + signed.to_bytes(),
            de.ROOT_SIGNATURE: self.switch.sign(digest),
        }

    # -- towards back ends --------------------------------------------------------------------------------

    def json_call(self) -> dict[str, Any]:
        method, target, status = "POST", "/v1/enquiry", 200
        request = b'{"item":101,"domain":1,"subject":"37021119700101001X","rrn":"619300000418"}'
        answer = '{"code":"00","reply":"缴费正常","reference":"1-619300000418"}'.encode()
        asked = json_request_message(method, target, sm3(request))
        signature = self.switch.sign(sm3(self.switch.public_key.za + asked))
        told = json_answer_message(status, signature, sm3(answer))
        return {
            "method": method,
            "target": target,
            "request": request.decode(),
            "request_message": asked.hex(),
            "request_signature": signature.hex(),
            "status": status,
            "answer": answer.decode(),
            "answer_message": told.hex(),
            "answer_signature": self.gateway.sign(sm3(self.gateway.public_key.za + told)).hex(),
        }

    def host_messages(self) -> list[dict[str, Any]]:
        codec = Iso8583Codec(HostFormat())
        trace = Trace(RRN, RECEIVED_US, FACTS.terminal, FACTS.merchant, FACTS.acquirer)
        call = _call(farm_purchase.service, {**IMPLIED, **PURCHASE_VALUES})
        asked = request_fields(call, trace)
        answer = {number: asked[number] for number in (3, 4, 7, 11, 12, 13, 32, 37, 41, 42, 49)}
        undo = reversal_of(call, RRN, RECEIVED_US, FACTS.acquirer, "98")
        now = transmission_time(RECEIVED_US)
        rows: Sequence[tuple[str, Mapping[int, str | bytes]]] = (
            ("sign-on", {0: "0800", 7: now, 11: "000001", 70: "001"}),
            ("sign-on answer", {0: "0810", 7: now, 11: "000001", 39: "00", 70: "001"}),
            ("farm purchase", asked),
            ("farm purchase answer", {**answer, 0: "0210", 15: "0712", 38: "004711", 39: "00"}),
            ("reversal", request_fields(undo, trace)),
            ("repeated reversal", request_fields(undo, msgspec.structs.replace(trace, repeat=True))),
        )
        return [
            {
                "name": name,
                "fields": {str(number): fields[number] for number in sorted(fields)},
                "frame": codec.frame(fields).hex(),
            }
            for name, fields in rows
        ]

    def document(self) -> dict[str, Any]:
        return {
            "about": "Worked examples of PROTOCOL.md. All keys are public: never use them for anything else.",
            "keys": {
                name: {
                    "private": key.to_scalar().hex(),
                    "public": key.public_key.point.hex(),
                    "za": key.public_key.za.hex(),
                }
                for name, key in (("terminal", self.terminal), ("switch", self.switch), ("gateway", self.gateway))
            },
            "working_keys": {
                "master": MASTER_KEY.hex(),
                **dict(zip(("pin", "authentication", "data"), map(bytes.hex, WORKING_KEYS), strict=True)),
            },
            "pin": PIN.decode(),
            "binding": BINDING.hex(),
            "implied": self.shown(IMPLIED),
            "messages": self.messages(),
            "delta": self.delta(),
            "offline": self.offline(),
            "json": self.json_call(),
            "iso8583": self.host_messages(),
        }


def _call(service: Service, values: Mapping[int, Value]) -> Any:
    return service.call(
        Request(service.templates[0], values, FACTS, RECEIVED_US, BUSINESS_DAY, RRN, lambda identifier: identifier)
    )


if __name__ == "__main__":
    FILE.write_text(json.dumps(Maker().document(), ensure_ascii=False, indent=1) + "\n", "utf-8")
