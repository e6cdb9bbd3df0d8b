"""What is fuzzed: each target takes any bytes and lets nothing out but a defect.

Faces that read a peer's bytes may raise one documented error; the targets expect it. Where there are two twins, both
must say the same.
"""

import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fengshou.codecs import BadSignature, DeltaWriter, Iso8583Codec, PrivateKey, PublicKey, verify_batch
from fengshou.codecs._verify import paths, take_path
from fengshou.hsm import keyblock
from fengshou.hsm.channel import direct
from fengshou.hsm.custody import Kind, WrappedKeyError
from fengshou.hsm.envelope import parse_envelope
from fengshou.hsm.software import SoftwareCustody
from fengshou.hsm.x509 import CertificateError, parse_certificate
from fengshou.protocol import elements as de
from fengshou.protocol.delta import ReferenceDeltaWriter
from fengshou.protocol.errors import UntrustedBytesError
from fengshou.protocol.grammar import ReferenceCodec
from fengshou.protocol.iso8583 import CHARACTER_FORMAT, HostFormat
from fengshou.protocol.iso8583_mac import ForgedMessage
from fengshou.protocol.iso8583_reference import ReferenceIso8583Codec as Iso8583Reference
from fengshou.protocol.message import Message, Value
from fengshou.protocol.offline import pack_items
from fengshou.protocol.record import parse_commit, parse_record
from fengshou.protocol.session import Codec, DeltaForm, SwitchSession
from fengshou.protocol.templates import SIGN_IN
from fengshou.routing.http import HttpFault, HttpServer
from fengshou.routing.iso8583_mac import AuthenticatedCodec
from fengshou.routing.zone_keys import HOST_MASTER, ZoneHost
from fengshou.switch.config import ConfigError, load
from fengshou.switch.grammar import Catalogue, load_service
from fengshou.switch.site import SERVICES, STANDARD_SERVICES
from fengshou.terminals.key_store import KeyStore, KeysUnfit
from tests.fuzz.wire import Wire

CATALOGUE = Catalogue(load_service(f"{SERVICES}.{name}", {}) for name in STANDARD_SERVICES)
COMPILED, REFERENCE = CATALOGUE.codec, ReferenceCodec(CATALOGUE.grammar)
HOSTS = [(Iso8583Codec(layout), Iso8583Reference(layout)) for layout in (HostFormat(), CHARACTER_FORMAT)]
KEY = PrivateKey.from_scalar(bytes(31) + b"\x07")


_FOLDER = tempfile.TemporaryDirectory()  # ends with the process


def _zone() -> ZoneHost:
    """A back end that has a zone master key and was brought no key yet."""
    custody = SoftwareCustody.initialise(Path(_FOLDER.name) / "keys")
    custody.create(HOST_MASTER, Kind.TRANSPORT)
    return ZoneHost(custody)


ZONE = _zone()


def _outcome(read: Callable[[], object]) -> object:
    """The result, or the documented error in words."""
    try:
        return read()
    except UntrustedBytesError as error:
        return error.error, error.code, str(error)


def channel(data: bytes) -> None:
    """A terminal's wire: the connection without pyOpenSSL between makes of it what pyOpenSSL's does."""
    head, data = data[:1] or b"\0", data[1:]
    at = len(data) * (head[0] & 0x7F) // 0x7F
    found = [Wire(twin).carry(data[:at], data[at:], head[0] > 0x7F) for twin in (direct, lambda whole: whole)]
    assert found[0] == found[1]


def frames(data: bytes) -> None:
    """A stream of frames: both twins find the same ones."""
    assert _outcome(lambda: COMPILED.split(data)) == _outcome(lambda: REFERENCE.split(data))


def messages(data: bytes) -> None:
    """One frame: both twins read the same, and what was read is written as the bytes that were read."""
    found = _outcome(lambda: COMPILED.decode(data))
    assert found == _outcome(lambda: REFERENCE.decode(data))
    if isinstance(found, Message):
        again = COMPILED.encode(found)
        assert again == REFERENCE.encode(found)
        assert again.endswith(data)


def values(data: bytes) -> None:
    """Packed values, as the journal keeps them."""
    found = _outcome(lambda: COMPILED.unpack(data))
    assert found == _outcome(lambda: REFERENCE.unpack(data))


def items(data: bytes) -> None:
    """An offline upload: both twins read the same, and both writers pack alike what the longest part of it says."""
    assert _outcome(lambda: COMPILED.decode_items(data)) == _outcome(lambda: REFERENCE.decode_items(data))
    for size in range(len(data), 0, -1):
        with suppress(UntrustedBytesError):
            template, read = COMPILED.decode_items(data[:size])
            packed = _packed(COMPILED, DeltaWriter(COMPILED), template, read)
            assert packed == _packed(REFERENCE, ReferenceDeltaWriter(CATALOGUE.grammar), template, read)
            assert packed is None or COMPILED.decode_items(packed) == (template, read)
            break


def _packed(codec: Codec, writer: DeltaForm, template: int, items: list[dict[int, Value]]) -> bytes | None:
    """None when one of them has no time of day."""
    try:
        return pack_items(codec, writer, template, items)
    except ValueError:
        return None


def iso8583(data: bytes) -> None:
    """A host's stream and one of its messages, in both layouts."""
    for compiled, reference in HOSTS:
        assert _outcome(lambda it=compiled: it.split(data)) == _outcome(lambda it=reference: it.split(data))  # type: ignore[misc]
        found = _outcome(lambda it=compiled: it.decode(data))  # type: ignore[misc]
        assert found == _outcome(lambda it=reference: it.decode(data))  # type: ignore[misc]
        if isinstance(found, dict):
            assert _outcome(lambda it=compiled, fields=found: it.encode(fields)) == _outcome(  # type: ignore[misc]
                lambda it=reference, fields=found: it.encode(fields)  # type: ignore[misc]
            )


def sign_in(data: bytes) -> None:
    """The body of a sign-in and the session's judgement of it."""
    with suppress(UntrustedBytesError):
        found = COMPILED.decode_body(SIGN_IN.id, False, data)
        message = Message(SIGN_IN.id, 0, 1, found)
        assert SwitchSession(bytes(32)).refusal(message) is None
        assert len(COMPILED.digest(KEY.public_key.za, bytes(32), message, {})) == 32
        assert COMPILED.encode_body(SIGN_IN.id, False, found) == data
        assert de.TERMINAL in found


def keys(data: bytes) -> None:
    """What brings keys: a key change, its key block, an envelope, a sign-in's answer; and a message under a MAC."""
    told = ZONE.take({48: data[:512].decode("latin-1"), 53: "0300100000000000"})
    assert told in ({39: "A0"}, {39: "30"})
    with suppress(WrappedKeyError):
        keyblock.unwrap(bytes(16), data)
    with suppress(WrappedKeyError):
        parse_envelope(data)
    with suppress(KeysUnfit):
        KeyStore.of_key(KEY).take(
            {de.KEY_EPOCH: 1, de.MASTER_EPOCH: 1, de.WORKING_KEYS: data[:60].ljust(60, b"\0"), de.MASTER_KEY: data[60:]}
        )
    with suppress(UntrustedBytesError, ForgedMessage):
        assert str(AuthenticatedCodec(HOSTS[0][0], ZONE).decode(data)[0])[1] == "8", (
            "nobody without the key says anything else"
        )


def journal(data: bytes) -> None:
    """Records and commit headers: what parses is written back as it was."""
    with suppress(UntrustedBytesError):
        assert parse_record(data).to_bytes() == data
    with suppress(UntrustedBytesError):
        assert parse_commit(data).to_bytes() == data


def configuration(data: bytes) -> None:
    """A configuration file."""
    with tempfile.NamedTemporaryFile(suffix=".toml") as file, suppress(ConfigError):
        file.write(data)
        file.flush()
        load(Path(file.name))


def certificate(data: bytes) -> None:
    """What a terminal shows in its handshake."""
    with suppress(CertificateError):
        assert parse_certificate(data).fingerprint


def http(data: bytes) -> None:
    """What a client of a back end sends, in two reads."""
    server = HttpServer(4096)
    with suppress(HttpFault):
        for part in (data[: len(data) // 2], data[len(data) // 2 :]):
            if part:
                server.feed(part)
            server.request()


def signatures(data: bytes) -> None:
    """A digest and a signature, and a public key now and then: kernel and libcrypto agree, alone and among others."""
    digest, signature, point = data[:32].ljust(32, b"\0"), data[32:96].ljust(64, b"\0"), data[96:161]
    keys = [KEY.public_key]
    with suppress(ValueError):
        keys.append(PublicKey(point))
    expected = []
    for key in keys:
        try:
            key.verify(digest, signature)
        except BadSignature:
            expected.append(False)
        else:
            expected.append(True)
    cases = [(key, digest, signature) for key in keys]
    for path in paths():
        take_path(path)
        assert verify_batch(cases) == expected, path
        assert verify_batch(cases * 9) == expected * 9, path


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        channel, frames, messages, values, items, iso8583, sign_in, keys, journal, configuration, certificate, http,
        signatures,
    )
}  # fmt: skip
