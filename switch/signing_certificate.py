"""The certificate of the key that signs commits and receipts, for terminals that meet one of a key they do not know."""

import logging
from collections.abc import Mapping
from pathlib import Path

from fengshou.hsm.custody import SWITCH_SIGN, Custody, CustodyError
from fengshou.hsm.renewal import stamps
from fengshou.hsm.x509 import Certificate, CertificateError
from fengshou.protocol import elements as de
from fengshou.protocol.message import Value
from fengshou.switch.certificate_files import read_certificates

logger = logging.getLogger(__name__)


class SigningCertificate:
    """Calling it gives what template 22 answers; nothing when the key has no certificate.

    Files and key are followed whenever it is called, so it names the key that signs at this moment and needs no watch.
    """

    def __init__(self, file: Path, authorities: Path, custody: Custody) -> None:
        """``file`` holds the certificates of all epochs, ``authorities`` those of who may have issued them."""
        self._file = file
        self._authorities = authorities
        self._custody = custody
        self._seen: object = None
        self._told: Mapping[int, Value] = {}

    def __call__(self) -> Mapping[int, Value]:
        seen = (self._custody.key(SWITCH_SIGN).epoch, *stamps([self._file, self._authorities]))
        if seen != self._seen:
            self._seen = seen
            try:
                self._told = self._read()
            except (CertificateError, CustodyError) as error:
                self._told = {}
                logger.error("terminals are not told who signs receipts: %s", error)
        return self._told

    def _read(self) -> Mapping[int, Value]:
        # By the key: the newest certificate is there before its key signs, and stays when an older one signs again.
        key = self._custody.public_key(SWITCH_SIGN)
        own = next((one for one in read_certificates(self._file) if one.public_key == key), None)
        if own is None:
            raise CertificateError(f"{self._file} has none of the key that is current")
        issuer = self._issuer(own)
        return {de.CERTIFICATE: own.der, **({de.ISSUER: issuer.der} if issuer else {})}

    def _issuer(self, own: Certificate) -> Certificate | None:
        """For terminals that have the root, and not an authority that is younger than they are."""
        authorities = read_certificates(self._authorities)
        return next((one for one in authorities if one.subject.common_name == own.issuer), None)
