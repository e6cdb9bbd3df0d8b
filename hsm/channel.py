"""The security channel: TLS 1.3 by RFC 8998 with SM2 certificates on both sides.

A context says who we are, whom we trust and which suites we admit; make it once and share it. Then either
``TlsStream`` wraps any Trio stream, or, for the listener of terminals, a ``SSL.Connection`` is bound to the socket
itself and driven by whoever owns that; ``explain`` says what a failure of it means. ``exporter`` gives the value that
binds signatures to the session, ``peer_certificate`` the facts to compare with the registry.
"""

from fengshou.hsm._connection import (
    ChannelError,
    Fault,
    check_peer_name,
    check_still_valid,
    explain,
    exporter,
    peer_certificate,
    session_of,
)
from fengshou.hsm._contexts import (
    INTERNATIONAL,
    NARROW,
    NATIONAL,
    PROFILES,
    ChannelProfile,
    Identity,
    Trust,
    client_context,
    server_context,
    terminal_server_context,
)
from fengshou.hsm._openssl import direct, in_memory, session_reused
from fengshou.hsm._stream import TlsStream

__all__ = [
    "INTERNATIONAL",
    "NARROW",
    "NATIONAL",
    "PROFILES",
    "ChannelError",
    "ChannelProfile",
    "Fault",
    "Identity",
    "TlsStream",
    "Trust",
    "check_peer_name",
    "check_still_valid",
    "client_context",
    "direct",
    "explain",
    "exporter",
    "in_memory",
    "peer_certificate",
    "server_context",
    "session_of",
    "session_reused",
    "terminal_server_context",
]
