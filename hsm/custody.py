"""The one interface to keys: by label and epoch, never by key bytes.

A label names a key for one purpose (``switch.sign``, ``terminal.P0000001.pin`` …). Its epochs follow each other as
``protocol.epoch`` says: the current one produces, those around it are accepted, a retired one is refused. Where an
``epoch`` may be given, None means the current one. A key does what its kind does and nothing else. Providers pass one
contract test suite; what a provider cannot do raises Unsupported.

========== ================================================ ==========================================================
provider   keys are                                         cannot
========== ================================================ ==========================================================
software   sealed under a master key that custodians open   -
(its development form: plain files of one folder)           -
card       in a smart card, which signs                     anything but sign, verify and public_key; the life of
                                                            its keys, as far as cards were prepared
SDF        in a GM/T 0018 device, or wrapped by it          arm, PINs, derived keys, key blocks; HMAC by GM/T 0018-2012
========== ================================================ ==========================================================

``composite.Composite`` makes one custody of several, so that a card signs and software does the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from fengshou.codecs import PublicKey
from fengshou.protocol.epoch import EpochState
from fengshou.protocol.iso8583_mac import Authenticator

if TYPE_CHECKING:  # who only asks a key needs no TLS library
    from OpenSSL import SSL

# The switch's keys, each for one use.
SWITCH_SIGN = "switch.sign"  # SM2: journal roots, bodies to back ends
SWITCH_TLS = "switch.tls"  # SM2: the channel, both as server to terminals and as client of back ends
JOURNAL_DATA = "journal.data"  # SM4: C2 data at rest
PSEUDONYM = "pseudonym"  # HMAC-SM3: stable keyed hashes of identifiers
AUDIT_SIGN = "audit.sign"  # SM2: the audit log, daily
TERMINAL_MASTER = "terminal.master"  # DERIVE: makes the master key of every terminal
TERMINAL_WORKING = "terminal.working"  # DERIVE: makes the working keys of every terminal

EPOCH_MAX = 255  # the epoch is one byte of a sealed value


class Kind(Enum):
    """What a key is and the one use it is bound to. The value is its name at rest."""

    SM2 = "pem"  # signs
    ENVELOPE = "sm2e"  # SM2: opens envelopes (GB/T 32918.4) that bring keys
    SM4 = "sm4"  # data: seal and open, encrypt and decrypt
    HMAC = "hmac"  # HMAC-SM3
    MAC = "mac"  # SM4-CMAC
    PIN = "pin"  # SM4: PIN blocks between two points
    PIN_VERIFY = "pvk"  # SM4: offsets of PINs
    TRANSPORT = "kek"  # SM4: wraps keys on their way; a terminal's or a zone's master key
    DERIVE = "kdk"  # SM4: makes other keys from names


class WrapForm(Enum):
    """How a key travels under a TRANSPORT key."""

    KEY_BLOCK = "key block"  # bound to its kind and authenticated, see ``keyblock``
    # The working keys of UnionPay's sign-in 006: SM4-ECB of the bare key, then the 4 bytes of its check value. Bound to
    # nothing: for peers that know no other form.
    UNIONPAY = "unionpay"


class CipherMode(Enum):
    """Unauthenticated modes (GB/T 17964), for peers that ask for them. ``seal`` is for everything else."""

    CBC = "cbc"  # whole blocks of 16 bytes; padding is the caller's
    CTR = "ctr"


class PinFormat(Enum):
    """Layouts of a PIN block under SM4, 16 bytes each; see ``pin``."""

    ISO_4 = "iso-4"  # ISO 9564-1 format 4
    UNIONPAY = "unionpay"  # format 0 stretched to one SM4 block


class CustodyError(Exception):
    """A key is missing, unusable or protected badly. The text says which label and what to do, never key material."""


class SealBroken(CustodyError):
    """A sealed value was altered, belongs to another context, or was sealed under a key that is gone."""


class Unsupported(CustodyError):
    """This provider cannot do that, ever; the text says what can."""


class Unavailable(CustodyError):
    """The device or card behind this provider is away, or custody is still sealed. Trying later may help."""


class MacMismatch(CustodyError):
    """A message authentication code does not fit key and data."""


class WrappedKeyError(CustodyError):
    """A wrapped key was altered, is not for that kind, or was wrapped under another key."""


class PinBlockError(CustodyError):
    """A PIN block is no block of its format under that key and for that account (response code 99)."""


class PinMismatch(CustodyError):
    """The PIN is not the customer's (response code 55)."""


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What may be known of one epoch of a key.

    ``check_value`` is 4 bytes: of SM4 keys the first of SM4-ECB over 16 zero bytes, of HMAC keys the first of HMAC-SM3
    over the same, of SM2 keys the first of SM3 over the point 04 || x || y.
    """

    label: str
    epoch: int  # 1 .. EPOCH_MAX
    kind: Kind
    state: EpochState
    created: datetime  # aware
    check_value: bytes


@dataclass(frozen=True, slots=True)
class Derived:
    """A key that is kept nowhere: made from a DERIVE key whenever it is used, equal to what ``Custody.derive`` makes.

    So every terminal has keys of its own and no table of them exists. ``epoch`` and state are those of ``parent``.
    """

    kind: Kind
    parent: str
    context: bytes
    epoch: int | None = None


KeyName = str | Derived


@dataclass(frozen=True, slots=True)
class PinZone:
    """One side of a translation: the PIN key, the epoch that made or will open the block, and its layout."""

    label: KeyName
    format: PinFormat = PinFormat.ISO_4
    epoch: int | None = None


class Custody(Protocol):
    """Any thread may call these.

    CustodyError says that the label or epoch has no key, one of another kind, or one in a state that forbids the use.
    Where a KeyName is taken, the epoch of a Derived stands in it and not beside it.
    """

    # --- what there is

    @property
    def protection(self) -> str:
        """What keeps the keys at rest: ``sealed``, ``development`` (plain files), ``device``, ``card``, or several."""
        ...

    def inventory(self) -> Sequence[KeyInfo]:
        """Every epoch of every label that is not destroyed, by label and epoch."""
        ...

    def key(self, label: KeyName, epoch: int | None = None) -> KeyInfo: ...

    def refresh(self) -> bool:
        """Take note of what other processes changed; whether anything was. Cheap when nothing was."""
        ...

    # --- the life of a key. A label's first epoch is current at once, each later one waits as next.

    def create(self, label: str, kind: Kind) -> KeyInfo:
        """Generate the first epoch of a label and store it durably. Raises CustodyError when the label has a key."""
        ...

    def renew(self, label: str) -> KeyInfo:
        """Generate a further epoch of the label's kind. Raises CustodyError while another one waits as next."""
        ...

    def derive(self, label: str, kind: Kind, parent: str, context: bytes) -> KeyInfo:
        """Make an epoch of ``label`` from a DERIVE key: equal parents, kinds and contexts give equal keys.

        SP 800-108 in counter mode over SM4-CMAC. SM2 kinds cannot be derived.
        """
        ...

    def import_key(
        self, label: str, kind: Kind, wrapped: bytes, under: str, form: WrapForm = WrapForm.KEY_BLOCK
    ) -> KeyInfo:
        """Make an epoch of ``label`` from a key that came wrapped.

        ``under`` is a TRANSPORT key, or an ENVELOPE key: then ``wrapped`` is an SM2 ciphertext (DER, GM/T 0009) and
        ``form`` does not matter. Raises WrappedKeyError.
        """
        ...

    def export_key(
        self, label: KeyName, under: KeyName, form: WrapForm = WrapForm.KEY_BLOCK, *, epoch: int | None = None
    ) -> bytes:
        """A symmetric key wrapped under a TRANSPORT key."""
        ...

    def export_envelope(self, label: KeyName, recipient: PublicKey, *, epoch: int | None = None) -> bytes:
        """A symmetric key encrypted to ``recipient``: SM2 ciphertext C1 C3 C2, DER of GM/T 0009."""
        ...

    def activate(self, label: str, epoch: int) -> None:
        """Make an epoch current. The one that was becomes retiring, or next again when this rolls it back."""
        ...

    def retire(self, label: str, epoch: int) -> None:
        """Refuse an epoch from now on."""
        ...

    def destroy(self, label: str, epoch: int) -> None:
        """Remove the key of a retired epoch for ever. What only it could open is lost."""
        ...

    # --- use

    def public_key(self, label: str, epoch: int | None = None) -> PublicKey:
        """The SM2 public key at ``label``."""
        ...

    def sign(self, label: str, digest: bytes, epoch: int | None = None) -> bytes:
        """r || s (64 bytes) over a 32-byte digest, which already contains ZA; see ``protocol.signing``."""
        ...

    def verify(self, label: str, digest: bytes, signature: bytes, epoch: int | None = None) -> None:
        """Check a signature of this label. Raises codecs.BadSignature."""
        ...

    def mac(self, label: KeyName, data: bytes, epoch: int | None = None) -> bytes:
        """HMAC-SM3, 32 bytes (GM/T 0042), of an HMAC key; SM4-CMAC, 16 bytes (GB/T 15852.1), of a MAC key."""
        ...

    def verify_mac(self, label: KeyName, data: bytes, mac: bytes, epoch: int | None = None) -> None:
        """Compare in constant time; ``mac`` may be cut to not less than 8 bytes. Raises MacMismatch."""
        ...

    def authenticator(self, label: str, epoch: int | None = None) -> Authenticator:
        """What computes ``mac`` of a MAC key, for a batch of messages at hand.

        Whether the key may be used is asked here and not at each message, so it is not kept for another batch.
        """
        ...

    def seal(self, label: str, data: bytes, context: bytes) -> bytes:
        """SM4-GCM: epoch (1 byte), nonce (12), ciphertext, tag (16). ``context`` is authenticated, not stored.

        A device that has no GCM seals by SM4-CCM in the same layout.
        """
        ...

    def open(self, label: KeyName, sealed: bytes, context: bytes) -> bytes:
        """The data that ``seal`` hid; of a Derived the epoch is the one in the sealed value. Raises SealBroken."""
        ...

    def encrypt(self, label: str, mode: CipherMode, iv: bytes, data: bytes, epoch: int | None = None) -> bytes:
        """Without authentication; ``iv`` is 16 bytes and never used twice. Raises ValueError for other lengths."""
        ...

    def decrypt(self, label: str, mode: CipherMode, iv: bytes, data: bytes, epoch: int | None = None) -> bytes: ...

    def arm(self, label: str, context: "SSL.Context") -> None:
        """Put the private key at ``label`` into a TLS context. The certificate is the caller's business."""
        ...

    # --- PINs. A clear PIN exists inside these calls only.

    def translate_pin(self, block: bytes, account: str, source: PinZone, target: PinZone) -> bytes:
        """The block in the target's key and layout. ``account`` is the PAN, 12 to 19 digits. Raises PinBlockError."""
        ...

    def pin_offset(self, block: bytes, account: str, source: PinZone, verify_with: str) -> str:
        """The offset by which ``verify_pin`` knows this PIN again, one digit each. Raises PinBlockError."""
        ...

    def verify_pin(self, block: bytes, account: str, source: PinZone, verify_with: str, offset: str) -> None:
        """Raises PinMismatch or PinBlockError. Counting the tries is the caller's."""
        ...
