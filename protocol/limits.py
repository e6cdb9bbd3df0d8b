"""Limits of protocol version 1, each with its reason; their relations are asserted at import."""

# A receipt with its audit path and the commit headers up to the signed one is the largest message: a 2 KiB record,
# 20 hashes of 32 bytes and 40 headers of 92 bytes. It must also fit one TLS record (16 KiB, RFC 8446 section 5.1).
FRAME_BYTES_MAX = 8192

# The smallest thing after the length: version/template, flags, sequence.
FRAME_BYTES_MIN = 3

# LEB128 of FRAME_BYTES_MAX: two bytes hold 14 bits.
LENGTH_BYTES_MAX = 2

# Integers are 63 bit so that every language has a signed type for them; nine groups of seven bits.
VARINT_BYTES_MAX = 9
UINT_MAX = 2**63 - 1

SIGNATURE_BYTES = 64  # r || s, GB/T 32918.2 section 6
BINDING_BYTES = 32  # TLS exporter value, RFC 8446 section 7.5
DIGEST_BYTES = 32  # SM3, GB/T 32905

# A 6-bit template id; two bits of the same byte carry the version.
TEMPLATE_ID_MAX = 63
PROTOCOL_VERSION = 1

# Presence bits are whole bytes; four bytes are more than any message of this network has optional fields.
OPTIONAL_FIELDS_MAX = 32

# How many sequence numbers back a delta may reach: a distance is one byte. Both ends remember so many requests.
DELTA_WINDOW = 127

# Of one offline upload. A terminal may do twice its rate at once, which is twice ten by default; and an audit path of
# five hashes fits the evidence of a record.
OFFLINE_ITEMS_MAX = 20

# Fen. CNY 100 million in one message is far above any limit of a rural terminal and far below overflow in sums.
AMOUNT_FEN_MAX = 10_000_000_000
# 0.01 kg: 1,000 tonnes.
WEIGHT_CENTIKG_MAX = 100_000_000
# Fen per kg: CNY 1,000,000.
UNIT_PRICE_FEN_MAX = 100_000_000

assert 2 ** (7 * LENGTH_BYTES_MAX) > FRAME_BYTES_MAX
assert FRAME_BYTES_MAX < 16 * 1024
assert 2 ** (7 * VARINT_BYTES_MAX) - 1 == UINT_MAX
assert DELTA_WINDOW < 2**7, "above it TAIL says something else"
assert AMOUNT_FEN_MAX < 10**12, "DE 4 is n12"
assert WEIGHT_CENTIKG_MAX * UNIT_PRICE_FEN_MAX <= UINT_MAX, "weight x price must not overflow"
