"""A simulated terminal's link to the switch: up, signed in and with its keys, or made so again."""

import asyncio
from collections.abc import Mapping
from functools import partial

from fengshou.codecs import DeltaWriter, MessageCodec
from fengshou.hsm.x509 import Signer
from fengshou.protocol import elements as de
from fengshou.protocol.codes import APPROVED, action_of
from fengshou.protocol.message import COMMAND_SIGN_IN, Message, Value
from fengshou.protocol.session import TerminalSession
from fengshou.protocol.templates import KEYS, SIGN_IN, SIGNER, Grammar
from fengshou.terminals.fleet_link import FleetLink, LinkLost
from fengshou.terminals.home import Home
from fengshou.terminals.identity import BATCH_MAX, BATCH_UNKNOWN, Counters, china_now
from fengshou.terminals.key_dialogue import KeyDialogue
from fengshou.terminals.tally import Tally

# The answer comes after the switch's own deadline for back ends at the latest.
ANSWER_S = 30.0

_BATCH_DIFFERS = "77"
SIGN_IN_FIRST = ("22", _BATCH_DIFFERS)


class SignInRefused(Exception):
    """The switch refused the sign-in for good; the text is its code."""


class FleetSession:
    """Whoever has ``turn`` may wait for ``ready``; what is sent is numbered in the order in which it leaves."""

    def __init__(
        self, home: Home, grammar: Grammar, codec: MessageCodec, counters: Counters, tally: Tally, in_delta: bool
    ) -> None:
        self.turn = asyncio.Lock()
        self.signer: Signer = home.signer()
        self.keys = KeyDialogue(home.keys(), home.identity.terminal)
        self.link: FleetLink | None = None
        self._home = home
        self._context = home.context()
        self._codec = codec
        self._counters = counters
        self._signed = {template.id: template.signed for template in grammar.templates.values()}
        self._tally = tally
        self._in_delta = in_delta
        self._must_sign_in = False

    def at_hand(self) -> tuple[FleetLink, TerminalSession] | None:
        """What ``ready`` gives, if it would not wait and nobody waits for it: a request may leave at once."""
        link = self.link
        if link is None or link.session is None or link.lost or self.turn.locked() or self._to_do(link.session):
            return None
        return link, link.session

    async def ready(self) -> tuple[FleetLink, TerminalSession]:
        """A connection that is signed in. Raises LinkLost when there is none now, SignInRefused when never."""
        link = self.link
        if link is None or link.session is None or link.lost:
            link = await self._connect()
        session = link.session
        assert session is not None
        if self._to_do(session):
            if self._must_sign_in or session.implied.get(de.BATCH) != self._counters.batch:
                await self._sign_in(link, session)
            if self.keys.must_ask:
                await self._ask_keys(link, session)
        return link, session

    def heed(self, command: int, code: str) -> None:
        """Of an answer: what it demands before the next request."""
        if command == COMMAND_SIGN_IN or code in SIGN_IN_FIRST:
            self._must_sign_in = True
        self.keys.answered(command, code)

    async def ask_signer(self) -> Mapping[int, Value]:
        """Which key signs receipts. Raises LinkLost."""
        async with self.turn:
            link, session = await self.ready()
            _, stan = self._counters.next()
            return (await self._ask(link, session, SIGNER.id, {de.STAN: stan}))[1].values

    def close(self) -> None:
        if self.link is not None:
            self.link.close("the fleet is done")

    # Inside

    def _to_do(self, session: TerminalSession) -> bool:
        """Whether something comes before the next request."""
        return self._must_sign_in or session.implied.get(de.BATCH) != self._counters.batch or self.keys.must_ask

    async def _connect(self) -> FleetLink:
        self._tally.connections += 1
        make_session = partial(
            TerminalSession,
            self._codec,
            za=self.signer.public_key.za,
            signed=self._signed,
            delta=DeltaWriter(self._codec) if self._in_delta else None,
        )
        ticket = self.link.take_session() if self.link is not None else None
        name = self._home.identity.terminal.lower()
        link = FleetLink(self._context, self._home.switch_name, name, make_session, self._tally.traffic, ticket)
        self.link = link
        try:
            async with asyncio.timeout(ANSWER_S):
                await link.connect(*self._home.address)
        except (OSError, TimeoutError) as error:
            raise LinkLost(str(error)) from None
        return link

    async def _sign_in(self, link: FleetLink, session: TerminalSession) -> None:
        code, told = await self._sign_in_once(link, session, ask=self._counters.batch == BATCH_UNKNOWN)
        if code == _BATCH_DIFFERS:
            code, told = await self._sign_in_once(link, session, ask=True)
        if code == APPROVED and told != self._counters.batch:
            self._counters.begin(told % BATCH_MAX + 1)
            code, _ = await self._sign_in_once(link, session, ask=False)
        if code != APPROVED:
            if action_of(code) == "D":
                raise SignInRefused(f"terminal {self._home.identity.terminal}: {code}")
            raise LinkLost(f"not now: {code}")
        self._must_sign_in = False

    async def _sign_in_once(self, link: FleetLink, session: TerminalSession, *, ask: bool) -> tuple[str, int]:
        """Code and batch of the answer."""
        batch, stan = self._counters.next()
        stated = self._home.identity.sign_in_values(china_now(), BATCH_UNKNOWN if ask else batch, stan)
        message, answer = await self._ask(link, session, SIGN_IN.id, {**stated, **self.keys.stated})
        self._tally.sign_ins += 1
        code = str(answer.values[de.RESPONSE_CODE])
        if code == APPROVED:
            session.signed_in(message, answer)
            self.keys.signed_in(answer.values)
        told = answer.values.get(de.BATCH, batch)
        assert isinstance(told, int)
        return code, told

    async def _ask_keys(self, link: FleetLink, session: TerminalSession) -> None:
        async def ask(stated: Mapping[int, Value]) -> Mapping[int, Value]:
            _, stan = self._counters.next()
            return (await self._ask(link, session, KEYS.id, {de.STAN: stan, **stated}))[1].values

        await self.keys.ask(link.binding, ask)

    async def _ask(
        self, link: FleetLink, session: TerminalSession, template: int, values: Mapping[int, Value]
    ) -> tuple[Message, Message]:
        """A message of the session itself, and its answer. Raises LinkLost."""
        message, digest = session.prepare(template, values)
        frame = session.frame(message, self.signer.sign(digest) if digest else b"")
        return message, await link.post(message, frame)
