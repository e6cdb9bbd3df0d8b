"""The verification kernel against libcrypto: one disagreement fails.

The long run: ``FENGSHOU_DIFFERENTIAL=1000000 python -m pytest tests/codecs/test_verify.py``.
"""

import os
import sys
import threading
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from random import Random

import gmssl.sm2
import pytest

from fengshou.codecs import BadSignature, PrivateKey, PublicKey, _verify, keep_tables, sm3, tables_kept, verify_batch

P = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF00000000FFFFFFFFFFFFFFFF
N = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFF7203DF6B21C6052B53BBF40939D54123
G = (
    0x32C4AE2C1F1981195F9904466A39C9948FE30BBFF2660BE1715A4589334C74C7,
    0xBC3736A2F4F6779C59BDCEE36B692153D0A9877CC62A474002DF32E52139F0A0,
)
Point = tuple[int, int] | None
Case = tuple[PublicKey, bytes, bytes]

HOW_MANY = int(os.environ.get("FENGSHOU_DIFFERENTIAL", "3000"))


def add(a: Point, b: Point) -> Point:
    """The group law by the book."""
    if a is None or b is None:
        return b if a is None else a
    if a[0] == b[0]:
        if (a[1] + b[1]) % P == 0:
            return None
        slope = (3 * a[0] * a[0] - 3) * pow(2 * a[1], -1, P) % P
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P) % P
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def multiply(scalar: int, point: Point) -> Point:
    result: Point = None
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def octets(number: int) -> bytes:
    return number.to_bytes(32, "big")


def key_of(scalar: int) -> PublicKey:
    return PrivateKey.from_scalar(bytearray(octets(scalar))).public_key


def fitting(scalar: int, r: int, s: int) -> Case | None:
    """A case whose r and s are given and whose digest makes it genuine; None when the sum is infinity."""
    total = multiply((s + (r + s) * scalar) % N, G)
    if total is None:
        return None
    return key_of(scalar), octets((r - total[0]) % N), octets(r) + octets(s)


def libcrypto(case: Case) -> bool:
    key, digest, signature = case
    try:
        key.verify(digest, signature)
    except BadSignature:
        return False
    return True


@pytest.fixture(params=_verify.paths())
def path(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each way to compute that this processor has, one after the other."""
    before = _verify.path_taken()
    _verify.take_path(request.param)
    yield request.param
    _verify.take_path(before)


def test_the_compiled_kernel_is_loaded() -> None:
    assert Path(_verify.__file__).suffix == ".so"


def test_a_path_of_another_processor_is_refused() -> None:
    with pytest.raises(ValueError, match="no path 'abacus'"):
        _verify.take_path("abacus")


# Digits at the edges of windows of 6 and 10 bits, carries that run through all of them, and the ends of the range.
EDGES = (
    1, 2, 31, 32, 33, 63, 64, 65, 511, 512, 513, 1023, 1024, 1025, 2**31, 2**32, 2**63, 2**64 - 1, 2**64, 2**128 - 1,
    2**252 - 1, 2**252, 2**255, N // 2, N // 2 + 1, N - 1025, N - 512, N - 65, N - 33, N - 32, N - 2, N - 1,
    int("20" * 32, 16), int("1F" * 32, 16), int("821" * 21, 16), int("7DF" * 21, 16),
)  # fmt: skip
# Keys that are small multiples of G: sums then meet equal and opposite points on their way.
SMALL = (1, 2, 3, 4, 5, 7, 8, 31, 32, 64, 1024, N - 2, N - 3, N // 2, (N + 1) // 2)


@cache
def at_every_edge() -> tuple[list[Case], list[Case]]:
    """[s]G + [t]P with s and t at the edges, for keys whose multiples collide with those of G; and sums that vanish."""
    cases, wrong = [], []
    for scalar in SMALL:
        for s in EDGES:
            for t in EDGES[::9]:
                r = (t - s) % N
                if r == 0:
                    continue
                case = fitting(scalar, r, s)
                (cases if case else wrong).append(case or (key_of(scalar), octets(r), octets(r) + octets(s)))
    return cases, wrong


@pytest.mark.usefixtures("path")
def test_genuine_at_every_edge() -> None:
    cases, wrong = at_every_edge()
    assert all(verify_batch(cases))
    assert not any(verify_batch(wrong))
    assert len(cases) > 2000
    sample = cases[::97] + wrong
    assert [libcrypto(case) for case in sample] == verify_batch(sample)


@pytest.mark.usefixtures("path")
def test_sums_that_vanish_are_refused() -> None:
    """s + t d = 0 modulo n: the sum is infinity, whatever the digest says."""
    cases = []
    for scalar in (1, 2, 3, N - 2, 12345):
        for t in (1, 2, 77, N - 1, N // 3):
            s = -t * scalar % N
            r = (t - s) % N
            if r and s:
                assert fitting(scalar, r, s) is None
                cases += [(key_of(scalar), octets(e), octets(r) + octets(s)) for e in (0, r, r + 1)]
    assert len(cases) > 50
    assert not any(verify_batch(cases))
    assert not any(map(libcrypto, cases))


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(
    ("r", "s", "why"),
    [
        (0, 5, "r = 0"),
        (5, 0, "s = 0"),
        (0, 0, "both 0"),
        (N, 5, "r = n"),
        (5, N, "s = n"),
        (N + 1, 5, "r above n"),
        (5, 2**256 - 1, "s at the end"),
        (2**256 - 1, 2**256 - 1, "both at the end"),
        (5, N - 5, "r + s = n"),
        (N - 1, 1, "r + s = n, at the ends"),
    ],
)
def test_range(r: int, s: int, why: str) -> None:
    for digest in (bytes(32), octets(r % N), b"\xff" * 32):
        case = (key_of(7), digest, octets(r) + octets(s))
        assert verify_batch([case]) == [libcrypto(case)] == [False], why


@pytest.mark.usefixtures("path")
def test_digests_beyond_n_count_modulo_n() -> None:
    """e is taken modulo n by the equation: a digest and the same plus n are one."""
    scalar, k, e = 9, 0xABCDEF, 123_456_789
    total = multiply(k, G)
    assert total is not None
    r = (e + total[0]) % N
    s = (k - r * scalar) * pow(1 + scalar, -1, N) % N
    signature = octets(r) + octets(s)
    cases = [(key_of(scalar), octets(digest), signature) for digest in (e, e + N, e + 1, e + N + 1)]
    assert verify_batch(cases) == [libcrypto(case) for case in cases] == [True, True, False, False]


BATCHES = (1, 2, 3, 5, 8, 9, 40, 63, 64, 65, 200)


def mixture(random: Random) -> Iterator[Case]:
    """Genuine, mutated, swapped and invented signatures of some keys."""
    keys = [PrivateKey.generate() for _ in range(5)]
    while True:
        private = random.choice(keys)
        digest = sm3(random.randbytes(20))
        signature = private.sign(digest)
        public = private.public_key
        yield public, digest, signature
        bit = random.randrange(512)
        yield public, digest, (int.from_bytes(signature, "big") ^ (1 << bit)).to_bytes(64, "big")
        bit = random.randrange(256)
        yield public, octets(int.from_bytes(digest, "big") ^ (1 << bit)), signature
        yield public, digest, signature[32:] + signature[:32]
        yield random.choice(keys).public_key, digest, signature
        r, s = random.choice(EDGES), random.randrange(1, N)
        yield public, digest, octets(r) + octets(s)
        yield public, digest, random.randbytes(64)
        forged = fitting(random.choice(SMALL), random.randrange(1, N), random.choice(EDGES))
        if forged:
            yield forged


@pytest.mark.parametrize("batch", BATCHES)
def test_agrees_with_libcrypto(batch: int) -> None:
    """Batches below and above each way of summing, and across the end of one; every path."""
    cases = mixture(Random(batch))  # the same cases again, the same keys never
    before = _verify.path_taken()
    try:
        for _ in range(max(1, HOW_MANY // len(BATCHES) // batch)):
            some = list(islice(cases, batch))
            expected = [libcrypto(case) for case in some]
            for path in _verify.paths():
                _verify.take_path(path)
                assert (path, verify_batch(some)) == (path, expected)
    finally:
        _verify.take_path(before)


def test_agrees_with_gmssl() -> None:
    for case in islice(mixture(Random(1)), 16):
        key, digest, signature = case
        oracle = gmssl.sm2.CryptSM2(private_key="", public_key="")
        oracle.public_key = key.point[1:].hex()
        assert verify_batch([case]) == [bool(oracle.verify(signature.hex(), digest))]


def test_tables_are_bounded_and_made_again() -> None:
    keys = [PrivateKey.generate() for _ in range(6)]
    digest = sm3(b"one and the same")
    cases = [(key.public_key, digest, key.sign(digest)) for key in keys]
    try:
        keep_tables(3)
        for _ in range(3):
            assert all(verify_batch(cases))
            assert tables_kept() == 3
        keep_tables(1)
        assert tables_kept() == 1
        assert all(verify_batch(cases * 20))
        with pytest.raises(ValueError, match="at least one"):
            keep_tables(0)
    finally:
        keep_tables(_verify.TABLES_MAX_DEFAULT)


def test_tables_of_more_keys_than_a_chunk_of_memory_holds() -> None:
    """23 tables to a chunk: chunks come, are left in any order, and are filled again."""
    digest = sm3(b"one and the same")
    keys = [PrivateKey.generate() for _ in range(60)]
    cases = [(key.public_key, digest, key.sign(digest)) for key in keys]
    try:
        for most in (60, 30, 1, 50):
            keep_tables(most)
            assert all(verify_batch(cases))
            assert all(verify_batch(cases[::-3]))
            assert tables_kept() == most
    finally:
        keep_tables(_verify.TABLES_MAX_DEFAULT)


@pytest.mark.usefixtures("path")
def test_many_threads_at_once() -> None:
    """Few tables for all: each thread evicts what another is computing with, and none is taken away from under it."""
    cases = list(islice(mixture(Random(5)), 96))
    expected = {case: libcrypto(case) for case in cases}
    disagreements = []
    start = threading.Barrier(4)

    def work(random: Random) -> None:
        start.wait()
        for _ in range(6):
            some = random.sample(cases, random.choice((2, 20, 64, 96)))
            if verify_batch(some) != [expected[case] for case in some]:
                disagreements.append(some)

    keep_tables(2)
    try:
        threads = [threading.Thread(target=work, args=(Random(seed),)) for seed in range(start.parties)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert tables_kept() == 2
    finally:
        keep_tables(_verify.TABLES_MAX_DEFAULT)
    assert not disagreements


def test_other_threads_run_meanwhile() -> None:
    """The GIL is free while signatures are judged. No switch is forced here, so nothing else lets the thread in."""
    case = next(mixture(Random(6)))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        for size in (1000, 2000, 4000, 8000, 16000):  # longer, should the machine be too busy to start it in time
            batch, ready, let_in = [case] * size, threading.Lock(), []
            ready.acquire()

            def other(ready: threading.Lock = ready, let_in: list[bool] = let_in) -> None:
                with ready:
                    let_in.append(True)

            thread = threading.Thread(target=other)
            thread.start()
            ready.release()
            assert all(verify_batch(batch))
            came = bool(let_in)
            thread.join()
            if came:
                return
    finally:
        sys.setswitchinterval(interval)
    pytest.fail("no other thread ran")
