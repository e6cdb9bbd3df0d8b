"""A Unix socket that answers every connection with what the switch says of itself, see ``status``."""

import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio

Answer = Callable[[], Awaitable[dict[str, Any]]]


async def serve_status(path: Path, answer: Answer, task_status: trio.TaskStatus[None]) -> None:
    """Answer until cancelled. It has started when a question is answered."""
    with suppress(FileNotFoundError):
        path.unlink()
    listening = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    await listening.bind(str(path))
    path.chmod(0o600)
    listening.listen(8)
    task_status.started()
    try:
        await trio.serve_listeners(partial(_reply, answer), [trio.SocketListener(listening)])
    finally:
        with suppress(FileNotFoundError):
            path.unlink()


async def _reply(answer: Answer, stream: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError):
        async with stream:
            await stream.send_all(msgspec.json.encode(await answer()) + b"\n")
