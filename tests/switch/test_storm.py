"""Strangers who ask for handshakes as fast as they get them: who trades loses a share and never waits for the queue."""

import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import pytest
from OpenSSL import SSL

from tests.switch.line import Line, code_of, dial
from tests.switch.town import TERMINALS, Town, purchase

FreshTown = Callable[..., AbstractContextManager[Town]]

WAITING = 300  # handshakes that are asked for at any time
TRADES = 20


class Storm:
    """Asks for so many handshakes at once, and for another one as soon as one has had its first and dearest step."""

    def __init__(self, town: Town) -> None:
        self.served = 0
        self._town = town
        connection = SSL.Connection(town.home(TERMINALS[0]).context(), None)
        connection.set_connect_state()
        with pytest.raises(SSL.WantReadError):
            connection.do_handshake()
        self._hello = connection.bio_read(65536)
        self._over = threading.Event()

    @contextmanager
    def raging(self) -> Iterator[None]:
        thread = threading.Thread(target=self._rage)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _rage(self) -> None:
        with selectors.DefaultSelector() as waiting:
            for _ in range(WAITING):
                self._ask(waiting)
            while not self._over.is_set():
                for key, _ in waiting.select(0.1):
                    waiting.unregister(key.fileobj)
                    assert isinstance(key.fileobj, socket.socket)
                    with suppress(ConnectionError):
                        self.served += bool(key.fileobj.recv(1))
                    key.fileobj.close()
                    self._ask(waiting)
            for key in list(waiting.get_map().values()):
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()

    def _ask(self, waiting: selectors.DefaultSelector) -> None:
        sock = dial(self._town)
        sock.sendall(self._hello)
        waiting.register(sock, selectors.EVENT_READ)


def test_trade_goes_on_in_a_storm_of_handshakes(fresh_town: FreshTown) -> None:
    """Counted, not timed: in one loop with the handshakes, or behind them, a trade would wait for all that are asked
    for; beside them there are a few in the time of one trade."""
    with fresh_town() as town, Line(town, TERMINALS[0]).sign_in() as line:
        storm = Storm(town)
        with storm.raging():
            town.until(lambda status: storm.served > WAITING)
            before = storm.served
            for _ in range(TRADES):
                assert code_of(line.ask("farm-purchase", purchase())) == "00"
            meanwhile = storm.served - before
        assert 0 < meanwhile < TRADES * WAITING / 8
        assert town.status()["handshakes"]["accepted"] > 2 * WAITING
