"""What a terminal and its switch say about keys: when the terminal must ask, what it states, what it takes."""

import logging
from collections.abc import Awaitable, Callable, Mapping

from fengshou.hsm.custody import PinFormat
from fengshou.protocol import elements as de
from fengshou.protocol.codes import APPROVED, KEYS_OUT_OF_USE, MAC_ERROR
from fengshou.protocol.message import COMMAND_KEYS, Value
from fengshou.terminals.key_store import KeyStore, KeysUnfit, NoKeys

logger = logging.getLogger(__name__)

# A terminal without keys is told them and says that they arrived; what does not fit is told once more.
_ROUNDS_MAX = 4

Ask = Callable[[Mapping[int, Value]], Awaitable[Mapping[int, Value]]]


class KeyDialogue:
    """``keys`` None: a terminal that uses no working keys, and so states, asks and takes nothing."""

    def __init__(self, keys: KeyStore | None, terminal: str) -> None:
        self._keys = keys
        self._terminal = terminal
        self._waits = False

    @property
    def must_ask(self) -> bool:
        """Newer keys wait at the switch, or it is to hear that the last ones arrived."""
        return self._keys is not None and self._waits

    @property
    def stated(self) -> Mapping[int, Value]:
        """What a sign-in says."""
        return self._keys.held if self._keys else {}

    def signed_in(self, told: Mapping[int, Value]) -> None:
        """Take what the answer to a sign-in brings."""
        self._waits = self._keys is not None and self._takes(self._keys, told)

    def answered(self, command: int, code: str) -> None:
        """Heed the command of an answer, and a code that says that keys are out of use."""
        self._waits = self._waits or command == COMMAND_KEYS or code == KEYS_OUT_OF_USE

    async def ask(self, binding: bytes, ask: Ask) -> None:
        """Say which keys are held, until the switch has no newer ones; ``ask`` sends template 17 and gives the answer.

        A refusal costs no sale: it is left at that until the next sign-in or command.
        """
        assert self._keys is not None
        for _ in range(_ROUNDS_MAX):
            told = await ask(self._keys.proof(binding) if self._keys.epoch else self._keys.held)
            if told[de.RESPONSE_CODE] == MAC_ERROR:
                self._keys.forget()
            elif told[de.RESPONSE_CODE] != APPROVED or not self._takes(self._keys, told):
                break
        self._waits = False

    def pin_block(self, digits: bytearray, pan: str, form: PinFormat = PinFormat.ISO_4) -> dict[int, Value]:
        """See ``KeyStore.pin_block``. Raises NoKeys too when the terminal uses none."""
        if self._keys is None:
            raise NoKeys("this terminal uses no working keys")
        return self._keys.pin_block(digits, pan, form)

    def sealed(self, values: Mapping[int, Value]) -> Mapping[int, Value]:
        """See ``KeyStore.sealed``; as they are when the terminal uses no keys, or got none."""
        return self._keys.sealed(values) if self._keys and self._keys.epoch else values

    def _takes(self, keys: KeyStore, told: Mapping[int, Value]) -> bool:
        """Whether the switch is to be told: that keys arrived, or that they do not fit."""
        try:
            return keys.take(told)
        except KeysUnfit as error:
            logger.warning("terminal %s: %s", self._terminal, error)
            keys.forget()
            return True
