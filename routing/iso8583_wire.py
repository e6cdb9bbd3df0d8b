"""What both ends of an ISO 8583 link share: messages off a stream, and network management (08xx)."""

from collections.abc import Callable, Iterator

from fengshou.protocol.backend import Fields
from fengshou.protocol.codes import APPROVED
from fengshou.protocol.iso8583 import MTI, Codec, answer_mti
from fengshou.protocol.iso8583_mac import ForgedMessage

# One read. A batch of 200 requests of 12 fields fits it.
READ_BYTES = 64 * 1024


def mti_of(fields: Fields) -> str:
    mti = fields[MTI]
    assert isinstance(mti, str), "the codec gives digits"
    return mti


def is_network(fields: Fields) -> bool:
    """Sign-on, sign-off, echo and their answers."""
    return fields[MTI][1] == "8"


def is_request(fields: Fields) -> bool:
    """The function digit of requests and advices is even, that of their answers odd."""
    return mti_of(fields)[2] in "02468"


def network_answer(request: Fields, told: Fields | None = None) -> dict[int, str | bytes]:
    """The 0810 to a 0800: its own fields, approved unless ``told`` says otherwise."""
    kept = {number: request[number] for number in (7, 11, 32, 33, 70) if number in request}
    return {MTI: answer_mti(mti_of(request)), **kept, 39: APPROVED, **(told or {})}


def refusal(request: Fields, code: str) -> dict[int, str | bytes]:
    """An answer that says nothing but why there is no other: what tells calls apart, and the code."""
    kept = {number: request[number] for number in (3, 4, 7, 11, 12, 13, 32, 37, 41, 42, 49) if number in request}
    return {MTI: answer_mti(mti_of(request)), **kept, 39: code}


def drain(
    codec: Codec, buffer: bytearray, forged: Callable[[Fields], None] = lambda fields: None
) -> Iterator[dict[int, str | bytes]]:
    """The whole messages in ``buffer``, decoded, while their bytes leave it; those with a false MAC go to ``forged``.

    Raises UntrustedBytesError after giving every message before the fault; the stream has no more meaning then.
    """
    while True:
        messages, used = codec.split(buffer)
        if used == 0:
            return
        del buffer[:used]
        for message in messages:
            try:
                yield codec.decode(message)
            except ForgedMessage as error:
                forged(error.fields)
