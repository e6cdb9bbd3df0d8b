"""TLS contexts that follow their files and key: a renewed certificate, list or key counts without a restart."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from OpenSSL import SSL

from fengshou.hsm.channel import ChannelProfile, Identity, Trust
from fengshou.hsm.custody import Custody, CustodyError

logger = logging.getLogger(__name__)

Make = Callable[[Identity, Trust, ChannelProfile], SSL.Context]
_Stamp = tuple[object, ...]


class LiveContext:
    """Calling it gives the context of this moment. What cannot be used changes nothing: the last good one stands.

    Connections that are up keep what they began with.
    """

    def __init__(
        self, make: Make, certificate: Path, custody: Custody, label: str, trust: Trust, profile: ChannelProfile
    ) -> None:
        """Raises CustodyError: the first one cannot be made."""
        self._make, self._profile, self._trust = make, profile, trust
        self._identity = Identity.of_custody(certificate, custody, label)
        self._custody, self._label = custody, label
        self._files = [file for file in (certificate, trust.authorities, trust.revoked) if file is not None]
        self._stamp = self._refused = self._now()
        self._context = self._made()

    def __call__(self) -> SSL.Context:
        self.refresh()
        return self._context

    @property
    def context(self) -> SSL.Context:
        """As of the last refresh."""
        return self._context

    def refresh(self) -> bool:
        """Whether something was changed and can be used; cheap when nothing was."""
        stamp = self._now()
        if stamp == self._stamp:
            return False
        return self._renew(stamp)

    def renew(self) -> bool:
        """A new context in any case, which forgets the tickets of the old one. False: it cannot be made."""
        return self._renew(self._now())

    def _renew(self, stamp: _Stamp) -> bool:
        try:
            self._context = self._made()
        except CustodyError as error:
            if stamp != self._refused:
                logger.error("certificates are not read again: %s", error)
            self._refused = stamp
            return False
        self._stamp = stamp
        return True

    def _made(self) -> SSL.Context:
        return self._make(self._identity, self._trust, self._profile)

    def _now(self) -> _Stamp:
        try:
            self._custody.refresh()
            epoch = self._custody.key(self._label).epoch
        except CustodyError:
            epoch = 0
        return (epoch, *stamps(self._files))


def stamps(files: Iterable[Path]) -> list[tuple[int, int]]:
    """What changes whenever a file is written or replaced; zeros for one that is not there."""
    found = []
    for file in files:
        try:
            status = file.stat()
            found.append((status.st_mtime_ns, status.st_ino))
        except OSError:
            found.append((0, 0))
    return found
