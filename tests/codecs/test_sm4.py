"""SM4-GCM: the vector of RFC 8998, an independent implementation as oracle, and every way to break a sealed value."""

import os
import pickle

import pytest
from cryptography.hazmat.primitives import cmac
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from fengshou.codecs import BadTag, Sm4Cmac, Sm4Gcm

KEY = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")


def oracle(key: bytes, nonce: bytes, data: bytes, context: bytes) -> bytes:
    encryptor = Cipher(algorithms.SM4(key), modes.GCM(nonce)).encryptor()
    encryptor.authenticate_additional_data(context)
    return encryptor.update(data) + encryptor.finalize() + encryptor.tag


def test_rfc_8998_appendix_a_1() -> None:
    nonce = bytes.fromhex("00001234567800000000ABCD")
    context = bytes.fromhex("FEEDFACEDEADBEEFFEEDFACEDEADBEEFABADDAD2")
    data = b"".join(bytes([byte]) * 8 for byte in (0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF, 0xEE, 0xAA))
    sealed = bytes.fromhex(
        "17F399F08C67D5EE19D0DC9969C4BB7D5FD46FD3756489069157B282BB200735"
        "D82710CA5C22F0CCFA7CBF93D496AC15A56834CBCF98C397B4024A2691233B8D"
        "83DE3541E4C2B58177E065A9BF7B62EC"
    )
    assert Sm4Gcm(KEY).seal(nonce, data, context) == sealed
    assert Sm4Gcm(KEY).open(nonce, sealed, context) == data


@given(
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=12, max_size=12),
    st.binary(max_size=2000),
    st.binary(max_size=100),
)
def test_agrees_with_cryptography(key: bytes, nonce: bytes, data: bytes, context: bytes) -> None:
    gcm = Sm4Gcm(key)
    sealed = gcm.seal(nonce, bytearray(data), context)
    assert sealed == oracle(key, nonce, data, context)
    assert gcm.open(nonce, sealed, context) == data


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 511, 512, 513, 1024, 5000])
def test_sizes_around_blocks(size: int) -> None:
    data, nonce = os.urandom(size), os.urandom(12)
    assert Sm4Gcm(KEY).seal(nonce, data, data[:20]) == oracle(KEY, nonce, data, data[:20])


def test_every_bit_counts() -> None:
    gcm, nonce, context = Sm4Gcm(KEY), bytes(12), b"where it belongs"
    sealed = gcm.seal(nonce, b"6231722254919298906", context)
    for part, put in (
        (sealed, lambda it: (nonce, it, context)),
        (nonce, lambda it: (it, sealed, context)),
        (context, lambda it: (nonce, sealed, it)),
    ):
        for bit in range(8 * len(part)):
            wrong = (int.from_bytes(part, "big") ^ (1 << bit)).to_bytes(len(part), "big")
            with pytest.raises(BadTag):
                gcm.open(*put(wrong))
    for cut in (sealed[:-1], sealed[1:], sealed[:15], b"", sealed + b"\0"):
        with pytest.raises(BadTag):
            gcm.open(nonce, cut, context)
    with pytest.raises(BadTag):
        Sm4Gcm(KEY[::-1]).open(nonce, sealed, context)


@pytest.mark.parametrize("key", [b"", KEY[:15], KEY + b"\0"])
def test_keys_of_another_size(key: bytes) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Sm4Gcm(key)


@pytest.mark.parametrize("nonce", [b"", bytes(11), bytes(13)])
def test_nonces_of_another_size(nonce: bytes) -> None:
    with pytest.raises(ValueError, match="12 bytes"):
        Sm4Gcm(KEY).seal(nonce, b"", b"")
    with pytest.raises(ValueError, match="12 bytes"):
        Sm4Gcm(KEY).open(nonce, bytes(16), b"")


def test_a_key_is_not_pickled() -> None:
    with pytest.raises(TypeError):
        Sm4Gcm(KEY).__reduce__()


# No standard gives vectors of SM4-CMAC; these agree with two implementations.
@pytest.mark.parametrize(
    ("data", "mac"),
    [
        (b"", "29E154322E5C7BD8EE6A25BA549B24BC"),
        (KEY, "492950917932F9852DD47D1BA1AEB534"),
        (KEY + KEY + b"abc", "A84F842C29CB4AB925876CDD2A1B85C6"),
    ],
)
def test_cmac(data: bytes, mac: str) -> None:
    assert Sm4Cmac(KEY).mac(data) == bytes.fromhex(mac)


@given(st.binary(min_size=16, max_size=16), st.lists(st.binary(max_size=1200), max_size=4))
def test_cmac_agrees_with_cryptography(key: bytes, messages: list[bytes]) -> None:
    ours = Sm4Cmac(key)
    for message in messages:
        oracle = cmac.CMAC(algorithms.SM4(key))
        oracle.update(message)
        assert ours.mac(message) == oracle.finalize()


def test_a_cmac_key_is_one_and_stays_here() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Sm4Cmac(bytes(15))
    with pytest.raises(TypeError):
        pickle.dumps(Sm4Cmac(KEY))
