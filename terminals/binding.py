"""What a terminal is bound to, and the ladder that holds a sign-in against it.

Regulation binds the serial number of a terminal to acquirer, merchant, unified social credit code and settlement
account (PBOC Yin Fa [2021] 259); this network binds its certificate and its application too. A sign-in states all of
them, and the first that differs from the registry refuses it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from fengshou.hsm.x509 import Certificate
from fengshou.protocol import elements as de
from fengshou.protocol.message import Value
from fengshou.protocol.service import TerminalFacts


class Channel(Enum):
    """What kind of touch point a terminal is."""

    KIOSK = "KIOSK"  # smart self-service terminal
    POS = "POS"
    POS_DUAL = "POS_DUAL"  # POS with a second screen for the customer
    EXT = "EXT"  # external device of another system
    WECHAT = "WECHAT"  # the gateway of the official account
    APP = "APP"  # the gateway of the mobile application


class Status(Enum):
    """Of terminals and of applications. Only an active one may sign in."""

    ACTIVE = "active"
    BLOCKED = "blocked"  # until an operator activates it again
    RETIRED = "retired"  # for good


@dataclass(frozen=True, slots=True)
class AppRow:
    """A version of an application whose signed manifest was verified when it was added."""

    app: str
    version: str
    digest: bytes  # SM3 of the manifest, 32 bytes
    services: frozenset[str]  # names of the services that the manifest permits
    status: Status


@dataclass(frozen=True, slots=True)
class TerminalRow:
    """A terminal as the registry knows it. ``fingerprint`` and ``certificate`` are empty before it is enrolled."""

    facts: TerminalFacts
    services: frozenset[str]  # names of the services it may use; what is not named is forbidden
    apps: Mapping[tuple[str, str], AppRow]  # those it may run, by id and version
    rate_per_second: int
    status: Status
    fingerprint: bytes  # SM3 of its certificate's DER, 32 bytes
    certificate: str  # the certificate's serial number, hexadecimal
    renewed: bytes = b""  # fingerprint of the one that takes its place as soon as somebody signs in with it

    def knows(self, certificate: Certificate) -> bool:
        """Whether a certificate is this terminal's."""
        return certificate.fingerprint in (self.fingerprint, self.renewed)


class Refusal(NamedTuple):
    code: str
    reason: str  # in words, for the operator; names no value


@dataclass(frozen=True, slots=True)
class _Claim:
    """A sign-in beside the row that it names."""

    row: TerminalRow
    peer: Certificate
    values: Mapping[int, Value]

    @property
    def app(self) -> AppRow | None:
        return self.row.apps.get((str(self.values[de.APP]), str(self.values[de.APP_VERSION])))


@dataclass(frozen=True, slots=True)
class BindingRung:
    """One element of the binding. The first rung that does not hold refuses the sign-in with ``code``."""

    name: str
    code: str
    reason: str
    holds: Callable[[_Claim], bool]


def _active_app(claim: _Claim) -> bool:
    return claim.app is not None and claim.app.status is Status.ACTIVE


def _manifest(claim: _Claim) -> bool:
    return claim.app is not None and claim.app.digest == claim.values[de.APP_MANIFEST]


# In order of precedence: who is it, is it the device that holds the key, is it where it belongs, what does it run.
UNKNOWN_TERMINAL = Refusal("97", "the terminal is not registered")
LADDER: tuple[BindingRung, ...] = (
    BindingRung("status", "58", "the terminal is blocked or retired", lambda it: it.row.status is Status.ACTIVE),
    BindingRung(
        "certificate name", "63", "the certificate names another terminal",
        lambda it: it.peer.subject.common_name == it.row.facts.terminal,
    ),
    BindingRung(
        "certificate", "63", "the certificate is not the one that was enrolled",
        lambda it: it.row.knows(it.peer),
    ),
    BindingRung(
        "merchant", "03", "another merchant is registered", lambda it: it.values[de.MERCHANT] == it.row.facts.merchant
    ),
    BindingRung(
        "acquirer", "92", "another acquirer is registered", lambda it: it.values[de.ACQUIRER] == it.row.facts.acquirer
    ),
    BindingRung(
        "serial", "97", "another device serial is registered", lambda it: it.values[de.SERIAL] == it.row.facts.serial
    ),
    BindingRung(
        "credit code", "03", "another unified social credit code is registered",
        lambda it: it.values[de.CREDIT_CODE] == it.row.facts.credit_code,
    ),
    BindingRung(
        "settlement account", "14", "another settlement account is registered",
        lambda it: it.values[de.FROM_ACCOUNT] == it.row.facts.settlement_account,
    ),
    BindingRung(
        "currency", "12", "the network's only currency is CNY", lambda it: it.values[de.CURRENCY] == de.CURRENCY_CNY
    ),
    BindingRung(
        "app", "58", "the application or its version is not permitted here", lambda it: it.app is not None
    ),
    BindingRung("app status", "58", "the application is revoked", _active_app),
    BindingRung("app manifest", "58", "the application's manifest differs", _manifest),
)  # fmt: skip


def binding_refusal(row: TerminalRow | None, peer: Certificate, values: Mapping[int, Value]) -> Refusal | None:
    """Why a sign-in with ``values`` over the channel of ``peer`` is refused; None when every element agrees.

    ``row`` is the registry's row of the terminal that the sign-in names. Whether its batch fits, the journal knows.
    """
    if row is None:
        return UNKNOWN_TERMINAL
    claim = _Claim(row, peer, values)
    for rung in LADDER:
        if not rung.holds(claim):
            return Refusal(rung.code, rung.reason)
    return None
