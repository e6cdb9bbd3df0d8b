"""What a terminal does with a receipt that no key which it believes has signed: it asks the switch whose key that is.

::

    receipt ─ signer unknown ─► template 22 ─► certificate: of an authority that is trusted, for this purpose, in date
                                                  │ yes: believed besides the old ones, the receipt is verified again
                                                  └ no: the receipt proves nothing
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from fengshou.codecs import PublicKey
from fengshou.hsm.channel import Trust
from fengshou.hsm.x509 import PUBLISHER, CertificateError, parse_certificate
from fengshou.protocol import elements as de
from fengshou.protocol.codes import APPROVED
from fengshou.protocol.message import Value
from fengshou.protocol.record import Record
from fengshou.terminals.answers import TerminalError
from fengshou.terminals.home import Home, add_switch_key
from fengshou.terminals.receipt import SignerUnknown

logger = logging.getLogger(__name__)

# The common name in the certificate of a switch's signing key: other publishers sign other things.
SIGNER_NAME = "switch-sign"

Ask = Callable[[], Awaitable[Mapping[int, Value]]]
Prove = Callable[[Sequence[PublicKey]], Record]


class SignerDialogue:
    """Of the keys that a home believes receipts by."""

    def __init__(self, home: Home) -> None:
        """Raises HomeError."""
        self._home = home
        self._keys = home.switch_keys()

    async def proved(self, prove: Prove, ask: Ask) -> Record:
        """The record that ``prove`` finds with the keys that are believed, or with the one that the switch names.

        ``ask`` sends template 22 and gives the values of its answer. Raises ReceiptInvalid, and what ``ask`` raises
        but TerminalError: then the receipt is not proved.
        """
        try:
            return prove(self._keys)
        except SignerUnknown:
            if not await self._learns(ask):
                raise
        return prove(self._keys)

    async def _learns(self, ask: Ask) -> bool:
        try:
            told = await ask()
            key = signer_of(told, self._home.trust) if told.get(de.RESPONSE_CODE) == APPROVED else None
        except (TerminalError, CertificateError) as error:
            logger.warning("terminal %s: the signer stays unknown: %s", self._home.identity.terminal, error)
            return False
        if key is None or key in self._keys:
            return False
        add_switch_key(self._home.folder, key)
        self._keys = (key, *self._keys)
        return True


def signer_of(untrusted: Mapping[int, Value], trust: Trust) -> PublicKey:
    """The key that an answer names, when its certificate holds. Raises CertificateError."""
    own, issuer = untrusted.get(de.CERTIFICATE), untrusted.get(de.ISSUER)
    if not isinstance(own, bytes):
        raise CertificateError("no certificate was told")
    certificate = parse_certificate(own)
    if (certificate.subject.common_name, certificate.extended_usage) != (SIGNER_NAME, PUBLISHER.extended_usage):
        raise CertificateError("the certificate is not that of a switch's signing key")
    trust.verify(certificate, [parse_certificate(issuer)] if isinstance(issuer, bytes) else ())
    return certificate.public_key
