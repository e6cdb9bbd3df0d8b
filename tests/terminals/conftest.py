"""Real certificates, real TLS, and a stand-in for the switch that keeps the protocol and breaks on demand."""

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import trio
from OpenSSL import SSL

from fengshou.codecs import BadSignature, MessageCodec, PrivateKey, PublicKey, merkle_path, merkle_root, sm3
from fengshou.ext.services.balance import BALANCE
from fengshou.ext.services.withdrawal import WITHDRAWAL
from fengshou.hsm import channel, x509
from fengshou.hsm.pki import AUTHORITIES, Authority
from fengshou.hsm.software import save_private_key
from fengshou.protocol import elements as de
from fengshou.protocol.message import COMMAND_NONE, Flag, Message, Value
from fengshou.protocol.record import GENESIS, Commit, Record, RecordKind
from fengshou.protocol.session import Event, SwitchSession, event_of
from fengshou.protocol.signing import TAG_COMMIT
from fengshou.protocol.templates import ECHO, RECEIPT, SIGN_IN, SIGN_OFF, SIGNER, Grammar
from fengshou.terminals.client import Patience, TerminalClient, connect
from fengshou.terminals.home import Configuration, Home, SwitchAddress, make_home
from fengshou.terminals.identity import Counters, Identity
from fengshou.terminals.receipt import Receipt

NOW = datetime.now(UTC)
GRAMMAR = Grammar(templates=(BALANCE, WITHDRAWAL))
SIGNED = {template.id: template.signed for template in GRAMMAR.templates.values()}
TERMINALS = ("FS000001", "FS000002", "FS000003")
CASH: dict[int, Value] = {de.PAN: "9156004000001267043", de.AMOUNT: 31_000, de.ENTRY_MODE: 52}


@dataclass
class StandIn:
    """Answers 00 to every request with a good signature, once a key; a repeat gets the stored answer."""

    context: SSL.Context
    signing_key: PrivateKey
    terminal_keys: dict[str, PublicKey]
    port: int = 0
    batches: dict[str, int] = field(default_factory=dict)  # the current one of each terminal, 7 at first
    codec: MessageCodec = field(default_factory=lambda: MessageCodec(GRAMMAR))
    effects: list[tuple[str, int, int]] = field(default_factory=list)  # key of every request that was done
    bodies: dict[tuple[str, int, int], tuple[bytes, bytes]] = field(default_factory=dict)
    receipts: dict[tuple[str, int, int], Receipt] = field(default_factory=dict)
    seen: list[Message] = field(default_factory=list)
    connections: int = 0
    signer: dict[int, Value] = field(default_factory=dict)  # what is told of the signing key
    # What goes wrong.
    codes: list[str] = field(default_factory=list)  # for the next requests, instead of doing them
    sign_in_codes: list[str] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)  # after so many bytes of a trade's answer the connection dies
    leaps: list[int] = field(default_factory=list)  # by so many batches the terminal falls behind at a cut
    mute: int = 0  # so many requests are done and not answered
    command: int = COMMAND_NONE
    garbage: bytes = b""
    withhold_receipts: bool = False
    hold: int = 1  # answers leave when so many are due, last one first

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
            self.port = listeners[0].socket.getsockname()[1]
            task_status.started()
            await trio.serve_listeners(self.connection, listeners, handler_nursery=nursery)

    async def connection(self, transport: trio.SocketStream) -> None:
        self.connections += 1
        stream = channel.TlsStream.server(transport, self.context)
        try:
            await stream.do_handshake()
            session = SwitchSession(stream.binding)
            buffer = bytearray()
            due: list[bytes] = []
            while data := await stream.receive_some():
                buffer += data
                frames, used = self.codec.split(buffer)
                del buffer[:used]
                for frame in frames:
                    answers = self.answer(session, stream.peer.subject.common_name, self.codec.decode(frame))
                    due += [self.codec.encode(message) for message in answers]
                    if self.garbage:
                        await stream.send_all(self.garbage)
                if len(due) >= self.hold:
                    out = b"".join(reversed(due) if self.hold > 1 else due)
                    due.clear()
                    if self.cuts and self.seen[-1].template == WITHDRAWAL.id:
                        await stream.send_all(out[: self.cuts.pop()])
                        if self.leaps:
                            self.batches[session.implied[de.TERMINAL]] += self.leaps.pop()
                        return
                    await stream.send_all(out)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(transport)

    def answer(self, session: SwitchSession, terminal: str, message: Message) -> list[Message]:
        self.seen.append(message)
        refused = session.refusal(message)
        if refused is not None:
            return [self.response(message, {de.RESPONSE_CODE: refused.value})]
        if SIGNED[message.template]:
            key = self.terminal_keys[terminal]
            implied = {} if message.template == SIGN_IN.id else session.implied
            try:
                key.verify(self.codec.digest(key.za, session.binding, message, implied), message.signature)
            except BadSignature:
                return [self.response(message, {de.RESPONSE_CODE: "63"})]
        match message.template:
            case SIGN_IN.id:
                return [self.sign_in(session, message)]
            case SIGN_OFF.id | ECHO.id:
                session.advance(event_of(message), {})
                return [self.response(message, {de.RESPONSE_CODE: "00"})]
            case RECEIPT.id:
                return [self.receipt(terminal, message)]
            case SIGNER.id:
                return [self.response(message, {de.RESPONSE_CODE: "00", **self.signer})]
        return self.trade(session, message)

    def sign_in(self, session: SwitchSession, message: Message) -> Message:
        current = self.batches.get(message.values[de.TERMINAL], 7)
        batch = message.values[de.BATCH] or current
        if self.sign_in_codes:
            return self.response(message, {de.RESPONSE_CODE: self.sign_in_codes.pop(0)})
        if batch not in (current, current + 1):
            return self.response(message, {de.RESPONSE_CODE: "77"})
        self.batches[message.values[de.TERMINAL]] = batch
        names = (de.TERMINAL, de.MERCHANT, de.CURRENCY, de.OPERATOR)
        session.advance(Event.SIGN_IN, {**{key: message.values[key] for key in names}, de.BATCH: batch})
        return self.response(message, {de.RESPONSE_CODE: "00", de.BATCH: batch})

    def trade(self, session: SwitchSession, message: Message) -> list[Message]:
        if self.codes:
            return [self.response(message, {de.RESPONSE_CODE: self.codes.pop(0)})]
        key = (session.implied[de.TERMINAL], session.implied[de.BATCH], message.values[de.STAN])
        content = self.codec.encode_body(message.template, False, message.values)
        if key not in self.bodies:
            self.effects.append(key)
            body = self.codec.encode_body(
                message.template, True, {de.RESPONSE_CODE: "00", de.RRN: 632_800_000_000 + len(self.effects)}
            )
            self.bodies[key] = (content, body)
            self.receipts[key] = self.prove(session, message, content, body)
        stored, body = self.bodies[key]
        if stored != content:
            return [self.response(message, {de.RESPONSE_CODE: "94"})]
        if self.mute:
            self.mute -= 1
            return []
        response = self.response(message, self.codec.decode_body(message.template, True, body))
        if not message.flags & Flag.RECEIPT:
            return [response]
        response.flags |= Flag.RECEIPT
        if self.withhold_receipts:
            return [response]
        values = {de.RESPONSE_CODE: "00", **self.receipts[key].to_values()}
        return [response, Message(RECEIPT.id, Flag.RESPONSE | Flag.RECEIPT, message.sequence, values)]

    def receipt(self, terminal: str, message: Message) -> Message:
        key = (terminal, message.values[de.ORIGINAL_BATCH], message.values[de.ORIGINAL_STAN])
        if key not in self.receipts:
            return self.response(message, {de.RESPONSE_CODE: "25"})
        return self.response(message, {de.RESPONSE_CODE: "00", **self.receipts[key].to_values()})

    def prove(self, session: SwitchSession, message: Message, content: bytes, body: bytes) -> Receipt:
        record = Record(
            RecordKind.OUTCOME, 12, 1, 20_260_701, 1, message.template, session.implied[de.TERMINAL],
            session.implied[de.MERCHANT], session.implied[de.BATCH], message.values[de.STAN], 11, "00",
            sm3(bytes((message.template,)) + content), sm3(body),
        )  # fmt: skip
        return seal(record, self.signing_key)

    def response(self, message: Message, values: dict[int, Value]) -> Message:
        return Message(message.template, Flag.RESPONSE | self.command, message.sequence, values)


def seal(record: Record, key: PrivateKey) -> Receipt:
    """A receipt over three commits; the record is the third of five in the first."""
    leaves = [b"another", b"one more", record.to_bytes(), b"and", b"the rest"]
    first = Commit(4, record.number - 2, 5, 10, merkle_root(leaves), GENESIS)
    second = Commit(5, record.number + 3, 1, 20, bytes(32), sm3(first.to_bytes()))
    third = Commit(6, record.number + 4, 2, 30, bytes(32), sm3(second.to_bytes()))
    commits = b"".join(commit.to_bytes() for commit in (first, second, third))
    signature = key.sign(sm3(key.public_key.za + TAG_COMMIT + third.to_bytes()))
    return Receipt(record.number, leaves[2], 2, merkle_path(leaves, 2), commits, signature)


@dataclass
class Network:
    """The keys and certificates of a small network, made once."""

    folder: Path
    authority: Authority
    context: SSL.Context
    signing_key: PrivateKey
    terminal_keys: dict[str, PrivateKey]
    grammar: Grammar = GRAMMAR

    def stand_in(self) -> StandIn:
        return StandIn(
            self.context, self.signing_key, {name: key.public_key for name, key in self.terminal_keys.items()}
        )

    def home(self, folder: Path, terminal: str, port: int) -> Home:
        key = self.terminal_keys[terminal]
        certificate = self.authority.issue(
            x509.TERMINAL, x509.Subject(terminal, serial=f"SN-{terminal}"), key.public_key, NOW
        )
        point = self.signing_key.public_key.point.hex()
        configuration = Configuration(
            switch=SwitchAddress(host="127.0.0.1", port=port, name="switch.test", signing_key=point, profile="narrow"),
            identity=identity_of(terminal),
            services=("fengshou.ext.services.balance", "fengshou.ext.services.withdrawal"),
        )
        return make_home(
            folder / terminal, configuration, self.authority.chain(certificate),
            (self.authority.folder / AUTHORITIES).read_bytes(), key,
        )  # fmt: skip


def identity_of(terminal: str) -> Identity:
    return Identity(
        terminal=terminal, merchant="999452054110013", acquirer=99_904_520, serial=f"SN-{terminal}",
        credit_code="93370211FENG001381", settlement_account="9030000001361477", app="point", app_version="1.0",
        app_manifest="ab" * 32,
    )  # fmt: skip


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    folder = tmp_path_factory.mktemp("network")
    authority = Authority.initialise(folder / "pki", "Test", NOW)
    key = PrivateKey.generate()
    save_private_key(folder / "switch.key", key)
    certificate = authority.issue(x509.SWITCH, x509.Subject("switch", names=("switch.test",)), key.public_key, NOW)
    (folder / "switch.crt").write_bytes(authority.chain(certificate))
    context = channel.terminal_server_context(
        channel.Identity.of_key_file(folder / "switch.crt", folder / "switch.key"),
        channel.Trust(authority.folder / AUTHORITIES),
        channel.NARROW,
    )
    keys = {terminal: PrivateKey.generate() for terminal in TERMINALS}
    return Network(folder, authority, context, PrivateKey.generate(), keys)


@pytest.fixture(scope="session")
def client_context(network: Network, tmp_path_factory: pytest.TempPathFactory) -> SSL.Context:
    folder = tmp_path_factory.mktemp("terminal")
    key = network.terminal_keys[TERMINALS[0]]
    subject = x509.Subject(TERMINALS[0], serial="SN1")
    certificate = network.authority.issue(x509.TERMINAL, subject, key.public_key, datetime.now(UTC))
    save_private_key(folder / "key.pem", key)
    (folder / "chain.pem").write_bytes(network.authority.chain(certificate))
    identity = channel.Identity.of_key_file(folder / "chain.pem", folder / "key.pem")
    return channel.client_context(identity, channel.Trust(network.authority.folder / AUTHORITIES), channel.NARROW)


@asynccontextmanager
async def stage(
    network: Network, folder: Path, counters: Counters | None = None, **patience: float
) -> AsyncIterator[tuple[StandIn, TerminalClient]]:
    """A stand-in that serves, and a client of it that is patient for tenths of a second."""
    waits = {"connect_s": 5.0, "answer_s": 5.0, "receipt_s": 0.2, "trade_s": 5.0, "first_delay_s": 0.01, **patience}
    stand_in = network.stand_in()
    async with trio.open_nursery() as nursery:
        await nursery.start(stand_in.serve)
        home = network.home(folder, TERMINALS[0], stand_in.port)
        async with connect(
            home.address, home.context(), home.switch_name, home.identity, home.signer(), counters or Counters(),
            GRAMMAR, Patience(**waits),
        ) as client:  # fmt: skip
            yield stand_in, client
        nursery.cancel_scope.cancel()


@pytest.fixture
def staged(network: Network, tmp_path: Path) -> Callable[..., object]:
    return partial(stage, network, tmp_path)


@contextmanager
def _serving(stand_in: StandIn) -> Iterator[None]:
    ready, scope = threading.Event(), []

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            scope.append((trio.lowlevel.current_trio_token(), nursery.cancel_scope))
            await nursery.start(stand_in.serve)
            ready.set()

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    assert ready.wait(10)
    try:
        yield
    finally:
        token, cancel_scope = scope[0]
        token.run_sync_soon(cancel_scope.cancel)
        thread.join()


@pytest.fixture(scope="session")
def serving() -> Callable[[StandIn], AbstractContextManager[None]]:
    """Runs a stand-in in a thread of its own, for clients that block or have another loop."""
    return _serving
