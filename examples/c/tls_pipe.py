"""The TLS channel for a program that has none: ``python tls_pipe.py HOME -- PROGRAM …``.

Connects to the switch as the terminal whose folder is HOME (made by ``fengshou terminal enrol``), gives the program the
channel's binding in ``FENGSHOU_BINDING``, and carries bytes between its standard input and output and the switch. It
knows nothing of frames. The system's OpenSSL 3.0 has no suite of RFC 8998; this uses the project's own channel.
"""

import os
import subprocess
import sys
from pathlib import Path

import trio

from fengshou.hsm.channel import TlsStream
from fengshou.terminals.home import Home

_BYTES = 16 * 1024


async def _up(program: trio.Process, channel: TlsStream) -> None:
    assert program.stdout is not None
    async for data in program.stdout:
        await channel.send_all(data)


async def _down(program: trio.Process, channel: TlsStream) -> None:
    assert program.stdin is not None
    async with program.stdin:
        try:
            while data := await channel.receive_some(_BYTES):
                await program.stdin.send_all(data)
        except trio.BrokenResourceError:  # either end is gone; the program sees the end of its input
            return


async def main(home: Home, command: list[str]) -> int:
    """Run the program to its end; its exit status is ours."""
    transport = await trio.open_tcp_stream(*home.address)
    channel = TlsStream.client(transport, home.context(), home.switch_name, server_name=home.identity.terminal.lower())
    await channel.do_handshake()
    environment = {**os.environ, "FENGSHOU_BINDING": channel.binding.hex()}
    program = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_down, program, channel)
        await _up(program, channel)
        status = await program.wait()
        nursery.cancel_scope.cancel()
    await channel.aclose()
    return status


if __name__ == "__main__":
    if len(sys.argv) < 4 or sys.argv[2] != "--":
        raise SystemExit("usage: python tls_pipe.py HOME -- PROGRAM ARGUMENT …")
    raise SystemExit(trio.run(main, Home(Path(sys.argv[1])), sys.argv[3:]))
