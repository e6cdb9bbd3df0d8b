"""The client: what a program on a terminal uses to trade.

Theory of operation. A request gets its key (batch and STAN) before it is sent and keeps it for ever; whatever happens
to the connection, the same key with the same body may be sent again, because the switch answers a repeat with the
stored answer and does nothing twice. ``send`` and ``retry`` are the steps; ``trade`` is the policy over them, which
ends with an answer or says that the outcome is not known here. The connection and the sign-in are made when they are
first needed, and again when the switch asks for it or the connection is lost.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from random import Random

import trio
from OpenSSL import SSL

from fengshou.hsm.custody import PinFormat
from fengshou.hsm.memory import wipe
from fengshou.hsm.x509 import Signer
from fengshou.protocol import elements as de
from fengshou.protocol.codes import RESYNC
from fengshou.protocol.message import Value
from fengshou.protocol.templates import ECHO, RECEIPT, SIGN_OFF, SIGNER, Grammar
from fengshou.terminals.answers import (
    BatchClosed,
    OutcomeUnknown,
    Request,
    Response,
    SignInRefused,
    TerminalError,
    Unanswered,
    Unreachable,
)
from fengshou.terminals.batch_log import BatchLog
from fengshou.terminals.dialler import Dialler
from fengshou.terminals.home import Home
from fengshou.terminals.identity import Clock, Counters, Identity, china_now, local_values
from fengshou.terminals.key_store import KeyStore
from fengshou.terminals.patience import Patience
from fengshou.terminals.receipt import Exchange, Receipt, ReceiptInvalid
from fengshou.terminals.renewal_dialogue import RenewalDialogue
from fengshou.terminals.settlement import Settled, settle_batches
from fengshou.terminals.station import BATCH_DIFFERS, Station

__all__ = [
    "BatchClosed", "OutcomeUnknown", "Patience", "Request", "Response", "SignInRefused", "TerminalClient",
    "TerminalError", "Unanswered", "Unreachable", "connect",
]  # fmt: skip

# The switch did nothing and wants a new sign-in first.
_SIGN_IN_FIRST = ("22", BATCH_DIFFERS)


class TerminalClient(Station):
    """A terminal that is on. Made by ``connect``; any number of tasks may trade at once."""

    # The steps

    async def sign_in(self) -> Response:
        """Connect if there is no connection, and sign in. Raises Unreachable, SignInRefused, Unanswered."""
        async with self._turn:
            return await self._sign_in(await self._linked())

    async def sign_off(self) -> None:
        """End the session in good order, if there is one. Raises Unanswered."""
        if self._link is not None and not self._link.lost and self._link.session.implied:
            await self.send(SIGN_OFF.name, {})
            self._must_sign_in = True

    async def send(self, template: str, values: Mapping[int, Value], *, receipt: bool = False) -> Response:
        """Send a new request of the named template and wait for its answer.

        STAN, local time and date are filled in. Raises Unreachable, SignInRefused (nothing was sent), Unanswered, and
        UntrustedBytesError when a value is outside the grammar.
        """
        try:
            return await self._exchange(self.request(template, values), receipt=receipt, repeat=False)
        except BatchClosed:  # the sign-in that came first opened another batch; nothing was sent yet
            return await self._exchange(self.request(template, values), receipt=receipt, repeat=False)

    async def retry(self, request: Request, *, receipt: bool = False) -> Response:
        """Send the same key with the same body again, under a new sequence number and signature.

        Raises as ``send`` does, and BatchClosed.
        """
        return await self._exchange(request, receipt=receipt, repeat=True)

    async def receipt(self, batch: int, stan: int) -> Receipt:
        """The receipt of an earlier transaction of this terminal; verify it with ``verify_receipt``.

        Raises as ``send`` does, and ReceiptInvalid when the switch has none (yet).
        """
        response = await self.send(RECEIPT.name, {de.ORIGINAL_BATCH: batch, de.ORIGINAL_STAN: stan})
        if not response.approved:
            raise ReceiptInvalid(f"{response.code}: {response.text()}")
        return Receipt.from_values(response.values)

    async def signer(self) -> Mapping[int, Value]:
        """What the switch says of the key that signs receipts now; ``SignerDialogue`` asks it. Raises as ``send``."""
        return (await self.send(SIGNER.name, {})).values

    async def echo(self) -> Response:
        """Ask whether the switch is there (network management 301)."""
        return await self.send(ECHO.name, {de.NETWORK_CODE: 301})

    async def pin(self, digits: bytearray, pan: str, form: PinFormat = PinFormat.ISO_4) -> dict[int, Value]:
        """What a request must carry beside the card for its PIN, ASCII digits that are wiped.

        Signs in first when the terminal has no keys yet. Raises Unreachable, SignInRefused, NoKeys, PinBlockError.
        """
        try:
            async with self._turn:
                await self._ready()
            return self._keys.pin_block(digits, pan, form)
        finally:
            wipe(digits)

    async def sealed(self, values: Mapping[int, Value]) -> Mapping[int, Value]:
        """The values of a request with what identifies a person under the data key, when the terminal has one.

        Raises Unreachable, SignInRefused.
        """
        async with self._turn:
            await self._ready()
        return self._keys.sealed(values)

    # The policy

    async def trade(self, template: str, values: Mapping[int, Value], *, receipt: bool = False) -> Response:
        """Send a request and see it through lost connections, restarts of the switch and its wish for patience.

        The answer may be any code of class A, C, D or E. Raises Unreachable or SignInRefused when it is certain that
        nothing was done, OutcomeUnknown when it is not. Cancelling it leaves the outcome unknown.
        """
        request = self.request(template, values)
        doubtful = False  # an attempt went out and its fate is not known
        why: TerminalError = Unreachable("no connection in time")
        delay_s = self._patience.first_delay_s
        last_attempt = trio.current_time() + self._patience.trade_s
        while trio.current_time() <= last_attempt:
            try:
                response = await self._exchange(request, receipt=receipt, repeat=doubtful)
            except Unanswered as error:
                doubtful = True
                self.drop(str(error))
            except BatchClosed:
                if doubtful:
                    break
                request = self.request(template, values)
                continue
            except Unreachable as error:
                why = error
            except SignInRefused as error:
                why = error
                if error.response.action == "D":  # an operator must act: waiting does not help
                    break
            else:
                if response.code in _SIGN_IN_FIRST:
                    self._must_sign_in = True
                elif response.action == "B":
                    doubtful = True
                else:
                    return response
            # Half of the delay is drawn, so that terminals which lost the switch together do not come back together.
            await trio.sleep(delay_s * self._random.uniform(0.5, 1.0))
            delay_s = min(2 * delay_s, self._patience.longest_delay_s)
        if doubtful:
            raise OutcomeUnknown(request)
        raise why

    async def settle(self) -> list[Settled]:
        """Settle every batch in which something counts, or else the current one; it begins the next batch.

        Where totals differ the transactions are told, so that the bank can see which. May be asked again whenever it
        did not come to its end. Raises as ``trade`` does.
        """
        return await settle_batches(self.log, self._counters, self._settle_once)

    async def _settle_once(self, template: str, values: Mapping[int, Value]) -> tuple[str, Mapping[int, Value]]:
        try:
            response = await self.trade(template, values)
        except OutcomeUnknown:  # perhaps the batch was closed and the answer lost: under any key the answer is the same
            response = await self.trade(template, values)
        return response.code, response.values

    def request(self, template: str, values: Mapping[int, Value]) -> Request:
        """A request under a new key, not yet sent. Raises KeyError for an unknown template."""
        found = self._by_name[template]
        keys = {field.key: field.required for field in found.request}
        batch, stan = self._counters.next() if de.STAN in keys else (self._counters.batch, 0)
        filled: dict[int, Value] = {de.STAN: stan, **local_values(self._clock())}
        return Request(found, {**{key: filled[key] for key in filled if keys.get(key)}, **values}, batch)

    def exchange_of(self, response: Response) -> Exchange:
        """What the receipt of a response must be about; for ``verify_receipt``."""
        request = response.request
        return Exchange(
            self.identity.terminal,
            self.identity.merchant,
            request.batch,
            request.stan,
            request.template.id,
            self._codec.encode_body(request.template.id, False, request.values),
            response.body,
        )

    # Inside

    async def _exchange(self, request: Request, *, receipt: bool, repeat: bool) -> Response:
        response = await self._exchange_once(request, receipt=receipt, repeat=repeat)
        if response.code == RESYNC:  # nothing was done; the session knows that its bases are lost, and sends the whole
            response = await self._exchange_once(request, receipt=receipt, repeat=repeat)
        return response

    async def _exchange_once(self, request: Request, *, receipt: bool, repeat: bool) -> Response:
        async with self._turn:
            link = await self._ready()
            if request.stan and request.batch != self._counters.batch:
                raise BatchClosed(request)
            pending = await self._post(link, request, repeat=repeat, receipt=receipt)
        return await self.answer(link, request, pending, receipt)


@asynccontextmanager
async def connect(
    address: tuple[str, int], context: SSL.Context, peer_name: str, identity: Identity, signer: Signer,
    counters: Counters, grammar: Grammar, patience: Patience | None = None, clock: Clock = china_now,
    delta: bool = True, log: BatchLog | None = None, keys: KeyStore | None = None, home: Home | None = None,
) -> AsyncIterator[TerminalClient]:  # fmt: skip
    """A client of the switch at ``address``, until the block ends. The first request opens the connection.

    ``context`` is ``hsm.channel.client_context`` with the terminal's certificate; ``peer_name`` is the DNS name or IP
    address in that of the switch; ``signer`` is the terminal's secure medium; ``log`` is what counts in its batches,
    without one only what this client does; ``keys`` are the terminal's working keys, without which it sends no PIN;
    ``home`` is where certificate and key are replaced when the switch says so, without one they are not. Without
    ``delta`` every request is sent whole; else as its difference to earlier ones where the switch grants that.
    """

    patience = patience or Patience()
    dialler = Dialler(address, context, peer_name, identity.terminal)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield TerminalClient(
                dialler.dial, nursery, identity, signer, counters, grammar, patience, clock, Random(), delta, log, keys,
                RenewalDialogue(home, dialler, patience.renewal_s) if home else None,
            )  # fmt: skip
        except Exception as error:
            failure = error  # raised outside the nursery, which would wrap it into a group
        finally:
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
