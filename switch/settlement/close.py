"""The close of a month or day: what it came to is written once and never again."""

import os
from collections.abc import Iterable
from pathlib import Path

from fengshou.codecs import sm3
from fengshou.switch.settlement.commission import Commission


class CloseError(Exception):
    """The month or day cannot be closed; the text says why."""


def close_month(folder: Path, month: int, today: int, earned: Iterable[Commission]) -> Path:
    """Write commissions of a month (YYYYMM) that is over by ``today`` (YYYYMMDD); returns the file.

    CSV whose last line is ``S,`` and SM3 of all bytes before it, as in a day file. Raises CloseError.
    """
    if today // 100 <= month:
        raise CloseError(f"{month} is not over: it can be closed on the first business day of the next month")
    rows = [f"{one.merchant},{one.transactions},{one.volume_fen},{one.earned_fen},{one.payable_fen}" for one in earned]
    body = "\n".join(["merchant,transactions,volume_fen,earned_fen,payable_fen", *rows, ""]).encode("ascii")
    return write_once(folder / f"commission-{month}.csv", body)


def write_once(file: Path, body: bytes) -> Path:
    """The file with the line ``S,`` and SM3 of all bytes before it, whole or not at all, and never again.

    Raises CloseError: it is there already.
    """
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = file.with_suffix(f".{os.getpid()}.part")
    try:
        with part.open("wb") as out:
            out.write(body + b"S," + sm3(body).hex().encode("ascii") + b"\n")
            out.flush()
            os.fsync(out.fileno())
        os.link(part, file)
    except FileExistsError:
        raise CloseError(f"it is closed already: {file}") from None
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return file
