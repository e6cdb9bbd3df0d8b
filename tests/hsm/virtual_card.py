"""An SM2 card in software for the virtual reader vpcd, after both profiles of hsm/_card_profiles.py.

    python virtual_card.py PORT STATE

vpcd listens on PORT; the card connects, and drawing the card is ending this process. STATE is a folder with ``scalar``
and ``pin``; the card keeps ``tries`` and ``share`` there, as real ones do in their memory, and counts ``signatures``.
"""

import os
import socket
import sys
from pathlib import Path

from fengshou.codecs import PrivateKey, sm3
from fengshou.hsm import sm4

ATR = bytes.fromhex("3B878101534D322D46502B3B")
TRIES = 3
OK, WRONG_LENGTH, DENIED, BLOCKED = 0x9000, 0x6700, 0x6982, 0x6983
WRONG_DATA, NO_ROOM, NO_FILE, WRONG_PARAMETERS, NO_KEY, NO_COMMAND, NO_CLASS = (
    0x6A80,
    0x6A84,
    0x6A82,
    0x6A86,
    0x6A88,
    0x6D00,
    0x6E00,
)
APPLICATION = b"FENGSHOU"
FILE_BYTES = 64


class Refused(Exception):
    pass


class Card:
    def __init__(self, state: Path) -> None:
        self.state = state
        self.key = PrivateKey.from_scalar((state / "scalar").read_bytes())
        self.pin = (state / "pin").read_bytes()
        self.reset()

    def reset(self) -> None:
        self.open = False
        self.file_selected = self.key_selected = False
        self.challenge = b""
        self.rest = b""  # of a long answer, for GET RESPONSE

    @property
    def tries(self) -> int:
        path = self.state / "tries"
        return int(path.read_text()) if path.exists() else TRIES

    def present(self, good: bool) -> bytes:
        left = self.tries
        if left == 0:
            raise Refused(BLOCKED)
        (self.state / "tries").write_text(str(TRIES if good else left - 1))
        self.open = good
        if not good:
            raise Refused(0x63C0 | left - 1)
        return b""

    def need_pin(self) -> None:
        if not self.open:
            raise Refused(DENIED)

    def sign(self, digest: bytes) -> bytes:
        self.need_pin()
        if len(digest) != 32:
            raise Refused(WRONG_LENGTH)
        count = self.state / "signatures"
        count.write_text(str(int(count.read_text()) + 1 if count.exists() else 1))
        signature = self.key.sign(digest)
        return bytes(64) if (self.state / "faulty").exists() else signature

    def file(self) -> bytes:
        self.need_pin()
        path = self.state / "share"
        return path.read_bytes() if path.exists() else b"\xff" * FILE_BYTES

    def read(self, offset: int, count: int) -> bytes:
        return self.file()[offset : offset + count]

    def write(self, offset: int, data: bytes) -> bytes:
        content = self.file()
        if offset + len(data) > FILE_BYTES:
            raise Refused(NO_ROOM)
        (self.state / "share").write_bytes(content[:offset] + data + content[offset + len(data) :])
        return b""

    # --- commands

    def answer(self, apdu: bytes) -> bytes:
        try:
            data = {0x00: self.iso, 0x80: self.gmt}.get(apdu[0], self.no_class)(apdu)
            if apdu[0] == 0x00 and apdu[1] != 0xC0 and len(data) > 64:
                data, self.rest = b"", data  # as cards on T=0 do: "61xx, come and fetch it"
                return (0x6100 | len(self.rest)).to_bytes(2, "big")
            return data + OK.to_bytes(2, "big")
        except Refused as refusal:
            return int(refusal.args[0]).to_bytes(2, "big")

    def no_class(self, apdu: bytes) -> bytes:
        raise Refused(NO_CLASS)

    def iso(self, apdu: bytes) -> bytes:
        ins, p1p2 = apdu[1], apdu[2] << 8 | apdu[3]
        body = apdu[5 : 5 + apdu[4]] if len(apdu) > 5 else b""
        wanted = apdu[-1] if len(apdu) in (5, 6 + len(body)) else None
        match ins, p1p2:
            case 0xC0, 0:
                rest, self.rest = self.rest, b""
                return rest
            case 0xA4, 0x0400:
                if body != APPLICATION:
                    raise Refused(NO_FILE)
            case 0xA4, 0x020C:
                self.file_selected = body == b"\x01\x01"
                if not self.file_selected:
                    raise Refused(NO_FILE)
            case 0x20, 0x0081:
                return self.present(body == self.pin)
            case 0x46, 0x8100:
                if body != bytes.fromhex("B603840101"):
                    raise Refused(NO_KEY)
                return bytes.fromhex("7F49438641") + self.key.public_key.point
            case 0x22, 0x41B6:
                self.key_selected = body == bytes.fromhex("800115840101")
                if not self.key_selected:
                    raise Refused(NO_KEY)
            case 0x2A, 0x9E9A:
                if not self.key_selected:
                    raise Refused(NO_KEY)
                if wanted != 64:
                    raise Refused(0x6C40)
                return self.sign(body)
            case 0x84, 0:
                return os.urandom(wanted or 0)
            case 0xB0, offset:
                if not self.file_selected:
                    raise Refused(NO_FILE)
                return self.read(offset, wanted or 0)
            case 0xD6, offset:
                if not self.file_selected:
                    raise Refused(NO_FILE)
                return self.write(offset, body)
            case _:
                raise Refused(NO_COMMAND)
        return b""

    def gmt(self, apdu: bytes) -> bytes:
        ins, p1, p2 = apdu[1:4]
        size = int.from_bytes(apdu[5:7], "big") if len(apdu) > 7 else 0
        body = apdu[7 : 7 + size]
        if len(apdu) > 4 and apdu[4] != 0:
            raise Refused(WRONG_LENGTH)
        match ins:
            case 0x26:
                if body != APPLICATION:
                    raise Refused(NO_FILE)
                return bytes(8) + b"\x00\x11"
            case 0x50:
                self.challenge = os.urandom(int.from_bytes(apdu[-2:], "big"))
                return self.challenge
            case 0x42:
                return self.within(body, lambda name: b"\x00\x22" if name == b"SIGN" else b"")
            case 0x18:
                block = b"\x80\x00" + self.challenge + b"\x00\x80" + bytes(4)
                proof = sm4.ecb_encrypt(sm3(self.pin)[:16], block) if len(self.challenge) == 8 else b""
                self.challenge = b""
                return self.within(body, lambda given: self.present(given == proof) or b"\0")[1:]
            case 0x88 if p1 == 1:
                return self.within(body, lambda name: self.numbers(name == b"\x00\x22", self.key.public_key.point[1:]))
            case 0x74 if p1 == 2:
                return self.within(body, lambda rest: self.numbers(rest[:2] == b"\x00\x22", self.sign(rest[2:])))
            case 0x38:
                return self.within(body, self.read_file)
            case 0x3A:
                return self.within(body, self.write_file)[1:]
            case _:
                raise Refused(NO_COMMAND if (p1, p2) == (0, 0) else WRONG_PARAMETERS)

    def within(self, body: bytes, act) -> bytes:  # type: ignore[no-untyped-def]
        answer = act(body[2:]) if body[:2] == b"\x00\x11" else b""
        if not answer:
            raise Refused(NO_KEY)
        return answer

    @staticmethod
    def numbers(good: bool, pair: bytes) -> bytes:
        return (256).to_bytes(4, "big") + pair if good else b""

    def read_file(self, rest: bytes) -> bytes:
        self.check_file(rest[4:11])
        return self.read(int.from_bytes(rest[:2], "big"), int.from_bytes(rest[2:4], "big"))

    def write_file(self, rest: bytes) -> bytes:
        self.check_file(rest[2:9])
        self.write(int.from_bytes(rest[:2], "big"), rest[11 : 11 + int.from_bytes(rest[9:11], "big")])
        return b"\0"

    @staticmethod
    def check_file(name: bytes) -> None:
        if name != b"\x00\x05SHARE":
            raise Refused(NO_FILE)


def serve(port: int, card: Card) -> None:
    with socket.create_connection(("127.0.0.1", port)) as reader:
        reader.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            message = receive(reader, int.from_bytes(receive(reader, 2), "big"))
            if len(message) > 1:
                send(reader, card.answer(message))
            elif message == b"\x04":
                send(reader, ATR)
            else:  # power off, power on, reset
                card.reset()


def receive(reader: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        # Linux forgets this after a while; without it vpcd's next segment waits 40 ms for our acknowledgement.
        reader.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        part = reader.recv(count - len(data))
        if not part:
            sys.exit()
        data += part
    return data


def send(reader: socket.socket, data: bytes) -> None:
    reader.sendall(len(data).to_bytes(2, "big") + data)


if __name__ == "__main__":
    serve(int(sys.argv[1]), Card(Path(sys.argv[2])))
