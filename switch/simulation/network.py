"""The simulated network: connections between named machines, and everything that happens to bytes on the way.

A connection is two pipes. A pipe carries what one ``send`` gave it as one piece, delivers pieces in order after a
delay, and holds them back while their direction is cut, as TCP does. What TCP does not do, but middle boxes and hosts
do (a piece lost, twice, out of order), is asked for piece by piece by ``Weather``.
"""

import select
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import trio
from OpenSSL import SSL

from fengshou.switch.simulation.agenda import Agenda, Diary

_WINDOW_BYTES = 64 * 1024  # what may be on its way and unread in one direction


@dataclass(slots=True)
class Weather:
    """What happens to pieces between two machines in one direction. The odds are for each piece."""

    cut: bool = False  # nothing arrives until it ends; nobody is told
    delay_s: float = 0.0  # more than usual
    lose: float = 0.0
    repeat: float = 0.0
    overtake: float = 0.0
    reset: float = 0.0  # the connection breaks in the middle of the piece
    bytes_per_s: float = 0.0  # a slow reader; 0: as fast as it comes


class Pipe:
    """One direction of a connection."""

    def __init__(self, network: "Network", source: str, target: str) -> None:
        self._network = network
        self.source, self.target = source, target
        self.buffer = bytearray()
        self.ended = False  # the sender said so, and it has arrived
        self.broken = False
        self.abandoned = False  # the reader has closed its end
        self._under_way = 0
        self._last_s = 0.0
        self._held: list[bytes] = []
        self.on_change: Callable[[], None] = lambda: None  # the reader's
        self.on_room: Callable[[], None] = lambda: None  # the writer's
        self.reset: Callable[[], None] = lambda: None  # breaks the whole connection

    @property
    def room(self) -> int:
        return max(0, _WINDOW_BYTES - self._under_way - len(self.buffer))

    def write(self, piece: bytes) -> None:
        """Take a piece (nothing: the end of the stream)."""
        self._under_way += len(piece)
        weather = self._network.weather(self.source, self.target)
        if weather.cut:
            self._network.fault("message held back")
            self._held.append(piece)
        else:
            self._send(piece, weather)

    def resume(self) -> None:
        """The direction is open again: what was held goes out."""
        held, self._held = self._held, []
        weather = self._network.weather(self.source, self.target)
        for piece in held:
            self._send(piece, weather)

    def _send(self, piece: bytes, weather: Weather) -> None:
        chance, note = self._network.chance, self._network.fault
        now = trio.current_time()
        delay_s = chance.uniform(0.002, 0.02)
        if piece and weather.delay_s:
            note("message delayed")
            delay_s += weather.delay_s * chance.uniform(0.5, 1.5)
        if piece and weather.bytes_per_s:
            note("message trickled")
            delay_s += len(piece) / weather.bytes_per_s
        arrives_s = max(self._last_s, now + delay_s)
        if piece and weather.reset and chance.random() < weather.reset:
            note("reset in mid-frame")
            head = piece[: chance.randrange(len(piece))]
            self._network.agenda.at(arrives_s, lambda: self._arrive(head))
            self._network.agenda.at(arrives_s, self.reset)
            return
        if piece and weather.lose and chance.random() < weather.lose:
            note("message lost")
            self._under_way -= len(piece)
            return
        if piece and weather.overtake and chance.random() < weather.overtake:
            note("message overtaken")
            self._network.agenda.at(arrives_s + chance.uniform(0.01, 0.5), lambda: self._arrive(piece))
            return
        self._last_s = arrives_s
        self._network.agenda.at(arrives_s, lambda: self._arrive(piece))
        if piece and weather.repeat and chance.random() < weather.repeat:
            note("message twice")
            self._under_way += len(piece)
            self._network.agenda.at(arrives_s + chance.uniform(0.0, 0.2), lambda: self._arrive(piece))

    def _arrive(self, piece: bytes) -> None:
        self._under_way -= len(piece)
        if self.broken:
            return
        if piece and self.abandoned:
            self.reset()
            return
        if piece:
            self._network.diary.note(self.source, f"{len(piece)} bytes to {self.target}")
        self.buffer += piece
        self.ended = self.ended or not piece
        self.on_change()

    def take(self, count: int) -> bytes:
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        if data:
            self.on_room()
        return data

    def breaks(self) -> None:
        if not self.broken:
            self.broken = True
            self.buffer.clear()
            self._held.clear()
            self.on_change()
            self.on_room()


class Connection:
    """Both pipes. ``binding`` is what a secure channel derives at both ends and nobody else knows."""

    def __init__(self, network: "Network", client: str, server: str, binding: bytes) -> None:
        self.binding = binding
        self.client, self.server = client, server
        self.up = Pipe(network, client, server)
        self.down = Pipe(network, server, client)
        self.up.reset = self.down.reset = self.reset

    def reset(self) -> None:
        self.up.breaks()
        self.down.breaks()


class Stream(trio.abc.Stream):
    """A Trio stream at one end."""

    def __init__(self, incoming: Pipe, outgoing: Pipe, binding: bytes) -> None:
        self.binding = binding
        self._in, self._out = incoming, outgoing
        self._changed, self._roomy = trio.Event(), trio.Event()
        self._closed = False
        incoming.on_change = lambda: self._changed.set()
        outgoing.on_room = lambda: self._roomy.set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        while not self._out.room and not self._out.broken and not self._closed:
            self._roomy = trio.Event()
            await self._roomy.wait()
        self._check()
        if data:
            self._out.write(bytes(data))

    def write(self, data: bytes) -> None:
        """Send without waiting for room; an end that is gone takes it and forgets it."""
        if not self._closed and not self._in.broken:
            self._out.write(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            self._check()
            if self._in.buffer:
                return self._in.take(max_bytes or _WINDOW_BYTES)
            if self._in.ended:
                return b""
            self._changed = trio.Event()
            await self._changed.wait()

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this end is closed")
        if self._in.broken:
            raise trio.BrokenResourceError("connection reset")

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = self._in.abandoned = True
            self._out.write(b"")
            self._changed.set()
            self._roomy.set()
        await trio.lowlevel.checkpoint()


class Socket:
    """The end that a pump holds: what a pump uses of a socket and of the TLS connection on it."""

    def __init__(
        self, fd: int, connection: Connection, changed: Callable[[], None], moment: Callable[[], tuple[float, float]]
    ) -> None:
        """``moment`` is asked when there is something to read, see ``readable``."""
        self._fd = fd
        self._in, self._out = connection.up, connection.down
        self._in.on_change = self._arrived
        self._out.on_room = self._changed = changed
        self._moment = moment
        self.readable = moment()  # when what was read last could have been read first
        self._waits = False
        self.closed = False

    def _arrived(self) -> None:
        if not self._waits:
            self._waits, self.readable = True, self._moment()
        self._changed()

    def fileno(self) -> int:
        return self._fd

    def events(self, mask: int) -> int:
        readable = self._in.buffer or self._in.ended or self._in.broken
        found = select.EPOLLIN if readable else 0
        return found | (select.EPOLLOUT if mask & select.EPOLLOUT and (self._out.room or self._out.broken) else 0)

    def recv(self, count: int) -> bytes:
        if self._in.broken:
            raise SSL.SysCallError(-1, "connection reset")
        if not self._in.buffer:
            raise SSL.ZeroReturnError if self._in.ended else SSL.WantReadError
        self._waits = len(self._in.buffer) > count
        return self._in.take(count)

    def send(self, data: bytes | memoryview) -> int:
        if self._out.broken:
            raise SSL.SysCallError(-1, "connection reset")
        room = min(self._out.room, len(data))
        if not room:
            raise SSL.WantWriteError
        if not self.closed:
            self._out.write(bytes(data[:room]))
        return room

    def shutdown(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self.closed = self._in.abandoned = True
            self._out.write(b"")


class Readiness:
    """The pump's epoll set over simulated sockets."""

    def __init__(self, moment: Callable[[], tuple[float, float]]) -> None:
        """``moment``: see ``Socket``."""
        self._moment = moment
        self._sockets: dict[int, Socket] = {}
        self._masks: dict[int, int] = {}
        self._changed = trio.Event()
        self._next_fd = 1000

    def socket(self, connection: Connection) -> Socket:
        self._next_fd += 1
        socket = Socket(self._next_fd, connection, lambda: self._changed.set(), self._moment)
        self._sockets[socket.fileno()] = socket
        return socket

    def register(self, fd: int, eventmask: int) -> None:
        self._masks[fd] = eventmask
        self._changed.set()

    def modify(self, fd: int, eventmask: int) -> None:
        self.register(fd, eventmask)

    def unregister(self, fd: int) -> None:
        del self._masks[fd]
        del self._sockets[fd]

    def poll(self, timeout: float, maxevents: int) -> list[tuple[int, int]]:
        found = [(fd, self._sockets[fd].events(mask)) for fd, mask in self._masks.items()]
        return [(fd, events) for fd, events in found if events][:maxevents]

    def close(self) -> None:
        self._masks.clear()

    async def wait(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self.poll(0, 1):
            self._changed = trio.Event()
            await self._changed.wait()


class Network:
    """All machines and what is between them."""

    def __init__(self, agenda: Agenda, diary: Diary, chance: Random) -> None:
        self.agenda, self.diary, self.chance = agenda, diary, chance
        self._weather: dict[tuple[str, str], Weather] = {}
        self._listeners: dict[str, Callable[[Connection], None]] = {}
        self._connections: list[Connection] = []

    def fault(self, name: str) -> None:
        """A fault has taken place."""
        self.diary.effect("network", name)

    def weather(self, source: str, target: str) -> Weather:
        return self._weather.setdefault((source, target), Weather())

    def clear(self, source: str, target: str) -> None:
        """Good weather again in one direction."""
        self._weather[source, target] = Weather()
        for connection in self._connections:
            for pipe in (connection.up, connection.down):
                if (pipe.source, pipe.target) == (source, target):
                    pipe.resume()

    def listen(self, machine: str, accept: Callable[[Connection], None]) -> None:
        self._listeners[machine] = accept

    def ignore(self, machine: str) -> None:
        """Nobody listens there any more."""
        self._listeners.pop(machine, None)

    async def dial(self, client: str, server: str) -> Stream:
        """A connection, after a round trip. Raises OSError when nobody listens; waits while the way is cut."""
        while self.weather(client, server).cut or self.weather(server, client).cut:
            await trio.sleep(0.5)
        await trio.sleep(self.chance.uniform(0.005, 0.05))
        accept = self._listeners.get(server)
        if accept is None:
            raise OSError("connection refused")
        connection = Connection(self, client, server, self.chance.randbytes(32))
        self._connections = [known for known in self._connections if not known.up.broken]
        self._connections.append(connection)
        stream = Stream(connection.down, connection.up, connection.binding)
        accept(connection)
        return stream

    def drop(self, machine: str) -> None:
        """Every connection of a machine breaks."""
        for connection in self._connections:
            if machine in (connection.client, connection.server):
                connection.reset()

    def half_open(self, machine: str, other: str) -> None:
        """One side's connections break and the other side is not told: what it sends goes nowhere."""
        for connection in self._connections:
            if {connection.client, connection.server} == {machine, other}:
                pipe = connection.up if connection.up.target == machine else connection.down
                if not pipe.broken:
                    self.fault("half-open")
                    pipe.breaks()
