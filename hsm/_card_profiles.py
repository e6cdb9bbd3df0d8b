"""How a card is spoken to. A profile is a table of commands; it holds no connection and no PIN."""

from dataclasses import dataclass
from typing import Protocol

from fengshou.codecs import PublicKey, sm3
from fengshou.hsm import sm4
from fengshou.hsm._pcsc import CardError, Command, Link

_POINT_BYTES = 65


class Profile(Protocol):
    """The commands of one kind of card. ``select`` comes first on every connection, then ``present``."""

    def select(self, link: Link) -> None: ...

    def present(self, link: Link, pin: bytes) -> None:
        """Raises WrongPin, CardBlocked."""
        ...

    def public_key(self, link: Link) -> PublicKey: ...

    def sign(self, link: Link, digest: bytes) -> bytes:
        """r || s over e, 32 bytes."""
        ...

    def random(self, link: Link, count: int) -> bytes: ...

    def read(self, link: Link, offset: int, count: int) -> bytes:
        """Bytes of the file for a custodian's shares."""
        ...

    def write(self, link: Link, offset: int, data: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Iso7816:
    """Cards by ISO 7816-4 and -8. The byte that names SM2 to the security environment is the vendor's."""

    application: bytes = b"FENGSHOU"  # AID
    key_reference: int = 1
    algorithm: int = 0x15
    pin_reference: int = 0x81
    share_file: int = 0x0101

    def select(self, link: Link) -> None:
        link.send(Command(0x00, 0xA4, 0x04, 0x00, self.application))

    def present(self, link: Link, pin: bytes) -> None:
        link.send(Command(0x00, 0x20, 0x00, self.pin_reference, pin))

    def public_key(self, link: Link) -> PublicKey:
        # GENERATE ASYMMETRIC KEY PAIR, P1 81: give the public key of the pair that is there (ISO 7816-8 section 5.1).
        template = bytes((0xB6, 0x03, 0x84, 0x01, self.key_reference))
        answer = link.send(Command(0x00, 0x46, 0x81, 0x00, template, 0))
        # 7F49 (public key) around 86 (point).
        head = bytes((0x7F, 0x49, _POINT_BYTES + 2, 0x86, _POINT_BYTES))
        if len(answer) != len(head) + _POINT_BYTES or not answer.startswith(head):
            raise CardError("the card gave no SM2 public key", 0x9000)
        return _key(answer[len(head) :])

    def sign(self, link: Link, digest: bytes) -> bytes:
        # MANAGE SECURITY ENVIRONMENT: SET for digital signatures, then PSO: COMPUTE DIGITAL SIGNATURE.
        control = bytes((0x80, 0x01, self.algorithm, 0x84, 0x01, self.key_reference))
        link.send(Command(0x00, 0x22, 0x41, 0xB6, control))
        return link.send(Command(0x00, 0x2A, 0x9E, 0x9A, digest, 64))

    def random(self, link: Link, count: int) -> bytes:
        return link.send(Command(0x00, 0x84, 0x00, 0x00, answer_bytes=count))

    def read(self, link: Link, offset: int, count: int) -> bytes:
        self._select_file(link)
        return link.send(Command(0x00, 0xB0, offset >> 8, offset & 0xFF, answer_bytes=count))

    def write(self, link: Link, offset: int, data: bytes) -> None:
        self._select_file(link)
        link.send(Command(0x00, 0xD6, offset >> 8, offset & 0xFF, data))

    def _select_file(self, link: Link) -> None:
        link.send(Command(0x00, 0xA4, 0x02, 0x0C, self.share_file.to_bytes(2, "big")))


@dataclass(frozen=True, slots=True)
class Gmt0017:
    """Tokens by GM/T 0017. Application and container are opened by name for each command: ids last for a session."""

    application: str = "FENGSHOU"
    container: str = "SIGN"
    share_file: str = "SHARE"

    def select(self, link: Link) -> None:
        self._application(link)

    def present(self, link: Link, pin: bytes) -> None:
        # Section 9.2: the PIN itself stays here; the card sees a fresh block under a key made from it.
        challenge = self.random(link, 8)
        block = b"\x80\x00" + challenge + b"\x00\x80" + bytes(4)
        proof = bytes(sm4.ecb_encrypt(sm3(pin)[:16], block))
        link.send(self._command(0x18, p2=0x01, data=self._application(link) + proof))

    def public_key(self, link: Link) -> PublicKey:
        answer = link.send(self._command(0x88, p1=0x01, data=self._container(link), answer_bytes=68))
        return _key(b"\x04" + _numbers(answer))

    def sign(self, link: Link, digest: bytes) -> bytes:
        # P1 02: the data are the digest already.
        return _numbers(link.send(self._command(0x74, p1=0x02, data=self._container(link) + digest, answer_bytes=0)))

    def random(self, link: Link, count: int) -> bytes:
        return link.send(self._command(0x50, answer_bytes=count))

    def read(self, link: Link, offset: int, count: int) -> bytes:
        what = offset.to_bytes(2, "big") + count.to_bytes(2, "big") + self._file()
        return link.send(self._command(0x38, data=self._application(link) + what, answer_bytes=count))

    def write(self, link: Link, offset: int, data: bytes) -> None:
        what = offset.to_bytes(2, "big") + self._file() + len(data).to_bytes(2, "big") + data
        link.send(self._command(0x3A, data=self._application(link) + what))

    def _application(self, link: Link) -> bytes:
        answer = link.send(self._command(0x26, data=self.application.encode(), answer_bytes=10))
        return answer[-2:]

    def _container(self, link: Link) -> bytes:
        application = self._application(link)
        answer = link.send(self._command(0x42, data=application + self.container.encode(), answer_bytes=2))
        return application + answer

    def _file(self) -> bytes:
        name = self.share_file.encode()
        return len(name).to_bytes(2, "big") + name

    @staticmethod
    def _command(ins: int, p1: int = 0, p2: int = 0, data: bytes = b"", answer_bytes: int | None = None) -> Command:
        return Command(0x80, ins, p1, p2, data, answer_bytes, extended=True)


def _numbers(answer: bytes) -> bytes:
    """Both numbers of a structure that begins with their length in bits."""
    if len(answer) != 4 + 64 or int.from_bytes(answer[:4], "big") != 256:
        raise CardError("the card gave no structure of two SM2 numbers", 0x9000)
    return answer[4:]


def _key(point: bytes) -> PublicKey:
    try:
        return PublicKey(point)
    except ValueError:
        raise CardError("the card's public key is no point of the curve", 0x9000) from None
