"""A terminal's connection to its switch: dialled, signed in, with the keys and the certificate that it should have.

It is made when it is first needed, and again when the switch asks for a sign-in or the connection is lost. What a
terminal trades over it is ``client``'s.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from random import Random

import trio

from fengshou.codecs import DeltaWriter, MessageCodec
from fengshou.hsm.channel import TlsStream
from fengshou.hsm.x509 import Signer
from fengshou.protocol import elements as de
from fengshou.protocol.message import COMMAND_SIGN_IN, Flag, Message, Value
from fengshou.protocol.templates import KEYS, RENEWAL, SIGN_IN, Grammar
from fengshou.terminals.answers import (
    Request,
    Response,
    SignInRefused,
    Unanswered,
    Unreachable,
)
from fengshou.terminals.batch_log import BatchLog
from fengshou.terminals.identity import BATCH_MAX, BATCH_UNKNOWN, Clock, Counters, Identity
from fengshou.terminals.key_dialogue import KeyDialogue
from fengshou.terminals.key_store import KeyStore
from fengshou.terminals.link import Link, LinkLost, Pending
from fengshou.terminals.patience import Patience
from fengshou.terminals.receipt import Receipt, ReceiptInvalid
from fengshou.terminals.renewal_dialogue import RenewalDialogue

BATCH_DIFFERS = "77"


class Station:
    """What the client stands on: one connection at a time, and whose turn it is to send on it."""

    def __init__(
        self, dial: Callable[[], Awaitable[TlsStream]], nursery: trio.Nursery, identity: Identity, signer: Signer,
        counters: Counters, grammar: Grammar, patience: Patience, clock: Clock, random: Random, delta: bool = True,
        log: BatchLog | None = None, keys: KeyStore | None = None, renewal: RenewalDialogue | None = None,
    ) -> None:  # fmt: skip
        self.identity = identity
        self.grammar = grammar
        self._dial = dial
        self._nursery = nursery
        self._signer = signer
        self._counters = counters
        self._patience = patience
        self._clock = clock
        self._random = random
        self._in_delta = delta
        self.log = log or BatchLog()
        self._codec = MessageCodec(grammar)
        self._by_name = {template.name: template for template in grammar.templates.values()}
        self._signed = {template.id: template.signed for template in grammar.templates.values()}
        self._link: Link | None = None
        self._must_sign_in = False
        self._keys = KeyDialogue(keys, identity.terminal)
        self._renewal = renewal
        # Held from numbering a request until its last byte is out, and through a sign-in: what is signed depends on it.
        self._turn = trio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Link]:
        """A connection that is signed in, on which nobody else sends meanwhile. Raises Unreachable, SignInRefused."""
        async with self._turn:
            yield await self._ready()

    async def _ready(self) -> Link:
        """A connection that is signed in, in the batch of the counters."""
        link = await self._linked()
        implied = link.session.implied
        if self._must_sign_in or implied.get(de.BATCH) != self._counters.batch:
            response = await self._sign_in(link)
            if not response.approved:
                raise SignInRefused(response)
        if self._keys.must_ask:
            await self._ask_keys(link)
        if self._renewal is not None and self._renewal.must_ask:
            link = await self._ask_certificate(link, self._renewal)
        return link

    async def _linked(self) -> Link:
        if self._link is None or self._link.lost:
            try:
                with trio.fail_after(self._patience.connect_s):
                    stream = await self._dial()
            except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
                raise Unreachable(str(error) or "no connection in time") from None
            delta = DeltaWriter(self._codec) if self._in_delta else None
            self._link = Link(stream, self._codec, self._signer, self._signed, delta)
            self._nursery.start_soon(self._link.run)
        return self._link

    async def _sign_in(self, link: Link) -> Response:
        response = await self._sign_in_once(link) if self._counters.batch else None
        if response is None or response.code == BATCH_DIFFERS:
            response = await self._sign_in_once(link, ask=True)
            current = response.values.get(de.BATCH)
            if response.approved and isinstance(current, int):
                # Which STANs of the current batch were used is not known here; of the next one, none.
                self._counters.begin(current % BATCH_MAX + 1)
                response = await self._sign_in_once(link)
        return response

    async def _sign_in_once(self, link: Link, *, ask: bool = False) -> Response:
        """Sign in with the batch of the counters, or ask for the current one."""
        batch, stan = self._counters.next()
        if ask:
            batch = BATCH_UNKNOWN
        values = {**self.identity.sign_in_values(self._clock(), batch, stan), **self._keys.stated}
        request = Request(SIGN_IN, values, batch)
        response = await self._settled(link, request)
        if response.approved:
            link.session.signed_in(
                Message(SIGN_IN.id, 0, 0, dict(request.values)), Message(SIGN_IN.id, 0, 0, dict(response.values))
            )
            self._must_sign_in = response.command == COMMAND_SIGN_IN
            self._keys.signed_in(response.values)
        return response

    async def _ask_certificate(self, link: Link, renewal: RenewalDialogue) -> Link:
        """Ask for another certificate; when there is one, connect and sign in with it. A refusal is left at that.

        Raises Unreachable, SignInRefused.
        """
        _, stan = self._counters.next()
        wish = {de.STAN: stan, **renewal.wish(self._signer)}
        answer = await self._settled(link, Request(RENEWAL, wish, self._counters.batch))
        signer = renewal.take(answer.values)
        if signer is None:
            return link
        self._signer = signer
        with trio.move_on_after(self._patience.answer_s):
            await link.quiet()  # nobody sends meanwhile, and what is on its way is answered
        link.lose("another certificate takes its place")
        return await self._ready()

    async def _ask_keys(self, link: Link) -> None:
        """Raises Unreachable."""

        async def ask(stated: Mapping[int, Value]) -> Mapping[int, Value]:
            _, stan = self._counters.next()
            request = Request(KEYS, {de.STAN: stan, **stated}, self._counters.batch)
            return (await self._settled(link, request)).values

        await self._keys.ask(link.binding, ask)

    async def _settled(self, link: Link, request: Request) -> Response:
        """The answer to a message of the session itself. Raises Unreachable; the connection is then given up."""
        try:
            pending = await self._post(link, request)
            return await self.answer(link, request, pending, False)
        except Unanswered as error:
            link.lose(str(error))
            raise Unreachable(f"the {request.template.name} was not answered: {error}") from None

    async def _post(self, link: Link, request: Request, *, repeat: bool = False, receipt: bool = False) -> Pending:
        try:
            with trio.fail_after(self._patience.answer_s):
                return await link.post(request.template.id, request.values, repeat=repeat, receipt=receipt)
        except LinkLost as error:
            raise Unanswered(request, str(error)) from None
        except trio.TooSlowError:
            raise Unanswered(request, "the switch takes no bytes") from None

    async def answer(self, link: Link, request: Request, pending: Pending, receipt: bool) -> Response:
        """Wait for the answer to what was posted on a link. Raises Unanswered."""
        try:
            with trio.fail_after(self._patience.answer_s):
                message = await pending.response()
            if message.command == COMMAND_SIGN_IN and link is self._link:
                self._must_sign_in = True
            code = str(message.values[de.RESPONSE_CODE])
            self._keys.answered(message.command, code)
            if self._renewal is not None:
                self._renewal.commanded(message.command)
            self.log.note(request.template, request.batch, request.values, code)
            return Response(
                request,
                message.values,
                message.command,
                self._codec.encode_body(message.template, True, message.values),
                await self._receipt(pending) if receipt and message.flags & Flag.RECEIPT else None,
            )
        except LinkLost as error:
            raise Unanswered(request, str(error)) from None
        except trio.TooSlowError:
            raise Unanswered(request, "no answer in time") from None
        finally:
            link.forget(pending)

    async def _receipt(self, pending: Pending) -> Receipt | None:
        try:
            with trio.fail_after(self._patience.receipt_s):
                return Receipt.from_values((await pending.receipt()).values)
        except (LinkLost, trio.TooSlowError, ReceiptInvalid):
            return None  # the answer counts; the receipt can be asked for later

    def drop(self, reason: str) -> None:
        """Give up a connection that did not answer; it may be half open."""
        if self._link is not None:
            self._link.lose(reason)
