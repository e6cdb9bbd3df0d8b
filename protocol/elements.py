"""Data elements: ISO 8583:1987 numbers, names and formats, with our private elements in the ranges ISO leaves free.

An element is a row of data. Its wire form, canonical form, mask and documentation all derive from the row. A
sub-element of a private field (48.1, 60.2, 63.1 …) is an element of its own here; its key is ``number * 256 + sub``.

Kinds, their wire form and their canonical form (the one that is signed):

====  ============================  ===============================================  =====================
kind  value                         wire                                             canonical
====  ============================  ===============================================  =====================
n     integer, 0 .. maximum         LEB128 varint, shortest form                     8 bytes, big-endian
z     integer, -maximum .. maximum  zigzag, then as n                                8 bytes, two's complement
d     decimal digits, 1 .. size     count (1 byte), packed BCD, odd count padded F   ASCII digits
an    ASCII text, exactly size      the bytes                                        the bytes
ans   UTF-8 text, 0 .. size bytes   varint byte count, the bytes                     the bytes
b     exactly size bytes            the bytes                                        the bytes
bv    0 .. size bytes               varint byte count, the bytes                     the bytes
====  ============================  ===============================================  =====================
"""

from dataclasses import dataclass, field
from enum import Enum

from fengshou.protocol import limits


class Privacy(Enum):
    """Classes of JR/T 0171-2020: C1 internal, C2 identifies a person or account, C3 authenticates."""

    C1 = "C1"  # may be stored and logged
    C2 = "C2"  # encrypted at rest, masked in logs
    C3 = "C3"  # never stored, never logged


class Kind(Enum):
    N = "n"
    Z = "z"
    D = "d"
    AN = "an"
    ANS = "ans"
    B = "b"
    BV = "bv"


def path_of(key: int) -> str:
    """An element as people write it: ``DE 4``, ``DE 48.1``."""
    number, sub = key >> 8, key & 0xFF
    return f"DE {number}.{sub}" if sub else f"DE {number}"


@dataclass(frozen=True, slots=True)
class Element:
    """A data element. ``size`` counts digits or bytes (kinds d, an, ans, b, bv); ``maximum`` bounds n and z."""

    number: int
    sub: int
    name: str
    iso_format: str
    kind: Kind
    size: int = 0
    maximum: int = 0
    privacy: Privacy = Privacy.C1
    mask: tuple[int, int] = (0, 0)  # characters shown at the start and end of a masked C2 value
    about: str = ""

    # One object for an element, the constants below and the dicts that codecs make: a look-up need not compare numbers.
    key: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self.number << 8 | self.sub)

    @property
    def path(self) -> str:
        return path_of(self.key)


def n(number: int, sub: int, name: str, iso_format: str, maximum: int, about: str = "") -> Element:
    return Element(number, sub, name, iso_format, Kind.N, maximum=maximum, about=about)


C2, C3 = Privacy.C2, Privacy.C3
_ACCOUNT = (6, 4)

BASE_ELEMENTS: tuple[Element, ...] = (
    Element(2, 0, "pan", "n..19", Kind.D, 19, privacy=C2, mask=_ACCOUNT, about="primary account number of the card"),
    n(4, 0, "amount", "n12", limits.AMOUNT_FEN_MAX, "fen"),
    n(11, 0, "stan", "n6", 999_999, "system trace audit number, unique per terminal and batch, 1 .. 999999"),
    n(12, 0, "local_time", "n6", 235_959, "hhmmss at the terminal, UTC+8"),
    n(13, 0, "local_date", "n4", 1_231, "MMDD at the terminal, UTC+8"),
    Element(14, 0, "expiry", "n4", Kind.D, 4, privacy=C3, about="YYMM"),
    n(15, 0, "settlement_date", "n4", 1_231, "MMDD of the business day in which the outcome counts"),
    n(
        22,
        0,
        "entry_mode",
        "n3",
        999,
        "021 magnetic stripe, 051 chip, 071 contactless, 011 keyed; last digit 1 PIN, 2 none",
    ),
    n(23, 0, "card_sequence", "n3", 999),
    n(25, 0, "condition", "n2", 99, "point of service condition; 00 normal"),
    n(32, 0, "acquirer", "n..11", 99_999_999_999, "acquiring institution"),
    Element(35, 0, "track2", "z..37", Kind.BV, 48, privacy=C3, about="encrypted under the data key"),
    n(
        37,
        0,
        "rrn",
        "n12",
        999_999_999_999,
        "retrieval reference number given by the switch: YDDD and an 8-digit count",
    ),
    Element(38, 0, "authorisation", "an6", Kind.AN, 6, about="given by core banking"),
    Element(39, 0, "response_code", "an2", Kind.AN, 2, about="see the table of codes"),
    Element(41, 0, "terminal", "ans8", Kind.AN, 8, about="terminal identification"),
    Element(42, 0, "merchant", "ans15", Kind.AN, 15, about="merchant identification"),
    Element(44, 0, "text", "ans..64", Kind.ANS, 64, about="reason in words, for the operator"),
    n(48, 1, "product", "n..4", 4095, "product of the price dictionary"),
    n(48, 2, "variety", "n..3", 255, "variety within the product"),
    n(48, 3, "grade", "n1", 9, "1 best .. 9"),
    n(48, 4, "weight", "n..9", limits.WEIGHT_CENTIKG_MAX, "0.01 kg"),
    n(48, 5, "unit_price", "n..9", limits.UNIT_PRICE_FEN_MAX, "fen per kg"),
    n(48, 6, "town", "n..5", 65_535, "town in which the goods were bought"),
    Element(48, 7, "lot", "ans..24", Kind.ANS, 24, about="lot of the producer, for tracing"),
    Element(48, 8, "details", "b..2048", Kind.BV, 2048, about="transactions of a batch: STAN, side and fen of each"),
    n(49, 0, "currency", "n3", 999, "ISO 4217 number; 156 is CNY"),
    Element(52, 0, "pin_block", "b16", Kind.B, 16, privacy=C3, about="PIN under the PIN key, SM4"),
    n(53, 1, "key_epoch", "n..3", 255, "epoch of the terminal's working keys; 0: it has none"),
    n(53, 2, "pin_format", "n1", 9, "layout of the PIN block: 0 ISO 9564-1 format 4, also when absent; 1 UnionPay"),
    n(53, 3, "master_epoch", "n..3", 255, "epoch of the terminal's master key; 0: it has none"),
    Element(54, 1, "ledger_balance", "x+n12", Kind.Z, maximum=999_999_999_999, about="fen; overdrawn is negative"),
    Element(54, 2, "available_balance", "x+n12", Kind.Z, maximum=999_999_999_999, about="fen; overdrawn is negative"),
    Element(55, 0, "icc_data", "b..255", Kind.BV, 255, privacy=C3, about="BER-TLV of the chip"),
    Element(57, 1, "serial", "ans..32", Kind.ANS, 32, about="serial number of the terminal"),
    Element(57, 2, "credit_code", "an18", Kind.AN, 18, about="unified social credit code of the merchant"),
    Element(57, 3, "app", "ans..32", Kind.ANS, 32, about="application id"),
    Element(57, 4, "app_version", "ans..16", Kind.ANS, 16),
    Element(57, 5, "app_manifest", "b32", Kind.B, 32, about="SM3 of the application's signed manifest"),
    n(57, 6, "dictionary", "n..6", 999_999, "version of the product dictionary and price list in the terminal"),
    n(57, 7, "assist", "n1", 1, "1: an operator helps the customer"),
    Element(59, 1, "latitude", "z", Kind.Z, maximum=9_000_000, about="1e-5 degree"),
    Element(59, 2, "longitude", "z", Kind.Z, maximum=18_000_000, about="1e-5 degree"),
    n(60, 2, "batch", "n6", 999_999, "settlement batch of the terminal"),
    n(61, 1, "original_batch", "n6", 999_999),
    n(61, 2, "original_stan", "n6", 999_999),
    n(61, 3, "original_date", "n4", 1_231, "MMDD"),
    n(62, 1, "item", "n..4", 1023, "item of the catalogue of government services"),
    n(62, 2, "domain", "n1", 9, "domain of the item"),
    Element(62, 3, "subject", "ans..32", Kind.ANS, 32, privacy=C2, mask=(3, 4), about="person or case asked about"),
    Element(62, 4, "reply", "ans..1024", Kind.ANS, 1024, privacy=C2, about="answer of the office, UTF-8"),
    n(62, 5, "period", "n..6", 999_999, "year or YYYYMM asked about"),
    Element(62, 6, "sealed_subject", "b..96", Kind.BV, 96, privacy=C3, about="DE 62.3 under the terminal's data key"),
    Element(63, 1, "operator", "an3", Kind.AN, 3, about="operator at the terminal"),
    Element(64, 0, "mac", "b16", Kind.B, 16, about="SM4-CMAC under the authentication key"),
    n(66, 0, "settlement_code", "n1", 9, "1 in balance, 2 out of balance"),
    n(70, 0, "network_code", "n3", 999, "network management code; 301 echo"),
    n(71, 0, "message_number", "n4", 9_999, "of the messages that tell one batch, from 1"),
    n(72, 0, "last_message", "n4", 9_999, "number of the last of them"),
    n(74, 0, "credits", "n10", 9_999_999_999, "how many credits a batch has"),
    n(76, 0, "debits", "n10", 9_999_999_999, "how many debits a batch has"),
    n(86, 0, "credits_amount", "n16", 9_999_999_999_999_999, "their sum in fen"),
    n(88, 0, "debits_amount", "n16", 9_999_999_999_999_999, "their sum in fen"),
    Element(
        96,
        1,
        "working_keys",
        "b60",
        Kind.B,
        60,
        privacy=C3,
        about="PIN, authentication, data key under the master key",
    ),
    Element(
        96,
        2,
        "master_key",
        "b..160",
        Kind.BV,
        160,
        privacy=C3,
        about="check value and SM2 envelope to the terminal's key",
    ),
    Element(96, 3, "new_key", "b64", Kind.B, 64, about="public key of which a certificate is wanted: x, y"),
    Element(96, 4, "key_proof", "b64", Kind.B, 64, about="signature of the wish by that key: r, s"),
    Element(96, 5, "key_consent", "b64", Kind.B, 64, about="signature of the wish by the certificate's key: r, s"),
    Element(96, 6, "certificate", "b..2048", Kind.BV, 2048, about="X.509 certificate, DER"),
    Element(96, 7, "issuer", "b..2048", Kind.BV, 2048, about="certificate of who issued DE 96.6, DER"),
    Element(102, 0, "from_account", "n..28", Kind.D, 28, privacy=C2, mask=_ACCOUNT),
    Element(103, 0, "to_account", "n..28", Kind.D, 28, privacy=C2, mask=_ACCOUNT),
    n(120, 1, "record_number", "n..18", limits.UINT_MAX, "record of the journal"),
    Element(120, 2, "record", "b..2048", Kind.BV, 2048, privacy=C2, about="the record's bytes"),
    n(120, 3, "leaf_index", "n..9", 2**31, "place of the record in its commit"),
    Element(120, 4, "audit_path", "b..1024", Kind.BV, 1024, about="hashes from the leaf to the root"),
    Element(
        120, 5, "commits", "b..4096", Kind.BV, 4096, about="commit headers from the record's commit to the signed one"
    ),
    Element(120, 6, "root_signature", "b64", Kind.B, 64, about="the switch's signature over the last of the commits"),
    Element(120, 7, "session_binding", "b32", Kind.B, 32, about="in the record of a sign-in: what its channel derived"),
    Element(120, 8, "signer", "b65", Kind.B, 65, about="in the record of a sign-in: the terminal's key, 04 || x || y"),
    Element(
        121, 1, "offline_items", "b..2048", Kind.BV, 2048, privacy=C2, about="purchases made without coverage, packed"
    ),
)

# Elements that service packages may define for themselves.
PRIVATE_NUMBERS = range(113, 120)


def _key(name: str) -> int:
    return next(element.key for element in BASE_ELEMENTS if element.name == name)


PAN = _key("pan")
AMOUNT = _key("amount")
STAN = _key("stan")
LOCAL_TIME = _key("local_time")
LOCAL_DATE = _key("local_date")
SETTLEMENT_DATE = _key("settlement_date")
ENTRY_MODE = _key("entry_mode")
ACQUIRER = _key("acquirer")
RRN = _key("rrn")
AUTHORISATION = _key("authorisation")
RESPONSE_CODE = _key("response_code")
TERMINAL = _key("terminal")
MERCHANT = _key("merchant")
TEXT = _key("text")
PRODUCT = _key("product")
VARIETY = _key("variety")
GRADE = _key("grade")
WEIGHT = _key("weight")
UNIT_PRICE = _key("unit_price")
TOWN = _key("town")
LOT = _key("lot")
DETAILS = _key("details")
CURRENCY = _key("currency")
PIN_BLOCK = _key("pin_block")
KEY_EPOCH = _key("key_epoch")
PIN_FORMAT = _key("pin_format")
MASTER_EPOCH = _key("master_epoch")
LEDGER_BALANCE = _key("ledger_balance")
AVAILABLE_BALANCE = _key("available_balance")
SERIAL = _key("serial")
CREDIT_CODE = _key("credit_code")
APP = _key("app")
APP_VERSION = _key("app_version")
APP_MANIFEST = _key("app_manifest")
DICTIONARY = _key("dictionary")
ASSIST = _key("assist")
LATITUDE = _key("latitude")
LONGITUDE = _key("longitude")
BATCH = _key("batch")
ORIGINAL_BATCH = _key("original_batch")
ORIGINAL_STAN = _key("original_stan")
ORIGINAL_DATE = _key("original_date")
ITEM = _key("item")
DOMAIN = _key("domain")
SUBJECT = _key("subject")
REPLY = _key("reply")
PERIOD = _key("period")
SEALED_SUBJECT = _key("sealed_subject")
OPERATOR = _key("operator")
MAC = _key("mac")
SETTLEMENT_CODE = _key("settlement_code")
NETWORK_CODE = _key("network_code")
MESSAGE_NUMBER = _key("message_number")
LAST_MESSAGE = _key("last_message")
CREDITS = _key("credits")
DEBITS = _key("debits")
CREDITS_AMOUNT = _key("credits_amount")
DEBITS_AMOUNT = _key("debits_amount")
WORKING_KEYS = _key("working_keys")
MASTER_KEY = _key("master_key")
NEW_KEY = _key("new_key")
KEY_PROOF = _key("key_proof")
KEY_CONSENT = _key("key_consent")
CERTIFICATE = _key("certificate")
ISSUER = _key("issuer")
FROM_ACCOUNT = _key("from_account")
TO_ACCOUNT = _key("to_account")
RECORD_NUMBER = _key("record_number")
RECORD = _key("record")
LEAF_INDEX = _key("leaf_index")
AUDIT_PATH = _key("audit_path")
COMMITS = _key("commits")
ROOT_SIGNATURE = _key("root_signature")
SESSION_BINDING = _key("session_binding")
SIGNER = _key("signer")
OFFLINE_ITEMS = _key("offline_items")

# Elements that carry another one under the terminal's data key; the switch puts what was sealed in their place.
SEALED = {SEALED_SUBJECT: SUBJECT}


def sealed_context(key: int) -> bytes:
    """The additional data under which the element ``key`` is sealed: its key, 2 bytes."""
    return key.to_bytes(2, "big")


# What the session knows and a message therefore does not carry; it is part of what is signed.
SESSION_IMPLIED = (TERMINAL, MERCHANT, CURRENCY, BATCH, OPERATOR)
CURRENCY_CNY = 156


def mask(element: Element, value: object) -> str:
    """The value as a log or a screen may show it: C3 only that it is there, C2 first and last characters, C1 whole."""
    if element.privacy is Privacy.C3:
        return "[withheld]"
    text = value.hex() if isinstance(value, bytes) else str(value)
    if element.privacy is Privacy.C1:
        return text
    head, tail = element.mask
    if len(text) <= head + tail:
        return "*" * len(text)
    return text[:head] + "*" * (len(text) - head - tail) + text[len(text) - tail :]
