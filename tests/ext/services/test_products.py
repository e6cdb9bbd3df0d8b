"""The product dictionary: what a file may not say, and that the shipped one says what the scenes need."""

import json
from pathlib import Path
from typing import Any

import pytest

from fengshou.ext.data.products import PRODUCTS_FILE, DictionaryError, load

Edit = tuple[tuple[str | int, ...], Any]

# fmt: off
BROKEN = (
    # where                                            value    named
    (("version",),                                     0,       "version"),
    (("version",),                                     1_000_000, "version"),
    (("products", 1, "id"),                            1,       "products: a number is taken twice"),
    (("products", 0, "id"),                            4_096,   "products: a number is not 1 .. 4095"),
    (("products", 0, "varieties", 1, "id"),            1,       "varieties of blueberry: a number is taken twice"),
    (("products", 0, "varieties", 1, "id"),            256,     "varieties of blueberry: a number is not 1 .. 255"),
    (("products", 2, "grades", 0, "grade"),            2,       "grades of tea"),
    (("products", 2, "grades", 0, "grade"),            10,      "grades of tea"),
    (("products", 0, "grades", 0, "price_low_fen"),    0,       "blueberry, grade 1"),
    (("products", 0, "grades", 0, "price_low_fen"),    14_001,  "blueberry, grade 1"),
    (("products", 0, "grades", 0, "price_high_fen"),   10**9,   "blueberry, grade 1"),
    (("products", 0, "grades", 0, "price_low_fen"),    36.5,    r"grades\[0\].price_low_fen|grades"),
    (("products", 0, "colour"),                        "blue",  "colour"),
)
# fmt: on


@pytest.mark.parametrize(("where", "value", "named"), BROKEN)
def test_a_broken_file_is_refused(tmp_path: Path, where: tuple[str | int, ...], value: object, named: str) -> None:
    content: Any = json.loads(PRODUCTS_FILE.read_bytes())
    place = content
    for step in where[:-1]:
        place = place[step]
    place[where[-1]] = value
    path = tmp_path / "products.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DictionaryError, match=named) as caught:
        load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"version": 1}'])
def test_what_is_no_dictionary_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "products.json"
    path.write_bytes(content)
    with pytest.raises(DictionaryError, match=r"products\.json"):
        load(path)


def test_the_shipped_dictionary() -> None:
    dictionary = load()
    assert [product.name for product in dictionary.products.values()] == ["blueberry", "cherry", "tea, fresh leaf"]
    for product in dictionary.products.values():
        assert all(variety.zh for variety in product.varieties)
        # A better grade is worth more at both ends of its band.
        bands = [(grade.price_low_fen, grade.price_high_fen) for grade in product.grades]
        assert [grade.grade for grade in product.grades] == [1, 2, 3, 4, 5]
        assert bands == sorted(bands, reverse=True)
