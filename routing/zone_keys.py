"""The keys that the switch shares with one ISO 8583 back end, and their exchange by 0800 with DE 70 = 161.

Both have the zone master key, brought by a ceremony. Under it the switch brings its PIN key and its authentication key
in key blocks, which bind each to its use::

    0800   DE 53 which key and epoch, see ``SecurityControl`` · DE 48 check value (8 digits) and key block
    0810   DE 39 00 · DE 48 the check value of what was kept

The switch brings every epoch that is accepted when a line signs on, and a further one as soon as custody has it; so the
back end knows an epoch before anything is made under it. Bringing a key again changes nothing.
"""

import os
from collections.abc import Iterator, Mapping

from fengshou.codecs import sm2_encrypt
from fengshou.hsm import pin, sm4
from fengshou.hsm.custody import (
    Custody,
    CustodyError,
    KeyInfo,
    Kind,
    PinBlockError,
    PinFormat,
    PinMismatch,
    PinZone,
)
from fengshou.hsm.memory import wipe
from fengshou.protocol.backend import Fields, PinRefused
from fengshou.protocol.codes import APPROVED, MAC_ERROR, PIN_FORMAT_ERROR
from fengshou.protocol.epoch import ACCEPTING, EpochState
from fengshou.protocol.iso8583 import PIN_ISO_4, PIN_UNIONPAY, SecurityControl
from fengshou.protocol.iso8583_mac import Authenticator

_CHECK_DIGITS = 8
_FORMATS = {PIN_ISO_4: PinFormat.ISO_4, PIN_UNIONPAY: PinFormat.UNIONPAY}

# The host's labels: its end of the master key, the key pair to which keys come in envelopes, the key of PIN offsets.
HOST_MASTER = "zone.master"
HOST_ENVELOPE = "zone.envelope"
CARD_PIN_VERIFY = "card.pin-verify"
_HOST_EPOCHS_KEPT = 2  # the current one and the one before


def master_label(name: str) -> str:
    """The switch's label of the zone master key (TRANSPORT) of a back end, by the name of its destination."""
    return f"zone.{name}.master"


def pin_label(name: str) -> str:
    return f"zone.{name}.pin"


def mac_label(name: str) -> str:
    return f"zone.{name}.mac"


class ZoneKeys:
    """The switch's end."""

    def __init__(self, custody: Custody, name: str) -> None:
        self._custody = custody
        self._master = master_label(name)
        self._mac = mac_label(name)
        self.labels: Mapping[str, Kind] = {pin_label(name): Kind.PIN, mac_label(name): Kind.MAC}
        self.confirmed: set[tuple[str, int]] = set()  # label and epoch that the back end has said to have

    def accepted(self) -> list[KeyInfo]:
        """Every key that the back end should have."""
        return [info for info in self._custody.inventory() if info.label in self.labels and info.state in ACCEPTING]

    def change(self, key: KeyInfo) -> dict[int, str | bytes]:
        """DE 48 and 53 that bring a key. Raises CustodyError."""
        block = self._custody.export_key(key.label, self._master, epoch=key.epoch)
        is_pin = key.kind is Kind.PIN
        control = SecurityControl(pin_epoch=key.epoch) if is_pin else SecurityControl(mac_epoch=key.epoch)
        return {48: _digits(key.check_value) + block.decode("ascii"), 53: control.digits}

    def mac_epoch(self) -> int:
        return self._custody.key(self._mac).epoch

    def authenticator(self, epoch: int) -> Authenticator:
        return self._custody.authenticator(self._mac, epoch)

    def hear(self, key: KeyInfo, answer: Fields) -> bool:
        """Whether the back end has the key now."""
        has = answer.get(39) == APPROVED and answer.get(48) == _digits(key.check_value)
        (self.confirmed.add if has else self.confirmed.discard)((key.label, key.epoch))
        return has


class ZoneHost:
    """The back end's end: takes keys, and verifies PINs under them."""

    def __init__(self, custody: Custody) -> None:
        self._custody = custody

    def take(self, request: Fields) -> dict[int, str | bytes]:
        """What a key change is answered: DE 39, and DE 48 when the key is kept."""
        control, told = SecurityControl.parse(str(request.get(53, "0" * 16))), str(request.get(48, ""))
        if bool(control.pin_epoch) == bool(control.mac_epoch):
            return {39: "30"}
        kind = Kind.PIN if control.pin_epoch else Kind.MAC
        epoch, check_value, block = control.pin_epoch or control.mac_epoch, told[:_CHECK_DIGITS], told[_CHECK_DIGITS:]
        label = _label(kind, epoch)
        try:
            known = [info for info in self._infos() if info.label == label]
            if not known or _digits(known[0].check_value) != check_value:
                kept = self._custody.import_key(label, kind, block.encode("utf-8"), HOST_MASTER)
                if _digits(kept.check_value) != check_value:
                    self._end(kept)
                    return {39: MAC_ERROR}
                for info in known:  # the number of an epoch came round again
                    self._custody.activate(label, kept.epoch)
                    self._end(info)
                self._end_old(kind)
        except CustodyError:
            return {39: MAC_ERROR}
        return {39: APPROVED, 48: check_value}

    def mac_epoch(self) -> int:
        """Of an answer: that of its request, which stands in it, so this is for what begins here. The newest."""
        held = self._held(Kind.MAC)
        if not held:
            raise CustodyError("the peer has brought no authentication key yet")
        return int(held[-1].label.rpartition(".")[2])

    def authenticator(self, epoch: int) -> Authenticator:
        return self._custody.authenticator(_label(Kind.MAC, epoch))

    def verify(self, request: Fields, offset: str) -> None:
        """Check the PIN of a request against the card's offset. Raises ``protocol.backend.PinRefused``."""
        block, account = request[52], str(request.get(2, ""))
        assert isinstance(block, bytes)
        try:
            source = self._source(request)
            self._custody.verify_pin(block, account, source, CARD_PIN_VERIFY, offset)
        except PinMismatch:
            raise PinRefused("55") from None
        except PinBlockError:
            raise PinRefused(PIN_FORMAT_ERROR) from None
        except CustodyError:
            raise PinRefused("96") from None

    def _source(self, request: Fields) -> PinZone:
        control = SecurityControl.parse(str(request.get(53, "0" * 16)))
        form = _FORMATS.get(control.pin_format)
        if form is None:
            raise PinBlockError("unknown layout of the PIN block")
        return PinZone(_label(Kind.PIN, control.pin_epoch), form)

    def _infos(self) -> Iterator[KeyInfo]:
        return (info for info in self._custody.inventory() if info.state is not EpochState.RETIRED)

    def _end(self, key: KeyInfo) -> None:
        self._custody.retire(key.label, key.epoch)
        self._custody.destroy(key.label, key.epoch)

    def _end_old(self, kind: Kind) -> None:
        for info in self._held(kind)[:-_HOST_EPOCHS_KEPT]:
            self._end(info)

    def _held(self, kind: Kind) -> list[KeyInfo]:
        """The switch's keys of a kind, oldest first."""
        prefix = _label(kind, 0)[:-1]
        return sorted((info for info in self._infos() if info.label.startswith(prefix)), key=lambda info: info.created)


class PinPad:
    """Where a card's holder chooses a PIN: at the back end's own branch, under a key that ends with the choice."""

    _LABEL = "zone.pad"

    def __init__(self, custody: Custody) -> None:
        self._custody = custody

    def offset(self, card: str, digits: bytearray) -> str:
        """How the PIN is known again; ``digits`` are wiped. Raises PinBlockError: no PIN, or no card number."""
        key = bytearray(os.urandom(sm4.KEY_BYTES))
        try:
            block = pin.encipher(key, PinFormat.ISO_4, digits, card)
            envelope = sm2_encrypt(self._custody.public_key(HOST_ENVELOPE), key)
            epoch = self._custody.import_key(self._LABEL, Kind.PIN, envelope, HOST_ENVELOPE).epoch
        finally:
            wipe(digits, key)
        try:
            return self._custody.pin_offset(block, card, PinZone(self._LABEL, epoch=epoch), CARD_PIN_VERIFY)
        finally:
            self._custody.retire(self._LABEL, epoch)
            self._custody.destroy(self._LABEL, epoch)


def _digits(check_value: bytes) -> str:
    return check_value.hex().upper()


def _label(kind: Kind, epoch: int) -> str:
    """Each epoch of the switch is a label of its own here: numbers are the switch's."""
    return f"zone.{kind.value}.{epoch}"
