"""Trading without coverage: purchases are stored, and later uploaded under one signature for many.

Theory of operation. A stored purchase has no key. With coverage some of them get keys in the current batch, are signed
together and kept so (``seal``) before anything is sent. From then on only these very bytes are sent, as often as it
takes, until each item has its final answer; a cut at any moment loses nothing and does nothing twice. When the batch
was closed meanwhile, receipts tell what arrived, and what did not goes back among the stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

import trio

from fengshou.codecs import DeltaWriter, MessageCodec, merkle_root, sm3
from fengshou.hsm.x509 import Signer
from fengshou.protocol import elements as de
from fengshou.protocol import offline
from fengshou.protocol.delta import seconds_of, time_of
from fengshou.protocol.limits import OFFLINE_ITEMS_MAX
from fengshou.protocol.message import Value
from fengshou.protocol.record import parse_record
from fengshou.protocol.templates import RECEIPT, Grammar
from fengshou.terminals.answers import Request, Response, Unanswered, Unreachable
from fengshou.terminals.client import TerminalClient
from fengshou.terminals.identity import Clock, Counters, china_now, local_values
from fengshou.terminals.link import Link, LinkLost, Pending
from fengshou.terminals.offline_store import OfflineStore, Sealed, Stored

_SIGN_IN_FIRST = ("22", "77")
_NOTHING_DONE = ("65", "96")  # without an RRN: too much at once, or nothing was written down
_NOT_KNOWN = "25"
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.2, 10.0
_POST_S = 30.0


@dataclass(frozen=True, slots=True)
class Uploaded:
    """The final answer to a stored purchase. ``rrn`` is None when the switch refused it before it became one."""

    number: int
    batch: int
    stan: int
    code: str
    rrn: int | None


def keep(
    store: OfflineStore,
    codec: MessageCodec,
    grammar: Grammar,
    template: str,
    values: Mapping[int, Value],
    clock: Clock = china_now,
) -> int:
    """See ``Offline.store``, for which no client is needed."""
    found = {known.name: known for known in grammar.templates.values()}[template]
    filled: dict[int, Value] = {**local_values(clock()), **values}
    if not found.operators:
        raise ValueError(f"{template} cannot be made without coverage")
    time = filled[de.LOCAL_TIME]
    if not isinstance(time, int) or time_of(seconds_of(time)) != time:
        raise ValueError("local time is no time of day")
    codec.encode_body(found.id, False, {**filled, de.STAN: 1})
    return store.store(found.id, filled)


class Offline:
    """Stores purchases of a terminal and uploads them through its client."""

    def __init__(
        self,
        client: TerminalClient,
        store: OfflineStore,
        signer: Signer,
        counters: Counters,
        clock: Clock = china_now,
        random: Random | None = None,
    ) -> None:
        """``signer`` and ``counters`` are those of the client; ``random`` spreads attempts."""
        self._client = client
        self._store = store
        self._signer = signer
        self._counters = counters
        self._clock = clock
        self._random = random or Random()
        self._codec = MessageCodec(client.grammar)

    def store(self, template: str, values: Mapping[int, Value]) -> int:
        """Keep a purchase; durable when this returns its number. Local time and date are filled in.

        Raises KeyError for an unknown template, ValueError for one that cannot be uploaded or a local time that is
        none, and UntrustedBytesError.
        """
        return keep(self._store, self._codec, self._client.grammar, template, values, self._clock)

    async def upload(self, patience_s: float = 90.0) -> list[Uploaded]:
        """Upload everything that is stored; what has its final answer within the time is returned.

        The rest stays for the next time. Raises SignInRefused, and Unreachable when nothing could be sent.
        """
        done: list[Uploaded] = []
        unreachable: Unreachable | None = None
        delay_s, end = _FIRST_DELAY_S, trio.current_time() + patience_s
        sent: set[bytes] = set()
        while len(self._store) and trio.current_time() < end:
            before = len(done)
            try:
                if not self._store.sealed():
                    await self._seal()
                for sealed in self._store.sealed():
                    await self._send(sealed, done, repeat=sealed.signature in sent)
                    sent.add(sealed.signature)
                unreachable = None
            except Unanswered as error:
                self._client.drop(str(error))
            except Unreachable as error:
                unreachable = error
            if len(done) == before and len(self._store):
                await trio.sleep(delay_s * self._random.uniform(0.5, 1.0))
                delay_s = min(2 * delay_s, _LONGEST_DELAY_S)
        if unreachable is not None and not done:
            raise unreachable
        return done

    # Inside

    async def _seal(self) -> None:
        """Give the oldest stored purchases of one template their keys, and sign them."""
        waiting = self._store.waiting()
        items = [item for item in waiting if item.template == waiting[0].template][:OFFLINE_ITEMS_MAX]
        async with self._client.turn() as link:
            keyed = self._keyed(items)
            batch, template = self._counters.batch, items[0].template
            packed = offline.pack_items(self._codec, DeltaWriter(self._codec), template, keyed)
            leaves = [offline.leaf(self._codec, template, values, link.session.implied) for values in keyed]
            digest = sm3(self._signer.public_key.za + offline.signed_part(merkle_root(leaves), len(leaves)))
            self._store.seal(batch, [item.number for item in items], packed, self._signer.sign(digest))

    def _keyed(self, items: list[Stored]) -> list[dict[int, Value]]:
        batch = self._counters.batch
        keyed = [{**item.values, de.STAN: self._counters.next()[1]} for item in items]
        if self._counters.batch != batch:
            raise Unreachable("the STANs of the batch are used up; the next attempt is in the next batch")
        return keyed

    async def _send(self, sealed: Sealed, done: list[Uploaded], *, repeat: bool) -> None:
        """Send an upload and note what is final. Raises Unanswered."""
        template_id, items = self._codec.decode_items(sealed.packed)
        template = self._client.grammar.templates[template_id]
        requests = [Request(template, values, sealed.batch) for values in items]
        async with self._client.turn() as link:
            open_batch = sealed.batch == self._counters.batch
            if open_batch:
                waiting = await self._post(link, sealed, requests, repeat=repeat)
        if not open_batch:
            await self._ask(sealed, items, done)
            return
        try:
            for number, request, pending in zip(sealed.numbers, requests, waiting, strict=True):
                response = await self._client.answer(link, request, pending, False)
                if not _final(response):
                    continue
                if pending.template != template_id:  # refused as a whole, under its first item
                    await self._ask(sealed, items, done)
                    return
                self._note(Uploaded(number, request.batch, request.stan, response.code, response.rrn), done)
        finally:
            for pending in waiting:
                link.forget(pending)

    async def _post(self, link: Link, sealed: Sealed, requests: list[Request], *, repeat: bool) -> list[Pending]:
        try:
            with trio.fail_after(_POST_S):
                return await link.post_upload(
                    requests[0].template.id, sealed.packed, len(requests), sealed.signature, repeat=repeat
                )
        except LinkLost as error:
            raise Unanswered(requests[0], str(error)) from None
        except trio.TooSlowError:
            raise Unanswered(requests[0], "the switch takes no bytes") from None

    def _note(self, uploaded: Uploaded, done: list[Uploaded]) -> None:
        if self._store.is_open(uploaded.number):
            self._store.answered(uploaded.number, uploaded.code)
            done.append(uploaded)

    async def _ask(self, sealed: Sealed, items: list[dict[int, Value]], done: list[Uploaded]) -> None:
        """What became of an upload that cannot be sent again: its batch is closed, or its signature is no good now.

        Raises Unanswered.
        """
        for number, values in zip(sealed.numbers, items, strict=True):
            if not self._store.is_open(number):
                continue
            named = {de.ORIGINAL_BATCH: sealed.batch, de.ORIGINAL_STAN: values[de.STAN]}
            response = await self._client.send(RECEIPT.name, named)
            record = response.values.get(de.RECORD)
            if isinstance(record, bytes):
                found = parse_record(record)
                self._note(Uploaded(number, found.batch, found.stan, found.code, found.rrn or None), done)
                self._client.log.note(self._client.grammar.templates[found.template], found.batch, values, found.code)
            elif response.code == _NOT_KNOWN:
                self._store.returned(number)


def _final(response: Response) -> bool:
    """Whether this is the last word under its key: with an RRN it is, without one it may be "not now"."""
    if response.rrn is not None:
        return True
    return response.action != "B" and response.code not in (*_SIGN_IN_FIRST, *_NOTHING_DONE)
