"""The compiled codecs: messages of the protocol, ISO 8583 of hosts, and the national cryptography under both.

Each has a readable twin (``fengshou.protocol.grammar``, ``merkle``, ``bloom``) or an independent oracle, and
tests hold the two equal. Nothing here decides anything, and nothing but ``DirectConnection`` does I/O.
"""

from fengshou.codecs._bloom import Bloom
from fengshou.codecs._channel import DirectConnection, MemoryConnection, TlsCalls
from fengshou.codecs._delta import DeltaWriter
from fengshou.codecs._iso8583 import Iso8583Codec
from fengshou.codecs._merkle import merkle_path, merkle_root, merkle_root_from_path
from fengshou.codecs._message import MessageCodec
from fengshou.codecs._records import pack_records, pack_row
from fengshou.codecs._sm2 import BadKey, BadSignature, PrivateKey, PublicKey, za
from fengshou.codecs._sm2_transport import Agreement, BadCiphertext, sm2_agree, sm2_decrypt, sm2_encrypt
from fengshou.codecs._sm3 import hmac_sm3, sm3, sm3_many
from fengshou.codecs._sm4 import BadTag, Sm4Cmac, Sm4Gcm
from fengshou.codecs._verify import keep_tables, tables_kept, verify_batch

__all__ = [
    "Agreement",
    "BadCiphertext",
    "BadKey",
    "BadSignature",
    "BadTag",
    "Bloom",
    "DeltaWriter",
    "DirectConnection",
    "Iso8583Codec",
    "MemoryConnection",
    "MessageCodec",
    "PrivateKey",
    "PublicKey",
    "Sm4Cmac",
    "Sm4Gcm",
    "TlsCalls",
    "hmac_sm3",
    "keep_tables",
    "merkle_path",
    "merkle_root",
    "merkle_root_from_path",
    "pack_records",
    "pack_row",
    "sm2_agree",
    "sm2_decrypt",
    "sm2_encrypt",
    "sm3",
    "sm3_many",
    "tables_kept",
    "verify_batch",
    "za",
]
