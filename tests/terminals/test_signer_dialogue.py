"""A signer that is not known is asked for once, and believed when an authority of the terminal's own stands for it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import trio

from fengshou.codecs import PrivateKey
from fengshou.hsm import x509
from fengshou.hsm.pki import Authority
from fengshou.hsm.x509 import Certificate, Subject
from fengshou.protocol import elements as de
from fengshou.protocol.message import Value
from fengshou.terminals.answers import Unreachable
from fengshou.terminals.home import Home
from fengshou.terminals.receipt import ReceiptInvalid, SignerUnknown, verify_receipt
from fengshou.terminals.signer_dialogue import SIGNER_NAME, SignerDialogue
from tests.terminals.conftest import NOW, Network
from tests.terminals.test_receipt import EXCHANGE, receipt_of, record_of

NEW = PrivateKey.generate()
Told = Mapping[int, Value]


def told(certificate: Certificate, issuer: Certificate | None = None) -> Told:
    brought = {de.ISSUER: issuer.der} if issuer else {}
    return {de.RESPONSE_CODE: "00", de.CERTIFICATE: certificate.der, **brought}


@dataclass
class Meeting:
    """A terminal that meets a receipt of ``NEW``, and a switch that answers ``told``."""

    home: Home
    asked: int = 0

    def believes(self, told: Told) -> bool:
        async def ask() -> Told:
            self.asked += 1
            return told

        prove = partial(verify_receipt, receipt_of(record_of(), key=NEW), exchange=EXCHANGE)
        try:
            return trio.run(SignerDialogue(Home(self.home.folder)).proved, prove, ask) == record_of()
        except SignerUnknown:
            return False


@pytest.fixture
def meeting(network: Network, tmp_path: Path) -> Meeting:
    return Meeting(network.home(tmp_path, "FS000001", 1))


def test_it_is_believed_besides_the_old_one_and_for_good(network: Network, meeting: Meeting) -> None:
    (old,) = meeting.home.switch_keys()
    answer = told(network.authority.issue(x509.PUBLISHER, Subject(SIGNER_NAME), NEW.public_key, NOW))
    assert meeting.believes(answer)
    assert Home(meeting.home.folder).switch_keys() == (NEW.public_key, old)
    assert meeting.believes({de.RESPONSE_CODE: "96"})
    assert meeting.asked == 1


def test_an_authority_that_is_younger_than_the_terminal_is_brought_along(tmp_path: Path, network: Network) -> None:
    authority = Authority.initialise(tmp_path / "pki", "Test", NOW)
    meeting = Meeting(Network(tmp_path, authority, network.context, network.signing_key, network.terminal_keys).home(
        tmp_path, "FS000001", 1
    ))  # fmt: skip
    younger = authority.renew_issuing(NOW)
    certificate = younger.issue(x509.PUBLISHER, Subject(SIGNER_NAME), NEW.public_key, NOW)
    assert not meeting.believes(told(certificate))
    assert meeting.believes(told(certificate, younger.certificate))


def forged_by_a_leaf(network: Network) -> Told:
    """Who has any certificate of the network plays the authority with it."""
    key = PrivateKey.generate()
    leaf = network.authority.issue(x509.PUBLISHER, Subject("publisher"), key.public_key, NOW)
    false = x509.issue(
        x509.PUBLISHER, Subject(SIGNER_NAME), NEW.public_key, issuer=leaf.subject, signer=key, now=NOW
    )  # fmt: skip
    return told(false, leaf)


def of_another_authority(network: Network, folder: Path) -> Told:
    other = Authority.initialise(folder / "other", "Test", NOW)
    return told(other.issue(x509.PUBLISHER, Subject(SIGNER_NAME), NEW.public_key, NOW), other.certificate)


def issued(network: Network, name: str, profile: x509.Profile = x509.PUBLISHER, age_days: int = 0) -> Told:
    subject = Subject(name, names=("switch.test",))
    return told(network.authority.issue(profile, subject, NEW.public_key, NOW - timedelta(age_days)))


def damaged(network: Network) -> Told:
    answer = told(network.authority.issue(x509.PUBLISHER, Subject(SIGNER_NAME), PrivateKey.generate().public_key, NOW))
    der = bytearray(answer[de.CERTIFICATE])  # type: ignore[arg-type]
    at = der.index(_point(bytes(der)))
    der[at : at + 64] = NEW.public_key.point[1:]
    return {**answer, de.CERTIFICATE: bytes(der)}


def _point(der: bytes) -> bytes:
    return x509.parse_certificate(der).public_key.point[1:]


#   what the switch says                     how it comes about
FALSE = [
    ("another name",          lambda network, folder: issued(network, "publisher")),
    ("another profile",       lambda network, folder: issued(network, SIGNER_NAME, x509.HOST)),
    ("the switch's channel",  lambda network, folder: issued(network, SIGNER_NAME, x509.SWITCH)),
    ("expired",               lambda network, folder: issued(network, SIGNER_NAME, age_days=800)),
    ("not yet valid",         lambda network, folder: issued(network, SIGNER_NAME, age_days=-3)),
    ("another authority",     of_another_authority),
    ("a leaf as authority",   lambda network, folder: forged_by_a_leaf(network)),
    ("another key put in",    lambda network, folder: damaged(network)),
    ("no certificate",        lambda network, folder: {de.RESPONSE_CODE: "00"}),
    ("no DER",                lambda network, folder: {de.RESPONSE_CODE: "00", de.CERTIFICATE: b"0\x82"}),
    ("a refusal",             lambda network, folder: {**issued(network, SIGNER_NAME), de.RESPONSE_CODE: "58"}),
]  # fmt: skip


@pytest.mark.parametrize("make", [case[1] for case in FALSE], ids=[case[0] for case in FALSE])
def test_a_false_one_is_not_believed(make, network: Network, meeting: Meeting, tmp_path: Path) -> None:
    before = meeting.home.configuration
    assert not meeting.believes(make(network, tmp_path))
    assert meeting.asked == 1
    assert Home(meeting.home.folder).configuration == before


def test_a_certificate_proves_no_receipt_of_another_key(network: Network, meeting: Meeting) -> None:
    """It holds, but it is not that of whoever signed the receipt."""
    other = PrivateKey.generate().public_key
    assert not meeting.believes(told(network.authority.issue(x509.PUBLISHER, Subject(SIGNER_NAME), other, NOW)))


def test_nobody_is_asked_about_what_is_broken_and_silence_proves_nothing(meeting: Meeting) -> None:
    asked = 0

    async def silent() -> Told:
        nonlocal asked
        asked += 1
        raise Unreachable("no connection in time")

    dialogue = SignerDialogue(meeting.home)
    receipt = receipt_of(record_of(), key=NEW)
    for met, times in ((replace(receipt, audit_path=b""), 0), (receipt, 1)):
        with pytest.raises(ReceiptInvalid):
            trio.run(dialogue.proved, partial(verify_receipt, met, exchange=EXCHANGE), silent)
        assert asked == times
