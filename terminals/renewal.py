"""A terminal's next certificate: the key that waits in its home, the wish for it, and the change to it.

::

    terminal.next.key   the new key, from the first wish on
    terminal.next.crt   its certificate, from the answer until both take the places of the old ones

A change that was cut short is finished when the home is opened next. In the field the secure medium makes the key.
"""

from pathlib import Path

from fengshou.codecs import PrivateKey
from fengshou.hsm.files import write_public
from fengshou.hsm.pem import CERTIFICATE, from_pem, to_pem
from fengshou.hsm.pki_renewal import make_request
from fengshou.hsm.software import load_private_key, save_private_key
from fengshou.hsm.x509 import Certificate, CertificateError, Signer, parse_certificate
from fengshou.protocol import elements as de
from fengshou.protocol.message import Value


class Renewal:
    """Of the certificate and key in two files."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        self._key = key
        self._next_certificate = certificate.with_suffix(f".next{certificate.suffix}")
        self._next_key = key.with_suffix(f".next{key.suffix}")
        self._finish()

    def wish(self, holder: Signer) -> dict[int, Value]:
        """What the message says that asks for it; the same key each time until there is an answer. CustodyError."""
        if not self._next_key.exists():
            save_private_key(self._next_key, PrivateKey.generate())
        request = make_request(self._current(), holder, load_private_key(self._next_key))
        return {de.NEW_KEY: request.key, de.KEY_PROOF: request.proof, de.KEY_CONSENT: request.consent}

    def take(self, untrusted: Value) -> None:
        """Put a certificate and its key to use. Raises CertificateError: it is not for this terminal's new key.

        That it is of the right authority is the switch's to know, which accepts it from now on.
        """
        if not isinstance(untrusted, bytes) or not self._next_key.exists():
            raise CertificateError("no certificate was asked for")
        new = parse_certificate(untrusted)
        key = load_private_key(self._next_key).public_key
        if new.public_key != key or new.subject.common_name != self._current().subject.common_name:
            raise CertificateError("the certificate is for another key or terminal")
        write_public(self._next_certificate, to_pem(CERTIFICATE, new.der))
        self._finish()

    def _finish(self) -> None:
        """The certificate last: as long as it waits, the change is not whole."""
        if self._next_certificate.exists():
            if self._next_key.exists():
                self._next_key.replace(self._key)
            self._next_certificate.replace(self._certificate)

    def _current(self) -> Certificate:
        return parse_certificate(from_pem(CERTIFICATE, self._certificate.read_bytes())[0])
