"""Keys that a link shares with its host: how they get there, and what they protect."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
import trio.testing

from fengshou.codecs import Iso8583Codec, sm2_encrypt
from fengshou.hsm import pin
from fengshou.hsm.custody import Custody, CustodyError, Kind, PinFormat, PinZone
from fengshou.hsm.software import SoftwareCustody
from fengshou.protocol.backend import Fields, PinRefused
from fengshou.protocol.epoch import EpochState
from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.iso8583 import PIN_ISO_4, HostFormat, SecurityControl, answer_mti
from fengshou.protocol.iso8583_mac import ForgedMessage
from fengshou.routing.destination import Failure
from fengshou.routing.iso8583_line import LineSettings
from fengshou.routing.iso8583_link import Iso8583Link
from fengshou.routing.iso8583_mac import AuthenticatedCodec
from fengshou.routing.iso8583_wire import network_answer
from fengshou.routing.zone_keys import PinPad, ZoneHost, ZoneKeys, mac_label, master_label, pin_label
from fengshou.switch.zones import found_zone
from tests.routing.iso8583.scripted import Ends, outbound, until

NAME = "core"
PIN_KEY, MAC_KEY = pin_label(NAME), mac_label(NAME)
CARD = "9156004000001267043"
PLAIN = Iso8583Codec(HostFormat())


class Zone:
    """Both ends' custodies."""

    def __init__(self, folder: Path) -> None:
        self.custody = SoftwareCustody.initialise(folder / "switch")
        self.host_custody = SoftwareCustody.initialise(folder / "host")
        found_zone(self.custody, self.host_custody, NAME)
        self.switch = ZoneKeys(self.custody, NAME)
        self.host = ZoneHost(self.host_custody)

    def agree(self) -> None:
        for key in self.switch.accepted():
            assert self.switch.hear(key, self.host.take(self.switch.change(key)))


@pytest.fixture
def zone(tmp_path: Path) -> Zone:
    return Zone(tmp_path)


# --- the exchange


def test_a_key_is_brought_once_kept_and_known_again(zone: Zone) -> None:
    zone.agree()
    before = zone.host_custody.inventory()
    zone.agree()  # a second line signs on
    assert zone.host_custody.inventory() == before
    assert zone.switch.confirmed == {(PIN_KEY, 1), (MAC_KEY, 1)}


def test_the_host_keeps_two_epochs_and_takes_a_number_that_comes_again(zone: Zone) -> None:
    zone.agree()
    for epoch in (2, 3):
        zone.custody.renew(MAC_KEY)
        zone.agree()
        zone.custody.activate(MAC_KEY, epoch)
    assert [info.label for info in zone.host_custody.inventory() if info.kind is Kind.MAC] == [
        "zone.mac.2", "zone.mac.3",
    ]  # fmt: skip
    with pytest.raises(CustodyError, match=r"zone\.mac\.1"):
        zone.host.authenticator(1)
    assert zone.host.mac_epoch() == 3
    again = zone.custody.key(MAC_KEY, 3)
    damaged = {**zone.switch.change(again), 48: "00000000" + str(zone.switch.change(again)[48])[8:]}
    assert zone.host.take(damaged) == {39: "A0"}
    assert zone.host_custody.key("zone.mac.3").check_value == again.check_value, "what is refused changes nothing"
    other = zone.custody.create("another", Kind.MAC)
    block = zone.custody.export_key("another", master_label(NAME)).decode()
    told = zone.host.take({53: zone.switch.change(again)[53], 48: other.check_value.hex().upper() + block})
    assert told[39] == "00"
    assert zone.host_custody.key("zone.mac.3").check_value == other.check_value


def _changed(message: dict[int, Any], **fields: Any) -> dict[int, Any]:
    return {**message, **{int(name[1:]): value for name, value in fields.items()}}


def test_what_is_no_key_of_this_zone_is_not_kept(zone: Zone, tmp_path: Path) -> None:
    stranger = Zone(tmp_path / "stranger")
    pin_key, mac_key = sorted(zone.switch.accepted(), key=lambda key: key.label == MAC_KEY)
    good = zone.switch.change(pin_key)
    text = str(good[48])
    for wrong, code in (
        (stranger.switch.change(stranger.switch.accepted()[0]), "A0"),  # under another master key
        (_changed(good, f48=text[:-1] + ("0" if text[-1] != "0" else "1")), "A0"),
        (_changed(good, f48="00000000" + text[8:]), "A0"),  # not the check value of the key that is in it
        (_changed(good, f48=text[:8]), "A0"),
        (_changed(good, f48=""), "A0"),
        (_changed(good, f53=zone.switch.change(mac_key)[53]), "A0"),  # a PIN key that is said to authenticate
        (_changed(good, f53="0" * 16), "30"),
        (_changed(good, f53=SecurityControl(0, 1, 1).digits), "30"),
        ({}, "30"),
    ):  # fmt: skip
        assert zone.host.take(wrong) == {39: code}
        assert not [info for info in zone.host_custody.inventory() if info.kind in (Kind.PIN, Kind.MAC)]
    assert not zone.switch.hear(pin_key, {39: "00", 48: "00000000"})
    assert not zone.switch.hear(pin_key, {39: "A0", 48: text[:8]})


# --- PINs at the host


def test_a_pin_is_verified_under_the_epoch_that_the_message_names(zone: Zone) -> None:
    zone.agree()
    offset = PinPad(zone.host_custody).offset(CARD, bytearray(b"2468"))
    assert not [info for info in zone.host_custody.inventory() if info.label == "zone.pad"]
    terminal = _import(zone.custody, "terminal", bytes(range(16)))

    def message(digits: bytes, epoch: int, named: int | None = None, form: int = PIN_ISO_4) -> Fields:
        block = pin.encipher(bytes(range(16)), PinFormat.ISO_4, digits, CARD)
        moved = zone.custody.translate_pin(block, CARD, PinZone(terminal), PinZone(PIN_KEY, epoch=epoch))
        return {2: CARD, 52: moved, 53: SecurityControl(form, named or epoch).digits}

    zone.custody.renew(PIN_KEY)
    zone.agree()
    for epoch in (1, 2):
        zone.host.verify(message(b"2468", epoch), offset)
    for wrong, code in (
        (message(b"2469", 1), "55"), (message(b"2468", 1, named=2), "99"), (message(b"2468", 1, form=7), "99"),
        (message(b"2468", 1, named=9), "96"),
    ):  # fmt: skip
        with pytest.raises(PinRefused) as refused:
            zone.host.verify(wrong, offset)
        assert refused.value.code == code


def _import(custody: Custody, label: str, key: bytes) -> str:
    custody.create("envelope", Kind.ENVELOPE)
    custody.import_key(label, Kind.PIN, sm2_encrypt(custody.public_key("envelope"), key), "envelope")
    return label


# --- the MAC

MESSAGE: dict[int, Any] = {0: "0200", 3: "010000", 4: "000000010000", 7: "0712100000", 11: "000417", 37: "619300000417",
                           41: "FS000001"}  # fmt: skip


@pytest.mark.parametrize("more", [{}, {102: "9020000000104729"}, {53: SecurityControl(PIN_ISO_4, 1).digits}])
def test_every_bit_of_a_message_counts(zone: Zone, more: dict[int, Any]) -> None:
    zone.agree()
    switch, host = AuthenticatedCodec(PLAIN, zone.switch), AuthenticatedCodec(PLAIN, zone.host)
    message = switch.encode({**MESSAGE, **more})
    fields = host.decode(message)
    assert {key: fields[key] for key in MESSAGE} == MESSAGE
    assert not {64, 128} & fields.keys()
    for bit in range(8 * len(message)):
        altered = bytearray(message)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises((ForgedMessage, UntrustedBytesError)):
            host.decode(bytes(altered))
    with pytest.raises(ForgedMessage):
        host.decode(PLAIN.encode({**MESSAGE, **more}))  # without one
    swapped = PLAIN.encode({**MESSAGE, **more, 64: message[-8:]})
    with pytest.raises(ForgedMessage):
        host.decode(swapped)


def test_keys_of_a_retired_epoch_protect_nothing(zone: Zone) -> None:
    zone.agree()
    batch = AuthenticatedCodec(PLAIN, zone.switch)
    old = batch.encode(MESSAGE)
    zone.custody.renew(MAC_KEY)
    zone.agree()
    zone.custody.activate(MAC_KEY, 2)
    host = AuthenticatedCodec(PLAIN, zone.host)
    assert host.decode(old)[53] != host.decode(AuthenticatedCodec(PLAIN, zone.switch).encode(MESSAGE))[53]
    zone.custody.retire(MAC_KEY, 1)
    with pytest.raises(ForgedMessage):
        AuthenticatedCodec(PLAIN, zone.switch).decode(old)
    with pytest.raises(CustodyError, match="retired"):
        AuthenticatedCodec(PLAIN, zone.switch).encode({**MESSAGE, 53: SecurityControl(mac_epoch=1).digits})


# --- a link and a host that share keys


class Host:
    """A host with keys, on streams in memory. ``alter`` changes what it answers, ``code`` is what key changes get."""

    def __init__(self, nursery: trio.Nursery, zone: Zone) -> None:
        self.zone = zone
        self.alter: Callable[[bytes], bytes] = lambda frame: frame
        self.code = ""
        self.heard: list[Fields] = []
        self._nursery = nursery

    async def connect(self) -> trio.abc.Stream:
        link_end, host_end = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, host_end)
        return link_end

    async def _serve(self, stream: Any) -> None:
        buffer = bytearray()
        try:
            while data := await stream.receive_some():
                buffer += data
                codec = AuthenticatedCodec(PLAIN, self.zone.host)
                messages, used = codec.split(buffer)
                del buffer[:used]
                for fields in map(codec.decode, messages):
                    self.heard.append(fields)
                    if fields.get(70) == "161":
                        told = {39: self.code} if self.code else self.zone.host.take(fields)
                        await stream.send_all(PLAIN.frame(network_answer(fields, told)))
                    elif fields[0] == "0800":
                        await stream.send_all(PLAIN.frame(network_answer(fields)))
                    elif fields[0] == "0200":
                        answer = {number: fields[number] for number in (7, 11, 37, 41, 53)}
                        frame = codec.frame({**answer, 0: answer_mti("0200"), 39: "00"})
                        await stream.send_all(self.alter(frame))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


def play(zone: Zone, scenario: Callable[[Host, Iso8583Link, Ends], Awaitable[None]]) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            host, ends = Host(nursery, zone), Ends()
            link = Iso8583Link(
                NAME, [host.connect], HostFormat(), Random(7), line=LineSettings(30.0, 5.0), now_us=lambda: 0,
                zone=zone.switch, mac=True,
            )  # fmt: skip
            async with trio.open_nursery() as running:
                running.start_soon(link.run, ends)
                await scenario(host, link, ends)
                running.cancel_scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_link_is_up_when_the_host_has_the_keys_and_brings_further_ones(zone: Zone) -> None:
    async def scenario(host: Host, link: Iso8583Link, ends: Ends) -> None:
        host.code = "96"
        await trio.sleep(60)
        assert not link.up, "a host without the current keys gets no calls"
        host.code = ""
        await until(lambda: link.up)
        link.submit([outbound(1, trio.current_time() + 5)])
        await until(lambda: 1 in ends.results)
        zone.custody.renew(MAC_KEY)
        host.code = "96"
        link.keys_changed()
        await trio.sleep(5)
        assert link.up, "one that waits may wait"
        assert (MAC_KEY, 2) not in zone.switch.confirmed
        host.code = ""
        link.keys_changed()
        await until(lambda: (MAC_KEY, 2) in zone.switch.confirmed)
        zone.custody.activate(MAC_KEY, 2)
        link.submit([outbound(2, trio.current_time() + 5)])
        await until(lambda: 2 in ends.results)
        assert ends.results == {1: "00", 2: "00"}
        assert [SecurityControl.parse(str(f[53])).mac_epoch for f in host.heard if f[0] == "0200"] == [1, 2]
        assert link.connects > 1
        assert zone.custody.key(MAC_KEY, 1).state is EpochState.RETIRING

    play(zone, scenario)


def test_an_answer_that_was_altered_never_came(zone: Zone) -> None:
    async def scenario(host: Host, link: Iso8583Link, ends: Ends) -> None:
        await until(lambda: link.up)
        host.alter = lambda frame: frame[:-9] + bytes((frame[-9] ^ 1,)) + frame[-8:]
        link.submit([outbound(1, trio.current_time() + 5)])
        await until(lambda: 1 in ends.results)
        assert ends.results[1] is Failure.UNKNOWN
        assert link.forged == 1
        assert link.up

    play(zone, scenario)


def test_without_a_key_nothing_leaves(zone: Zone) -> None:
    async def scenario(host: Host, link: Iso8583Link, ends: Ends) -> None:
        await until(lambda: link.up)
        zone.custody.retire(MAC_KEY, 1)
        link.submit([outbound(1, trio.current_time() + 5)])
        await until(lambda: 1 in ends.results)
        assert ends.results[1] is Failure.UNAVAILABLE

    play(zone, scenario)


def test_the_master_key_of_both_ends_is_one(zone: Zone) -> None:
    check_value = zone.custody.key(master_label(NAME)).check_value
    assert zone.host_custody.key("zone.master").check_value == check_value
