"""What a terminal and its switch say about its certificate: when the terminal must ask, and what it does with it."""

import logging
from collections.abc import Mapping

import trio

from fengshou.hsm.x509 import CertificateError, Signer
from fengshou.protocol import elements as de
from fengshou.protocol.codes import APPROVED
from fengshou.protocol.message import COMMAND_CERTIFICATE, Value
from fengshou.terminals.dialler import Dialler
from fengshou.terminals.home import Home

logger = logging.getLogger(__name__)


class RenewalDialogue:
    """Of the certificate in a home. Between two wishes it lets ``every_s`` pass: the authority takes its time."""

    def __init__(self, home: Home, dialler: Dialler, every_s: float) -> None:
        self._home = home
        self._dialler = dialler
        self._every_s = every_s
        self._asks_from = float("inf")

    @property
    def must_ask(self) -> bool:
        return trio.current_time() >= self._asks_from

    def commanded(self, command: int) -> None:
        """Heed the command of an answer."""
        if command == COMMAND_CERTIFICATE and self._asks_from == float("inf"):
            self._asks_from = trio.current_time()

    def wish(self, holder: Signer) -> dict[int, Value]:
        """What template 19 says."""
        self._asks_from = trio.current_time() + self._every_s
        return self._home.renewal.wish(holder)

    def take(self, told: Mapping[int, Value]) -> Signer | None:
        """The new key, once its certificate has come; whoever connects from then on does so with it."""
        if told[de.RESPONSE_CODE] != APPROVED:
            return None
        try:
            self._home.renewal.take(told.get(de.CERTIFICATE, b""))
        except CertificateError as error:
            logger.warning("terminal %s: %s", self._home.identity.terminal, error)
            return None
        self._asks_from = float("inf")
        self._dialler.use(self._home.context())
        return self._home.signer()
