"""PINs on their way through the switch: from the terminal's key to the back end's, inside custody and nowhere else."""

from collections.abc import Mapping

import msgspec

from fengshou.hsm.custody import Custody, CustodyError, Kind, PinBlockError, PinFormat, PinZone, Unavailable
from fengshou.protocol import codes
from fengshou.protocol import elements as de
from fengshou.protocol.iso8583 import PIN_ISO_4, PIN_UNIONPAY, SecurityControl
from fengshou.protocol.service import Iso8583Call, Request
from fengshou.switch.terminal_keys import working_key

PIN_BLOCK, SECURITY_CONTROL = 52, 53  # of the host's message

_OF_TERMINAL = {0: PinFormat.ISO_4, 1: PinFormat.UNIONPAY}  # DE 53.2
_OF_HOST = {PinFormat.ISO_4: PIN_ISO_4, PinFormat.UNIONPAY: PIN_UNIONPAY}


class PinRefused(Exception):
    """The PIN cannot be handed on; ``code`` is the answer, the text is for the operator."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Pins:
    """``zones`` are the PIN keys of back ends by the name of their destination, and the layout that each wants."""

    def __init__(self, custody: Custody, zones: Mapping[str, PinZone]) -> None:
        self._custody = custody
        self._zones = zones

    def translated(self, request: Request, call: Iso8583Call, destination: str) -> Iso8583Call:
        """The call with its PIN under the key of the back end. Raises PinRefused."""
        block, zone = call.fields[PIN_BLOCK], self._zones.get(destination)
        assert isinstance(block, bytes)
        form = _OF_TERMINAL.get(request.integer(de.PIN_FORMAT))
        if zone is None:
            raise PinRefused(codes.UNSUPPORTED, "no PIN key with this back end")
        if form is None:
            raise PinRefused(codes.PIN_FORMAT_ERROR, "unknown layout of the PIN block")
        terminal = working_key(request.terminal, Kind.PIN, request.integer(de.KEY_EPOCH))
        try:
            epoch = self._custody.key(zone.label).epoch
            zone = PinZone(zone.label, zone.format, epoch)
            block = self._custody.translate_pin(block, str(call.fields[2]), PinZone(terminal, form), zone)
        except PinBlockError:
            raise PinRefused(codes.PIN_FORMAT_ERROR, "no PIN block under this key") from None
        except Unavailable:
            raise PinRefused("96", "custody is away") from None
        except CustodyError:
            raise PinRefused(codes.KEYS_OUT_OF_USE, "the keys of the PIN are out of use") from None
        control = SecurityControl(_OF_HOST[zone.format], epoch)
        fields = {**call.fields, PIN_BLOCK: block, SECURITY_CONTROL: control.digits}
        return msgspec.structs.replace(call, fields=fields)
