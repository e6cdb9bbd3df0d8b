"""Merkle trees: RFC 6962's definition, the compiled twin, proofs that must not pass."""

import hashlib
from importlib.machinery import EXTENSION_SUFFIXES

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fengshou.codecs import _merkle, merkle_path, merkle_root, merkle_root_from_path, sm3
from fengshou.protocol import merkle

LEAVES = st.lists(st.binary(max_size=40), min_size=1, max_size=70)


def by_the_definition(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, word for word."""
    if not leaves:
        return sm3(b"")
    if len(leaves) == 1:
        return sm3(b"\x00" + leaves[0])
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return sm3(b"\x01" + by_the_definition(leaves[:k]) + by_the_definition(leaves[k:]))


def test_the_compiled_twin_is_loaded() -> None:
    assert _merkle.__file__ is not None
    assert _merkle.__file__.endswith(tuple(EXTENSION_SUFFIXES))


def test_the_readable_twin_with_sha_256_meets_the_vectors_of_certificate_transparency() -> None:
    """The reference tree of google/certificate-transparency, merkletree/merkle_tree_test.cc."""
    leaves = [
        bytes.fromhex(text)
        for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
    ]
    roots = {
        1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    }

    def sha_256(data: bytes) -> bytes:
        return hashlib.sha256(data).digest()

    for count, root in roots.items():
        assert merkle.merkle_root(sha_256, leaves[:count]).hex() == root


@given(LEAVES)
def test_twins_agree(leaves: list[bytes]) -> None:
    root = merkle_root(leaves)
    assert root == merkle.merkle_root(sm3, leaves) == by_the_definition(leaves)
    for index, leaf in enumerate(leaves):
        path = merkle_path(leaves, index)
        assert path == merkle.merkle_path(sm3, leaves, index)
        assert merkle_root_from_path(leaf, index, len(leaves), path) == root
        assert merkle.merkle_root_from_path(sm3, leaf, index, len(leaves), path) == root


def test_no_leaves_and_many() -> None:
    assert merkle_root([]) == merkle.merkle_root(sm3, []) == sm3(b"")
    many = [index.to_bytes(4, "big") for index in range(1025)]
    assert merkle_root(many) == by_the_definition(many)
    assert merkle_path(many, 1024) == merkle_root(many[:1024])


@given(LEAVES, st.data())
def test_a_proof_leads_elsewhere_for_anything_else(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    path, root = merkle_path(leaves, index), merkle_root(leaves)
    assert merkle_root_from_path(leaves[index] + b"x", index, len(leaves), path) != root
    if path:
        bit = data.draw(st.integers(0, 8 * len(path) - 1))
        bent = bytearray(path)
        bent[bit // 8] ^= 1 << bit % 8
        assert merkle_root_from_path(leaves[index], index, len(leaves), bytes(bent)) != root


def test_a_node_does_not_pose_as_a_record() -> None:
    left, right = sm3(b"\x00a"), sm3(b"\x00b")
    assert merkle_root([left + right]) != merkle_root([b"a", b"b"])


@pytest.mark.parametrize("index", [-1, 3, 2**40])
def test_a_leaf_that_is_not_there(index: int) -> None:
    with pytest.raises(IndexError):
        merkle_path([b"a", b"b", b"c"], index)
    with pytest.raises(IndexError):
        merkle.merkle_path(sm3, [b"a", b"b", b"c"], index)


@pytest.mark.parametrize(
    ("index", "count", "size", "why"),
    [
        (0, 0, 0, "no such leaf"),
        (-1, 3, 64, "no such leaf"),
        (2**70, 3, 64, "no such leaf"),
        (3, 3, 64, "no such leaf"),
        (0, 3, 0, "too short"),
        (0, 3, 63, "too short"),
        (0, 3, 65, "too long"),
        (2, 3, 64, "too long"),
        (0, 1, 32, "too long"),
    ],
)
def test_a_path_of_another_length(index: int, count: int, size: int, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        merkle_root_from_path(b"", index, count, bytes(size))
    with pytest.raises(ValueError, match=why):
        merkle.merkle_root_from_path(sm3, b"", index, count, bytes(size))
