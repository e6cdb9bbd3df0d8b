"""What a signature covers. A tag of four bytes keeps signatures of different purposes apart.

The digest under a request's signature (GB/T 32918.2 with SM3) is::

    e = SM3( ZA || tag || binding || canonical )

``ZA`` is that of the signer's key with the default identity of GM/T 0009 section 10; ``binding`` ties the message to
its session; ``canonical`` is the expanded message, see ``grammar.canonical``.
"""

TAG_REQUEST = b"FP1Q"
TAG_COMMIT = b"FP1J"  # journal commit headers, hence receipts
TAG_MANIFEST = b"FP1A"  # application manifests
TAG_JSON = b"FP1G"  # bodies to and from government services

# GM/T 0009 section 10.
SIGNER_ID = b"1234567812345678"

# RFC 8446 section 7.5: both ends derive the binding from the channel, so nothing signed on it is valid on another one.
EXPORTER_LABEL = b"EXPORTER-fengshou-session"
