"""Official vectors, each named after the document it stands in, and oracles where no document has one."""

import hashlib

import pytest
from gmssl import sm4 as gmssl_sm4
from hypothesis import given, settings
from hypothesis import strategies as st

from fengshou.codecs import (
    BadCiphertext,
    BadKey,
    PrivateKey,
    PublicKey,
    hmac_sm3,
    sm2_agree,
    sm2_decrypt,
    sm2_encrypt,
    sm3,
    za,
)
from fengshou.hsm import ccm, components, keyblock, pin, shamir, sm4
from fengshou.hsm.components import ComponentError
from fengshou.hsm.custody import Kind, PinFormat, WrappedKeyError
from fengshou.hsm.envelope import Envelope, dump_envelope, parse_envelope

h = bytes.fromhex
K = h("0123456789ABCDEFFEDCBA9876543210")  # of GB/T 32907 annex A and of all that follow it

# GB/T 32918.5 annexes A and C: the key of the signature and of the encryption.
D = h("3945208F7B2144B13F36E38AC6D39F95889393692860B51A42FB81EF4DF7C5B8")
P = h(
    "0409F9DF311E5421A150DD7D161E4BC5C672179FAD1833FC076BB08FF356F35020"
    "CCEA490CE26775A52DC6EA718CC1AA600AED05FBF35E084A6632F6072DA9AD13"
)
# RFC 8998 appendix A: eight bytes each of AA BB CC DD EE FF EE AA.
PLAIN = b"".join(bytes((byte,)) * 8 for byte in h("AABBCCDDEEFFEEAA"))
AAD = h("FEEDFACEDEADBEEFFEEDFACEDEADBEEFABADDAD2")
NONCE = h("00001234567800000000ABCD")


# --- SM2


def test_gbt_32918_5_annex_a_signature():
    assert PrivateKey.from_scalar(D).public_key.point == P
    assert za(P) == h("B2E14C5C79C6DF5B85F4FE7ED8DB7A262B9DA7E07CCB0EA9F4747B8CCDA8A4F3")
    digest = sm3(za(P) + b"message digest")
    assert digest == h("F0B43E94BA45ACCAACE692ED534382EB17E6AB5A19CE7B31F4486FDFC0D28640")
    signature = h(
        "F5A03B0648D2C4630EEAC513E1BB81A15944DA3827D5B74143AC7EACEEE720B3"
        "B1B6AA29DF212FD8763182BC0D421CA1BB9038FD1F7F42D4840B69C485BBC1AA"
    )
    PublicKey(P).verify(digest, signature)


# GB/T 32918.5 annex C, as C1 || C3 || C2.
ANNEX_C = Envelope(
    h("04EBFC718E8D1798620432268E77FEB6415E2EDE0E073C0F4F640ECD2E149A73"),
    h("E858F9D81E5430A57B36DAAB8F950A3C64E6EE6A63094D99283AFF767E124DF0"),
    h("59983C18F809E262923C53AEC295D30383B54E39D609D160AFCB1908D0BD8766"),
    h("21886CA989CA9C7D58087307CA93092D651EFA"),
)


def test_gbt_32918_5_annex_c_encryption():
    der = dump_envelope(ANNEX_C)
    assert sm2_decrypt(PrivateKey.from_scalar(D), der) == b"encryption standard"
    assert parse_envelope(der) == ANNEX_C


@pytest.mark.parametrize("part", ["x", "y", "digest", "data"])
def test_an_sm2_ciphertext_with_a_changed_part_is_refused(part):
    parts = {name: getattr(ANNEX_C, name) for name in ("x", "y", "digest", "data")}
    parts[part] = parts[part][:-1] + bytes((parts[part][-1] ^ 1,))
    with pytest.raises(BadCiphertext):
        sm2_decrypt(PrivateKey.from_scalar(D), dump_envelope(Envelope(**parts)))


def test_the_old_order_c1_c2_c3_is_refused():
    old = Envelope(ANNEX_C.x, ANNEX_C.y, (ANNEX_C.data + ANNEX_C.digest)[:32], (ANNEX_C.data + ANNEX_C.digest)[32:])
    with pytest.raises(BadCiphertext):
        sm2_decrypt(PrivateKey.from_scalar(D), dump_envelope(old))
    with pytest.raises(BadCiphertext):
        sm2_decrypt(PrivateKey.from_scalar(D), b"\x04" + ANNEX_C.x + ANNEX_C.y + ANNEX_C.data + ANNEX_C.digest)


@given(st.binary(min_size=1, max_size=200))
@settings(max_examples=25, deadline=None)
def test_what_sm2_encrypts_it_decrypts(data):
    key = PrivateKey.generate()
    ciphertext = sm2_encrypt(key.public_key, data)
    assert sm2_decrypt(key, ciphertext) == data
    for wrong in (ciphertext[:-1], ciphertext[1:], b""):
        with pytest.raises(BadCiphertext):
            sm2_decrypt(key, wrong)


def test_sm2_encrypts_no_empty_data():
    with pytest.raises(ValueError, match="at least one byte"):
        sm2_encrypt(PublicKey(P), b"")


def test_gbt_32918_5_annex_b_key_exchange():
    a, b, ra, rb = (
        PrivateKey.from_scalar(h(scalar))
        for scalar in (
            "81EB26E941BB5AF16DF116495F90695272AE2CD63D6C4AE1678418BE48230029",
            "785129917D45A9EA5437A59356B82338EAADDA6CEB199088F14AE10DEFA229B5",
            "D4DE15474DB74D06491C440D305E012400990F3E390C7E87153C12DB2EA60BB3",
            "7E07124814B309489125EAED101113164EBF0F3458C5BD88335C1F9D596243D6",
        )
    )
    assert a.public_key.za == h("3B85A57179E11E7E513AA622991F2CA74D1807A0BD4D4B38F90987A17AC245B1")
    expected = (
        h("6C89347354DE2484C60B4AB1FDE4C6E5"),
        h("D3A0FE15DEE185CEAE907A6B595CC32A266ED7B3367E9983A896DC32FA20F8EB"),
        h("18C7894B3816DF16CF07B05C5EC0BEF5D655D58F779CC1B400A4F3884644DB88"),
    )
    assert sm2_agree(a, ra, b.public_key, rb.public_key, 16, initiator=True) == expected
    assert sm2_agree(b, rb, a.public_key, ra.public_key, 16, initiator=False) == expected
    assert sm2_agree(a, ra, b.public_key, rb.public_key, 48, initiator=True).key[:16] == expected[0]
    assert sm2_agree(a, ra, b.public_key, ra.public_key, 16, initiator=True).key != expected[0]
    with pytest.raises(BadKey):
        PublicKey(b"\x04" + bytes(64))


# --- SM3


@pytest.mark.parametrize(
    ("data", "digest"),
    [
        (b"abc",       "66C7F0F462EEEDD9D1F2D46BDC10E4E24167C4875CF2F7A2297DA02B8F4BA8E0"),
        (b"abcd" * 16, "DEBE9FF92275B8A138604889C18E5A4D6FDB70E5387E5765293DCBA39C0C5732"),
    ],
)  # fmt: skip
def test_gbt_32905_annex_a_sm3(data, digest):
    assert sm3(data) == h(digest) == hashlib.new("sm3", data).digest()


MESSAGE = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"


@pytest.mark.parametrize(
    ("key", "data", "mac"),
    [
        (bytes(range(1, 33)), MESSAGE * 2, "CA05E144ED05D1857840D1F318A4A8669E559FC8391F414485BFDF7BB408963A"),
        (b"\x0b" * 32,        b"Hi There", "C0BA18C68B90C88BC07DE794BFC7D2C8D19EC31ED8773BC2B390C9604E0BE11E"),
    ],
)  # fmt: skip
def test_gmt_0042_2015_annex_d_hmac_sm3(key, data, mac):
    assert hmac_sm3(key, data) == h(mac)


# --- SM4


def test_gbt_32907_annex_a_sm4():
    block = sm4.ecb_encrypt(K, K)
    assert block == h("681EDF34D206965E86B3E94F536E4246")
    assert sm4.ecb_decrypt(K, block) == K


def test_gbt_17964_modes():
    assert sm4.cbc_encrypt(K, K, K + K) == h("2677F46B09C122CC975533105BD4A22AF6125F7275CE552C3A2BBCF533DE8A3B")
    hidden = h(
        "C2B4759E78AC3CF43D0852F4E8D5F9FD7256E8A5FCB65A350EE00630912E4449"
        "2A0B17E1B85B060D0FBA612D8A95831638B361FD5FFACD942F081485A83CA35D"
    )
    assert sm4.ctr(K, K, PLAIN) == hidden
    assert sm4.ctr(K, K, hidden) == PLAIN


def test_rfc_8998_a_1_gcm():
    sealed = h(
        "17F399F08C67D5EE19D0DC9969C4BB7D5FD46FD3756489069157B282BB200735"
        "D82710CA5C22F0CCFA7CBF93D496AC15A56834CBCF98C397B4024A2691233B8D"
        "83DE3541E4C2B58177E065A9BF7B62EC"
    )
    assert sm4.gcm_seal(K, NONCE, PLAIN, AAD) == sealed
    assert sm4.gcm_open(K, NONCE, sealed, AAD) == PLAIN


MODES = (lambda iv, data: bytes(sm4.cbc_encrypt(K, iv, data)[-16:]), lambda iv, data: bytes(sm4.ctr(K, iv, data)))


def test_rfc_8998_a_2_ccm():
    sealed = h(
        "48AF93501FA62ADBCD414CCE6034D895DDA1BF8F132F042098661572E7483094"
        "FD12E518CE062C98ACEE28D95DF4416BED31A2F04476C18BB40C84A74B97DC5B"
        "16842D4FA186F56AB33256971FA110F4"
    )
    assert ccm.seal(*MODES, NONCE, PLAIN, AAD) == sealed
    assert ccm.unseal(*MODES, NONCE, sealed, AAD) == PLAIN
    for wrong in (sealed[:-1] + b"\0", b"\0" + sealed[1:], sealed[:15]):
        with pytest.raises(ccm.NotAuthentic):
            ccm.unseal(*MODES, NONCE, wrong, AAD)
    with pytest.raises(ccm.NotAuthentic):
        ccm.unseal(*MODES, NONCE, sealed, AAD + b"\0")


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 100])
def test_ccm_without_data_or_context_opens_again(size):
    for context in (b"", b"x" * size):
        assert ccm.unseal(*MODES, NONCE, ccm.seal(*MODES, NONCE, bytes(size), context), context) == bytes(size)


# No document has a vector of SM4-CMAC; these were computed by two independent programs. SP 800-38B section 6.
@pytest.mark.parametrize(
    ("data", "mac"),
    [
        (b"",              "29E154322E5C7BD8EE6A25BA549B24BC"),
        (K,                "492950917932F9852DD47D1BA1AEB534"),
        (K + K + b"abc",   "A84F842C29CB4AB925876CDD2A1B85C6"),
    ],
)  # fmt: skip
def test_cmac(data, mac):
    assert sm4.cmac(K, data) == h(mac)


def test_check_values():
    assert sm4.check_value(K) == h("2677F46B")
    # The working key of the UnionPay sign-in example.
    assert sm4.check_value(h("376D90E7945AA5CFDB4C07CCB35CEFD3")) == h("08EEDEC7")


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
@settings(max_examples=40, deadline=None)
def test_sm4_is_gmssls(key, block):
    oracle = gmssl_sm4.CryptSM4(padding_mode=None)
    oracle.set_key(key, gmssl_sm4.SM4_ENCRYPT)
    assert sm4.ecb_encrypt(key, block) == bytes(oracle.one_round(oracle.sk, list(block)))


# --- PIN blocks


ACCOUNT = "6231722254919298906"


def test_iso_9564_1_format_4_with_sm4():
    block = h("F10A3CCDA0ECC73EA303A6941538C8C8")
    assert pin.decipher(K, PinFormat.ISO_4, block, ACCOUNT) == b"123456"
    first, second = (pin.encipher(K, PinFormat.ISO_4, b"123456", ACCOUNT) for _ in range(2))
    assert first != second, "equal PINs look different"


def test_unionpay_x98_with_sm4():
    block = h("56C3E1A10366755290F5AF9B4837E713")
    assert pin.encipher(K, PinFormat.UNIONPAY, b"123456", ACCOUNT) == block
    assert pin.decipher(K, PinFormat.UNIONPAY, block, ACCOUNT) == b"123456"


@given(
    st.sampled_from(PinFormat),
    st.text("0123456789", min_size=4, max_size=12),
    st.text("0123456789", min_size=12, max_size=19),
)
@settings(deadline=None)
def test_every_pin_of_every_account_comes_back(form, digits, account):
    block = pin.encipher(K, form, digits.encode(), account)
    assert pin.decipher(K, form, block, account) == digits.encode()


# --- key blocks, components, shares


def test_key_block_keys_by_the_construction_of_tr_31_version_d():
    wrapping = h("8899AABBCCDDEEFF0011223344556677")
    assert keyblock.derived_keys(wrapping) == (
        h("F8436B6112D95FA2373E3A20D5554A90"),
        h("80073CF703B53C3FFB4AECD59EB66E44"),
    )


def test_a_key_block_is_compacted_and_expanded():
    block = keyblock.wrap(K, Kind.PIN, K)
    assert len(block) == 112
    small = keyblock.compact(block)
    assert len(small) == 64
    assert keyblock.expand(small) == block
    kind, key = keyblock.unwrap(K, block)
    assert (kind, bytes(key.view)) == (Kind.PIN, K)


@pytest.mark.parametrize("data", [b"", b"9", b"9" * 16, b"D0112P0AE00N0000" + b"0" * 96, b"\xff" * 112])
def test_what_is_no_key_block_is_refused(data):
    with pytest.raises(WrappedKeyError):
        keyblock.unwrap(K, data)


def test_components_find_their_own_errors():
    parts = components.new_components(3)
    forms = [components.format_component(part) for part in parts]
    assert [components.parse_component(form.lower()) for form in forms] == parts
    whole = bytes(a ^ b ^ c for a, b, c in zip(*parts, strict=True))
    assert bytes(components.combine(parts).view) == whole
    mistyped = ("0" if forms[0][0] != "0" else "1") + forms[0][1:]
    for wrong in (mistyped, forms[0][:-1], forms[0].replace("/", ""), "", "zz"):
        with pytest.raises(ComponentError):
            components.parse_component(wrong)
    for few in ([], parts[:1], [parts[0], parts[0]]):
        with pytest.raises(ComponentError):
            components.combine(few)


def test_fips_197_section_4_2_multiplication():
    assert shamir.multiply(0x57, 0x83) == 0xC1
    assert shamir.multiply(0x57, 0x13) == 0xFE
    assert all(shamir.multiply(a, shamir.invert(a)) == 1 for a in range(1, 256))


@given(st.data(), st.binary(min_size=1, max_size=32), st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_any_quorum_of_shares_gives_the_secret_and_a_wrong_share_does_not(data, secret, needed):
    total = data.draw(st.integers(needed, 8))
    shares = shamir.split(secret, needed, total)
    chosen = data.draw(st.permutations(sorted(shares)))[:needed]
    assert shamir.combine({x: shares[x] for x in chosen}) == secret
    wrong = {x: shares[x] for x in chosen}
    wrong[chosen[0]] = bytes(byte ^ 1 for byte in wrong[chosen[0]])
    assert shamir.combine(wrong) != secret


def test_fewer_shares_than_needed_fit_every_secret():
    """With 2 of 3, one share and any secret at all lie on a polynomial: share 2 alone excludes nothing."""
    shares = shamir.split(b"\x2a", 2, 3)
    first = shares[2][0]
    possible = {shamir.combine({2: bytes((first,)), 3: bytes((other,))})[0] for other in range(256)}
    assert possible == set(range(256))


@pytest.mark.parametrize(("needed", "total"), [(0, 3), (1, 3), (4, 3), (2, 256)])
def test_an_impossible_quorum_is_refused(needed, total):
    with pytest.raises(ValueError, match="no quorum"):
        shamir.split(b"x", needed, total)


@pytest.mark.parametrize("shares", [{}, {1: b"a"}, {1: b"a", 2: b"bb"}, {0: b"a", 1: b"b"}, {1: b"a", 256: b"b"}])
def test_shares_that_cannot_belong_together_are_refused(shares):
    with pytest.raises(ValueError, match="shares are"):
        shamir.combine(shares)
