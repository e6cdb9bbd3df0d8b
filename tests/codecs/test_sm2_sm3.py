"""SM2 and SM3: vectors of the standards, an independent oracle, and the keys and signatures that must be refused."""

import pickle
import random
import threading
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Any

import pytest
from gmssl import sm2 as oracle_sm2
from gmssl import sm3 as oracle_sm3
from hypothesis import given
from hypothesis import strategies as st

from fengshou.codecs import (
    BadKey,
    BadSignature,
    PrivateKey,
    PublicKey,
    _sm2,
    _sm3,
    hmac_sm3,
    sm3,
    sm3_many,
    verify_batch,
    za,
)

P = int("FFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF00000000FFFFFFFFFFFFFFFF", 16)
N = int("FFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFF7203DF6B21C6052B53BBF40939D54123", 16)


# GB/T 32918.5-2017 Annex A.
class Annex:
    scalar = bytes.fromhex("3945208F7B2144B13F36E38AC6D39F95889393692860B51A42FB81EF4DF7C5B8")
    point = bytes.fromhex(
        "0409F9DF311E5421A150DD7D161E4BC5C672179FAD1833FC076BB08FF356F35020"
        "CCEA490CE26775A52DC6EA718CC1AA600AED05FBF35E084A6632F6072DA9AD13"
    )
    za = bytes.fromhex("B2E14C5C79C6DF5B85F4FE7ED8DB7A262B9DA7E07CCB0EA9F4747B8CCDA8A4F3")
    message = b"message digest"
    digest = bytes.fromhex("F0B43E94BA45ACCAACE692ED534382EB17E6AB5A19CE7B31F4486FDFC0D28640")
    signature = bytes.fromhex(
        "F5A03B0648D2C4630EEAC513E1BB81A15944DA3827D5B74143AC7EACEEE720B3"
        "B1B6AA29DF212FD8763182BC0D421CA1BB9038FD1F7F42D4840B69C485BBC1AA"
    )


KEY = PrivateKey.from_scalar(Annex.scalar)


def test_the_compiled_modules_are_loaded() -> None:
    for module in (_sm2, _sm3):
        assert module.__file__ is not None
        assert module.__file__.endswith(tuple(EXTENSION_SUFFIXES))


# ---- SM3


@pytest.mark.parametrize(
    ("data", "digest"),
    [
        # GB/T 32905-2016 A.1 and A.2.
        (b"abc", "66C7F0F462EEEDD9D1F2D46BDC10E4E24167C4875CF2F7A2297DA02B8F4BA8E0"),
        (b"abcd" * 16, "DEBE9FF92275B8A138604889C18E5A4D6FDB70E5387E5765293DCBA39C0C5732"),
    ],
)
def test_sm3_gbt_32905(data: bytes, digest: str) -> None:
    assert sm3(data).hex().upper() == digest
    assert sm3_many([data, b"", data]) == [sm3(data), sm3(b""), sm3(data)]


def test_sm3_of_many_is_that_of_each() -> None:
    """Every length around the edges of blocks and padding, in every lane, beside longer and shorter ones, and in calls
    that leave lanes empty."""
    texts = [bytes([size % 251]) * size for size in range(260)]
    random.Random(32905).shuffle(texts)
    assert sm3_many([]) == []
    for count in range(1, 20):
        for first in range(0, len(texts), count):
            some = texts[first : first + count]
            assert sm3_many(some) == [sm3(text) for text in some]


# One length on each side of every block and padding edge, and one past the size at which the GIL is given up.
@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 2049])
def test_sm3_agrees_with_gmssl(size: int) -> None:
    data = bytes(index % 251 for index in range(size))
    assert sm3(data).hex() == oracle_sm3.sm3_hash(list(data))


@pytest.mark.parametrize(
    ("key", "data", "mac"),
    [
        # GM/T 0042-2015 D.3.
        (
            bytes(range(1, 33)),
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq" * 2,
            "CA05E144ED05D1857840D1F318A4A8669E559FC8391F414485BFDF7BB408963A",
        ),
        (b"\x0b" * 32, b"Hi There", "C0BA18C68B90C88BC07DE794BFC7D2C8D19EC31ED8773BC2B390C9604E0BE11E"),
    ],
)
def test_hmac_sm3_gmt_0042(key: bytes, data: bytes, mac: str) -> None:
    assert hmac_sm3(key, data).hex().upper() == mac


@given(st.binary(max_size=100), st.binary(max_size=200))
def test_hmac_sm3_is_the_construction_of_rfc_2104(key: bytes, data: bytes) -> None:
    block = (sm3(key) if len(key) > 64 else key).ljust(64, b"\x00")
    inner = sm3(bytes(byte ^ 0x36 for byte in block) + data)
    assert hmac_sm3(key, data) == sm3(bytes(byte ^ 0x5C for byte in block) + inner)


# ---- SM2


def test_sm2_gbt_32918_5_annex_a() -> None:
    public = KEY.public_key
    assert public.point == Annex.point
    assert public.za == za(Annex.point) == za(Annex.point, b"1234567812345678") == Annex.za
    assert sm3(Annex.za + Annex.message) == Annex.digest
    public.verify(Annex.digest, Annex.signature)
    assert oracle_of(KEY).sign(Annex.digest, "59276E27D506861A16680F3AD9C02DCCEF3CC1FA3CDBE4CE6D54B80DEAC1BC21") == (
        Annex.signature.hex()
    )


def oracle_of(key: PrivateKey) -> Any:
    oracle = oracle_sm2.CryptSM2(key.to_scalar().hex(), "")
    # Set, not passed: the constructor strips every leading 0 and 4 of the point.
    oracle.public_key = key.public_key.point[1:].hex()
    return oracle


def test_sm2_agrees_with_gmssl() -> None:
    for index in range(6):
        key = PrivateKey.generate()
        digest = sm3(bytes([index]))
        ours = key.sign(digest)
        theirs = bytes.fromhex(oracle_of(key).sign(digest, sm3(key.to_scalar() + digest).hex()))
        assert oracle_of(key).verify(ours.hex(), digest)
        key.public_key.verify(digest, theirs)
        bent = bytes([*ours[:-1], ours[-1] ^ 1])
        assert not oracle_of(key).verify(bent.hex(), digest)
        with pytest.raises(BadSignature):
            key.public_key.verify(digest, bent)


@given(st.binary(min_size=32, max_size=32))
def test_what_a_key_signs_its_public_key_verifies(digest: bytes) -> None:
    signature = KEY.sign(digest)
    assert len(signature) == 64
    KEY.public_key.verify(digest, signature)


R, S = Annex.signature[:32], Annex.signature[32:]


@pytest.mark.parametrize(
    ("digest", "signature"),
    [
        (Annex.digest, b""),
        (Annex.digest, bytes(64)),
        (Annex.digest, b"\xff" * 64),
        (Annex.digest, Annex.signature[:-1]),
        (Annex.digest, Annex.signature + b"\x00"),
        (Annex.digest, bytes(32) + S),
        (Annex.digest, R + bytes(32)),
        (Annex.digest, S + R),
        (Annex.digest, N.to_bytes(32, "big") + S),
        (Annex.digest, R + N.to_bytes(32, "big")),
        (Annex.digest, R + (N - int.from_bytes(R, "big")).to_bytes(32, "big")),  # t = r + s = 0 mod n
        (Annex.digest[:-1], Annex.signature),
        (Annex.digest + b"\x00", Annex.signature),
        (b"", Annex.signature),
        (bytes(32), Annex.signature),
        (sm3(Annex.digest), Annex.signature),
    ],
)
def test_a_signature_that_is_not_one_is_refused(digest: bytes, signature: bytes) -> None:
    with pytest.raises(BadSignature):
        KEY.public_key.verify(digest, signature)
    good = (KEY.public_key, Annex.digest, Annex.signature)
    assert verify_batch([good, (KEY.public_key, digest, signature), good]) == [True, False, True]


def test_a_range_of_r_and_s_is_not_reduced() -> None:
    """r + n or s + n would verify if reduced; only a small number has such a twin of 32 bytes, so one is built."""
    small = 5
    # Any t and s = t - r give a point; the digest is what makes its x come out as r.
    t = int.from_bytes(S, "big")
    s = (t - small) % N
    point = oracle_of(KEY)
    left = point._kg(s, point.ecc_table["g"]) + "1"
    right = point._kg(t, point.public_key)
    x = int(point._convert_jacb_to_nor(point._add_point(left, right))[:64], 16)
    digest = ((small - x) % N).to_bytes(32, "big")
    KEY.public_key.verify(digest, small.to_bytes(32, "big") + s.to_bytes(32, "big"))
    with pytest.raises(BadSignature):
        KEY.public_key.verify(digest, (small + N).to_bytes(32, "big") + s.to_bytes(32, "big"))


def test_no_flipped_bit_of_a_signature_or_digest_passes() -> None:
    flipped = []
    for bit in range(512):
        changed = bytearray(Annex.signature)
        changed[bit // 8] ^= 1 << bit % 8
        flipped.append((KEY.public_key, Annex.digest, bytes(changed)))
    for bit in range(256):
        changed = bytearray(Annex.digest)
        changed[bit // 8] ^= 1 << bit % 8
        flipped.append((KEY.public_key, bytes(changed), Annex.signature))
    assert not any(verify_batch(flipped))


def test_a_batch_takes_any_iterable_and_refuses_other_types() -> None:
    item = (KEY.public_key, Annex.digest, Annex.signature)
    assert verify_batch([]) == []
    assert verify_batch(each for each in [list(item), item]) == [True, True]
    for bad in [(None, *item[1:]), (item[0], None, item[2]), (*item[:2], None), (KEY, *item[1:]), ("", *item[1:])]:
        with pytest.raises(TypeError):
            verify_batch([bad])
    with pytest.raises(ValueError, match="unpack"):
        verify_batch([item[:2]])


def test_threads_may_share_keys() -> None:
    wrong: list[Any] = []

    def work(salt: int) -> None:
        for index in range(15):
            digest = sm3(bytes([salt, index]))
            signature = KEY.sign(digest)
            if verify_batch([(KEY.public_key, digest, signature), (KEY.public_key, signature[:32], signature)]) != [
                True,
                False,
            ]:
                wrong.append((salt, index))

    threads = [threading.Thread(target=work, args=(salt,)) for salt in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# ---- keys


def test_keys_go_through_their_forms() -> None:
    key = PrivateKey.generate()
    public = key.public_key
    for same in (
        PrivateKey.from_scalar(key.to_scalar()),
        PrivateKey.from_scalar(bytearray(key.to_scalar())),
        PrivateKey.from_pkcs8(key.to_pkcs8()),
    ):
        assert same.public_key == public
        public.verify(Annex.digest, same.sign(Annex.digest))
    assert PublicKey(public.point) == PublicKey(public.spki) == public == pickle.loads(pickle.dumps(public))
    assert len({public, PublicKey(public.spki), KEY.public_key}) == 2
    assert public != KEY.public_key
    assert public != public.point
    assert key.to_scalar().hex() not in repr(key)
    with pytest.raises(TypeError):
        pickle.dumps(key)
    with pytest.raises(TypeError):
        PrivateKey()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(65),
        b"\x04" + bytes(64),
        Annex.point[:-1],
        Annex.point + b"\x00",
        Annex.point[:-1] + b"\x14",  # y + 1: off the curve
        b"\x04" + Annex.point[33:] + Annex.point[1:33],  # x and y exchanged
        b"\x02" + Annex.point[1:33],  # compressed
        b"\x06" + Annex.point[1:],  # hybrid
        b"\x00",  # infinity
        b"\x04" + b"\xff" * 64,
        b"\x04" + P.to_bytes(32, "big") + Annex.point[33:],
        KEY.public_key.spki[:-1],
        KEY.public_key.spki + b"\x00",
        KEY.public_key.spki[:-1] + b"\x14",
        KEY.public_key.spki.replace(bytes.fromhex("2a811ccf5501822d"), bytes.fromhex("2a8648ce3d030107")),  # P-256
    ],
)
def test_what_is_no_public_key_is_refused(data: bytes) -> None:
    with pytest.raises(BadKey):
        PublicKey(data)


@pytest.mark.parametrize(
    "scalar",
    [b"", bytes(32), bytes(31), bytes(33), b"\xff" * 32, N.to_bytes(32, "big"), (N - 1).to_bytes(32, "big")],
)
def test_a_scalar_outside_its_range_is_refused(scalar: bytes) -> None:
    with pytest.raises(BadKey):
        PrivateKey.from_scalar(scalar)


def test_the_largest_scalar_works() -> None:
    key = PrivateKey.from_scalar((N - 2).to_bytes(32, "big"))
    key.public_key.verify(Annex.digest, key.sign(Annex.digest))


def test_what_is_no_private_key_is_refused() -> None:
    der = KEY.to_pkcs8()
    for bad in (b"", der[:-1], der + b"\x00", b"\x30" * 40, KEY.public_key.spki, der.replace(Annex.scalar, bytes(32))):
        with pytest.raises(BadKey):
            PrivateKey.from_pkcs8(bad)


def test_only_a_digest_is_signed() -> None:
    for size in (0, 31, 33, 64):
        with pytest.raises(ValueError, match="32 bytes"):
            KEY.sign(bytes(size))


def test_the_identity_of_a_signer_is_part_of_za() -> None:
    assert za(Annex.point, b"ALICE123@YAHOO.COM") != Annex.za
    assert za(Annex.point, b"") != Annex.za
    with pytest.raises(ValueError, match="identity"):
        za(Annex.point, bytes(8192))
    with pytest.raises(BadKey):
        za(Annex.point[1:])


@pytest.mark.parametrize("call", [sm3, lambda x: sm3_many([x]), lambda x: hmac_sm3(b"", x), lambda x: za(x), PublicKey])
def test_what_is_no_bytes_is_our_error(call: Any) -> None:
    for value in (None, "abc", 5, bytearray(3)):
        with pytest.raises(TypeError):
            call(value)
