"""What a signature covers. A tag of four bytes keeps signatures of different purposes apart.

The digest under a request's signature (GB/T 32918.2 with SM3) is::

    e = SM3( ZA || tag || binding || canonical )

``ZA`` is that of the signer's key with the default identity of GM/T 0009 section 10; ``binding`` ties the message to
its session; ``canonical`` is the expanded message, see ``grammar.canonical``.

Bodies to and from back ends over HTTPS are signed in the header ``Fengshou-Signature``, 128 hexadecimal digits r || s,
over a message M of the standard's own form, ``e = SM3( ZA || M )``, so that any SM2 tool can check it::

    request   M = "FP1G" || method || 0x0A || target || 0x0A || SM3( body )
    answer    M = "FP1G" || status || 0x0A || the request's signature (64 bytes) || SM3( body )

Every SM2 signature is fresh (GB/T 32918.2 step A3), so an answer is good for one request and cannot be replayed for an
equal one. A method is letters and a status three digits: neither message can be taken for the other.
"""

TAG_REQUEST = b"FP1Q"
TAG_COMMIT = b"FP1J"  # journal commit headers, hence receipts
TAG_MANIFEST = b"FP1A"  # application manifests
TAG_STAND_IN = b"FP1L"  # limits of standing in for core banking
TAG_JSON = b"FP1G"  # bodies to and from back ends over HTTPS
TAG_AUDIT = b"FP1U"  # digests of the audit log
TAG_DUTY = b"FP1D"  # a person's word for an act
TAG_RENEWAL = b"FP1N"  # a terminal's wish for a certificate of another key; both keys sign it
TAG_KEYS = b"FP1K"  # a terminal's proof that it holds its working keys; under a MAC, not a signature

_TAGS = (
    TAG_REQUEST, TAG_COMMIT, TAG_MANIFEST, TAG_STAND_IN, TAG_JSON, TAG_AUDIT,
    TAG_DUTY, TAG_RENEWAL, TAG_KEYS,
)  # fmt: skip
assert len(set(_TAGS)) == len(_TAGS), "a signature for one purpose would be one for another"

# GM/T 0009 section 10.
SIGNER_ID = b"1234567812345678"

# RFC 8446 section 7.5: both ends derive the binding from the channel, so nothing signed on it is valid on another one.
EXPORTER_LABEL = b"EXPORTER-fengshou-session"

SIGNATURE_HEADER = "Fengshou-Signature"
# How many milliseconds the sender of a request still waits. It is of the exchange, not of what is asked: not signed.
DEADLINE_HEADER = "Fengshou-Deadline-Ms"


def renewal_message(terminal: str, fingerprint: bytes, key: bytes) -> bytes:
    """M of what both keys sign when a terminal wants a certificate for another key, ``e = SM3( ZA || M )``.

    ``fingerprint`` is SM3 of the certificate that it has, ``key`` the new public key, x || y.
    """
    return TAG_RENEWAL + terminal.encode("ascii") + fingerprint + key


def key_proof_message(binding: bytes, master_epoch: int, key_epoch: int) -> bytes:
    """What a terminal authenticates under its authentication key: that it holds keys of these epochs, here and now."""
    return TAG_KEYS + binding + bytes((master_epoch, key_epoch))


def json_request_message(method: str, target: str, body_digest: bytes) -> bytes:
    """M of a request. ``target`` is the path as it stands in the request line; ``body_digest`` is SM3 of the body."""
    return TAG_JSON + f"{method}\n{target}\n".encode("ascii") + body_digest


def json_answer_message(status: int, request_signature: bytes, body_digest: bytes) -> bytes:
    """M of the answer with this HTTP status to the request that bore ``request_signature``, 64 bytes r || s."""
    return TAG_JSON + f"{status:03d}\n".encode("ascii") + request_signature + body_digest
