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

    def accepted(self) -> list[tuple[str, int]]:
        """Label and epoch of every key that the back end should have."""
        infos = self._custody.inventory()
        return [(info.label, info.epoch) for info in infos if info.label in self.labels and info.state in ACCEPTING]

    def change(self, label: str, epoch: int) -> dict[int, str | bytes]:
        """DE 48 and 53 that bring a key. Raises CustodyError."""
        is_pin = self.labels[label] is Kind.PIN
        block = self._custody.export_key(label, self._master, epoch=epoch)
        check_value = self._custody.key(label, epoch).check_value.hex().upper()
        control = SecurityControl(pin_epoch=epoch) if is_pin else SecurityControl(mac_epoch=epoch)
        return {48: check_value + block.decode("ascii"), 53: control.digits}

    def mac_epoch(self) -> int:
        return self._custody.key(self._mac).epoch

    def mac(self, epoch: int, data: bytes) -> bytes:
        return self._custody.mac(self._mac, data, epoch)

    def verify_mac(self, epoch: int, data: bytes, mac: bytes) -> None:
        self._custody.verify_mac(self._mac, data, mac, epoch)

    def hear(self, label: str, epoch: int, answer: Fields) -> bool:
        """Whether the back end has the key now."""
        check_value = self._custody.key(label, epoch).check_value.hex().upper()
        has = answer.get(39) == APPROVED and answer.get(48) == check_value
        (self.confirmed.add if has else self.confirmed.discard)((label, epoch))
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
            if self._check_value(label) != check_value:
                self._forget(label)
                kept = self._custody.import_key(label, kind, block.encode("ascii"), HOST_MASTER)
                if kept.check_value.hex().upper() != check_value:
                    self._forget(label)
                    return {39: MAC_ERROR}
                self._forget_old(kind)
        except CustodyError:
            return {39: MAC_ERROR}
        return {39: APPROVED, 48: check_value}

    def mac_epoch(self) -> int:
        """Of an answer: that of its request, which stands in it, so this is for what begins here. The newest."""
        held = [info for info in self._infos() if info.label.startswith(_label(Kind.MAC, 0)[:-1])]
        if not held:
            raise CustodyError("the peer has brought no authentication key yet")
        return int(max(held, key=lambda info: info.created).label.rpartition(".")[2])

    def mac(self, epoch: int, data: bytes) -> bytes:
        return self._custody.mac(_label(Kind.MAC, epoch), data)

    def verify_mac(self, epoch: int, data: bytes, mac: bytes) -> None:
        self._custody.verify_mac(_label(Kind.MAC, epoch), data, mac)

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

    def _check_value(self, label: str) -> str:
        return next((info.check_value.hex().upper() for info in self._infos() if info.label == label), "")

    def _infos(self) -> Iterator[KeyInfo]:
        return (info for info in self._custody.inventory() if info.state is not EpochState.RETIRED)

    def _forget(self, label: str) -> None:
        for info in list(self._infos()):
            if info.label == label:
                self._custody.retire(label, info.epoch)
                self._custody.destroy(label, info.epoch)

    def _forget_old(self, kind: Kind) -> None:
        prefix = _label(kind, 0)[:-1]
        held = sorted((info.created, info.label) for info in self._infos() if info.label.startswith(prefix))
        for _, label in held[:-_HOST_EPOCHS_KEPT]:
            self._forget(label)


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


def _label(kind: Kind, epoch: int) -> str:
    """Each epoch of the switch is a label of its own here: numbers are the switch's."""
    return f"zone.{kind.value}.{epoch}"
