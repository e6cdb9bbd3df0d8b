"""Purchases made without coverage: one signature for many, each its own transaction, whatever is cut off and when."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from fengshou.codecs import BadSignature, DeltaWriter, MessageCodec, PrivateKey, merkle_root, merkle_root_from_path, sm3
from fengshou.protocol import elements as de
from fengshou.protocol import offline
from fengshou.protocol.limits import OFFLINE_ITEMS_MAX
from fengshou.protocol.message import Message
from fengshou.protocol.record import RecordKind
from fengshou.protocol.templates import OFFLINE_UPLOAD
from fengshou.switch.cli.pos import pos
from fengshou.terminals.identity import Counters
from fengshou.terminals.offline import Offline, Uploaded
from fengshou.terminals.offline_store import OfflineStore
from tests.switch.line import Line, code_of
from tests.switch.town import FARMER, TERMINALS, Town, purchase

FARM_PURCHASE = 1


@pytest.fixture
def line(town: Town) -> Iterator[Line]:
    with Line(town, TERMINALS[5]).sign_in() as line:
        yield line


def bought(line: Line, count: int, **changed: int) -> list[dict[int, int | str | bytes]]:
    """Purchases with keys of their own."""
    items = []
    for number in range(count):
        line.last_stan += 1
        items.append({**purchase(100 + number, LOCAL_TIME=70_000 + number % 60, **changed), de.STAN: line.last_stan})
    return items


def sealed(line: Line, items: list[dict[int, int | str | bytes]], signer: PrivateKey | None = None) -> Message:
    """An upload of them, numbered and signed."""
    packed = offline.pack_items(line.codec, DeltaWriter(line.codec), FARM_PURCHASE, items)
    leaves = [offline.leaf(line.codec, FARM_PURCHASE, values, line.session.implied) for values in items]
    signer = signer or line.home.signer()
    za = line.home.signer().public_key.za
    signature = signer.sign(sm3(za + offline.signed_part(merkle_root(leaves), len(leaves))))
    return line.session.prepare_upload(packed, len(items), signature)


def upload(line: Line, message: Message, count: int) -> list[Message]:
    line.post(line.codec.encode(message))
    return [line.answer(message.sequence + index) for index in range(count)]


def test_each_item_is_a_transaction_of_its_own_that_the_auditor_can_prove(town: Town, line: Line) -> None:
    first = town.next_record()
    items = bought(line, OFFLINE_ITEMS_MAX)
    items[3][de.UNIT_PRICE] = 1  # not in the band of its product: this one is declined, for itself
    items[3][de.AMOUNT] = 1
    answers = upload(line, sealed(line, items), len(items))
    assert [code_of(answer) for answer in answers] == ["61" if index == 3 else "00" for index in range(20)]
    assert len({answer.values[de.RRN] for answer in answers}) == 20
    intents = town.records(first, RecordKind.INTENT)
    assert [record.stan for record in intents] == [item[de.STAN] for item in items]
    assert all(len(record.evidence) <= 255 for record in intents)
    line.sign_in_to(line.batch)
    line.last_stan += 1
    assert code_of(line.ask("farm-purchase", purchase())) == "00"  # sequences go on behind the upload's
    town.settle()
    town.require_truth()


def test_evidence_of_one_item_does_not_fit_another(town: Town, line: Line) -> None:
    first = town.next_record()
    upload(line, sealed(line, bought(line, 5)), 5)
    key = line.home.signer().public_key
    records = town.records(first, RecordKind.INTENT)
    assert len(records) == 5
    for record in records:
        for other in records:
            signature, index, count, path = offline.parse_evidence(other.evidence)
            root = merkle_root_from_path(town.recorder.leaf(record), index, count, path)
            digest = sm3(key.za + offline.signed_part(root, count))
            if record is other:
                key.verify(digest, signature)
            else:
                with pytest.raises(BadSignature):
                    key.verify(digest, signature)


def test_an_upload_that_comes_again_is_answered_as_before(town: Town, line: Line) -> None:
    first = town.next_record()
    items = bought(line, 7)
    message = sealed(line, items)
    before = upload(line, message, 7)
    for _ in range(3):
        again = line.session.prepare_upload(message.values[de.OFFLINE_ITEMS], 7, message.signature, repeat=True)
        assert [line.body(answer) for answer in upload(line, again, 7)] == [line.body(answer) for answer in before]
    with Line(town, TERMINALS[5]).sign_in_to(line.batch) as other:  # the signature is bound to no connection
        again = other.session.prepare_upload(message.values[de.OFFLINE_ITEMS], 7, message.signature)
        assert [line.body(answer) for answer in upload(other, again, 7)] == [line.body(answer) for answer in before]
        # Nor does the one by one form do anything twice.
        assert other.body(other.ask("farm-purchase", items[2])) == line.body(before[2])
    assert len(town.records(first, RecordKind.INTENT)) == 7


def test_twins_in_one_upload_are_one_transaction(town: Town, line: Line) -> None:
    first = town.next_record()
    items = bought(line, 3)
    items[1] = items[0]
    items[2] = {**items[2], de.STAN: items[0][de.STAN]}
    codes = sorted(code_of(answer) for answer in upload(line, sealed(line, items), 3))
    assert codes == ["00", "09", "94"]
    assert len(town.records(first, RecordKind.INTENT)) == 1


def test_every_kind_of_damage_refuses_the_whole_under_its_first_item(town: Town, line: Line) -> None:
    first, items = town.next_record(), bought(line, 4)
    stranger = PrivateKey.generate()
    packed = offline.pack_items(line.codec, DeltaWriter(line.codec), FARM_PURCHASE, items)
    signature = sealed(line, items).signature
    cases = [
        ("63", packed, stranger.sign(bytes(32))),
        ("63", packed, signature[:-1] + bytes((signature[-1] ^ 1,))),
        ("63", offline.pack_items(line.codec, DeltaWriter(line.codec), FARM_PURCHASE, items[:3]), signature),
        ("63", offline.pack_items(line.codec, DeltaWriter(line.codec), FARM_PURCHASE, items[::-1]), signature),
        ("30", packed + b"\x00", signature),
        ("30", packed[:-1], signature),
        ("30", b"", signature),
        ("30", b"\x04" + packed[1:], signature),  # balances have no delta form
        ("30", b"\x3e" + packed[1:], signature),
    ]
    for code, body, signed in cases:
        message = line.session.prepare_upload(body, 20, signed)
        line.post(line.codec.encode(message))
        answer = line.answer(message.sequence)
        assert (answer.template, code_of(answer)) == (OFFLINE_UPLOAD.id, code)
    assert not town.records(first, RecordKind.INTENT)


def test_every_single_bit_of_the_items_counts(town: Town, line: Line) -> None:
    first, items = town.next_record(), bought(line, 3)
    message = sealed(line, items)
    packed = message.values[de.OFFLINE_ITEMS]
    assert isinstance(packed, bytes)
    for bit in range(len(packed) * 8):
        bent = bytearray(packed)
        bent[bit // 8] ^= 0x80 >> bit % 8
        again = line.session.prepare_upload(bytes(bent), 20, message.signature)
        line.post(line.codec.encode(again))
        assert code_of(line.answer(again.sequence)) in ("30", "63")
    assert not town.records(first, RecordKind.INTENT)


# The terminal's side -------------------------------------------------------------------------------------------------


def trade_offline(
    town: Town, terminal: str, path: Path, count: int, counters: Counters, **patience: float
) -> list[Uploaded]:
    """Store so many purchases and upload them."""

    async def run() -> list[Uploaded]:
        with OfflineStore(path, town.catalogue.codec) as store:
            async with town.client(terminal, counters, **patience) as client:
                mobile = Offline(client, store, town.home(terminal).signer(), counters)
                for number in range(count):
                    mobile.store("farm-purchase", purchase(10 + number))
                done = await mobile.upload()
                assert not len(store)
                return done

    return trio.run(run)


def test_what_was_stored_is_uploaded_and_accounted_for(town: Town, tmp_path: Path) -> None:
    first, path = town.next_record(), tmp_path / "offline.log"
    done = trade_offline(town, TERMINALS[6], path, 45, Counters())
    assert [each.number for each in done] == list(range(1, 46))
    assert {each.code for each in done} == {"00"}
    assert len({each.rrn for each in done}) == 45
    assert len(town.records(first, RecordKind.INTENT)) == 45
    assert path.read_bytes() == b""
    town.settle()
    town.require_truth()


def test_a_batch_that_was_closed_meanwhile_tells_by_receipts_what_arrived(town: Town, tmp_path: Path) -> None:
    """Two uploads are sealed, one of them arrives and its answers are lost; then the terminal begins another batch."""
    terminal, path = TERMINALS[7], tmp_path / "offline.log"
    first = town.next_record()

    async def run() -> tuple[list[Uploaded], int]:
        counters = Counters()
        with OfflineStore(path, town.catalogue.codec) as store:
            async with town.client(terminal, counters) as client:
                mobile = Offline(client, store, town.home(terminal).signer(), counters)
                for number in range(6):
                    mobile.store("farm-purchase", purchase(10 + number))
                await mobile._seal()
                (one,) = store.sealed()
                async with client.turn() as link:
                    await link.post_upload(FARM_PURCHASE, one.packed, 6, one.signature)
                await trio.to_thread.run_sync(town.settle)
                for number in range(3):
                    mobile.store("farm-purchase", purchase(20 + number))
                await mobile._seal()  # this one is never sent
                counters.begin(counters.batch + 1)
                return await mobile.upload(), len(store)

    done, left = trio.run(run)
    assert left == 0
    assert sorted(each.number for each in done) == list(range(1, 10))
    assert {each.code for each in done} == {"00"}
    assert len(town.records(first, RecordKind.INTENT)) == 9


def test_the_link_is_cut_again_and_again(town: Town, tmp_path: Path) -> None:
    """Connections that die at any moment, also between sending and hearing: each purchase is done once."""
    terminal, path, draw = TERMINALS[8], tmp_path / "offline.log", Random(11)
    first = town.next_record()

    async def run() -> list[Uploaded]:
        counters = Counters()
        with OfflineStore(path, town.catalogue.codec) as store:
            async with town.client(terminal, counters, answer_s=3.0) as client:
                mobile = Offline(client, store, town.home(terminal).signer(), counters)
                for number in range(60):
                    mobile.store("farm-purchase", purchase(10 + number))
                async with trio.open_nursery() as nursery:

                    async def cut() -> None:
                        for _ in range(12):
                            await trio.sleep(draw.uniform(0.005, 0.08))
                            client.drop("cut")

                    nursery.start_soon(cut)
                    return await mobile.upload()

    done = trio.run(run)
    assert sorted(each.number for each in done) == list(range(1, 61))
    assert {each.code for each in done} == {"00"}
    assert len(town.records(first, RecordKind.INTENT)) == 60
    town.settle()
    town.require_truth()


def test_an_upload_cut_at_any_byte_is_taken_whole_or_not_at_all(town: Town) -> None:
    codec: MessageCodec = town.catalogue.codec
    first = town.next_record()
    with Line(town, TERMINALS[9]).sign_in() as line:
        batch = line.batch
        message = sealed(line, bought(line, 3))
    frame = codec.encode(message)
    for cut in range(0, len(frame), 7):
        with Line(town, TERMINALS[9]).sign_in_to(batch) as line:
            line.session._sequence = message.sequence + 10
            again = line.session.prepare_upload(message.values[de.OFFLINE_ITEMS], 3, message.signature)
            line.post(codec.encode(again)[:cut])
    assert not town.records(first, RecordKind.INTENT)
    with Line(town, TERMINALS[9]).sign_in_to(batch) as line:
        again = line.session.prepare_upload(message.values[de.OFFLINE_ITEMS], 3, message.signature, repeat=True)
        assert {code_of(answer) for answer in upload(line, again, 3)} == {"00"}
    assert len(town.records(first, RecordKind.INTENT)) == 3


def test_at_the_command_line(town: Town) -> None:
    home = str(town.folder / "terminals" / TERMINALS[10])
    goods = ["--product", "1", "--variety", "3", "--grade", "2", "--price", "96.50", "--farmer"]

    def typed(*arguments: str) -> Any:
        result = CliRunner().invoke(pos, [*arguments, home])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    for number in (1, 2, 3):
        said = typed("purchase", *goods, FARMER, "--weight", f"{number}.5", "--offline", "--json", "--home")
        assert said == {"number": number, "waiting": number}
    said = typed("upload", "--json", "--home")
    assert [row["code"] for row in said["uploaded"]] == ["00"] * 3
    assert said["waiting"] == 0
    assert typed("upload", "--json", "--home") == {"uploaded": [], "waiting": 0}
