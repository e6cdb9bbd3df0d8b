"""Mutations of seeds, for short runs and for machines without a coverage-guided fuzzer."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

CORPUS = Path(__file__).parent / "corpus"
_EDGES = (b"\0", b"\xff", b"\x7f", b"\x80", b"\0\0", b"\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0\0\0\0\0\0\x01")


def seeds(target: str) -> list[bytes]:
    """The kept inputs of a target, in the order of their names."""
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def mutations(kept: Sequence[bytes], random: Random) -> Iterator[bytes]:
    """Without end: each a seed with one to eight changes."""
    while True:
        data = bytearray(random.choice(kept))
        for _ in range(random.randint(1, 8)):
            at = random.randrange(len(data) + 1)
            match random.randrange(6):
                case 0 if at < len(data):
                    data[at] ^= 1 << random.randrange(8)
                case 1:
                    data[at:at] = random.randbytes(random.randint(1, 8))
                case 2:
                    del data[at : at + random.randint(1, 16)]
                case 3:
                    edge = random.choice(_EDGES)
                    data[at : at + len(edge)] = edge
                case 4:
                    other = random.choice(kept)
                    data[at:] = other[random.randrange(len(other) + 1) :]
                case _:
                    data[at:at] = data[at : at + random.randint(1, 32)]
        yield bytes(data[:4096])
