"""The product dictionary: what may be bought from a farmer, in which varieties and grades, and at what price.

Product, variety and grade travel as small numbers; this file gives them their meaning. A bank replaces it by its own
file of the same shape and counts ``version`` up, so that a terminal can see that its copy is old.
"""

from pathlib import Path

import msgspec

from fengshou.protocol import elements as de
from fengshou.protocol import limits
from fengshou.protocol.elements import BASE_ELEMENTS

PRODUCTS_FILE = Path(__file__).with_name("products.json")

_MAXIMUM = {element.key: element.maximum for element in BASE_ELEMENTS}


class DictionaryError(ValueError):
    """The file cannot be read or contradicts itself. The text names the file and the place."""


class Variety(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: int
    name: str
    zh: str


class Grade(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A grade of one product and the band, both ends included, in which its price may lie (fen per kg)."""

    grade: int
    name: str
    zh: str
    price_low_fen: int
    price_high_fen: int


class Product(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: int
    name: str
    zh: str
    varieties: tuple[Variety, ...]
    grades: tuple[Grade, ...]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    about: str
    products: tuple[Product, ...]


class ProductDictionary:
    """Products by number, with their varieties and grades."""

    def __init__(self, version: int, products: tuple[Product, ...]) -> None:
        """Raises DictionaryError: a number taken twice or outside its element, a price band that is empty."""
        self.version = version
        _numbered("version", [version], de.DICTIONARY)
        _numbered("products", [product.id for product in products], de.PRODUCT)
        for product in products:
            _numbered(f"varieties of {product.name}", [variety.id for variety in product.varieties], de.VARIETY)
            _numbered(f"grades of {product.name}", [grade.grade for grade in product.grades], de.GRADE)
            for grade in product.grades:
                if not 0 < grade.price_low_fen <= grade.price_high_fen <= limits.UNIT_PRICE_FEN_MAX:
                    raise DictionaryError(f"{product.name}, grade {grade.grade}: the price band is empty or too high")
        self.products = {product.id: product for product in products}
        self._varieties = {(product.id, variety.id) for product in products for variety in product.varieties}
        self._grades = {(product.id, grade.grade): grade for product in products for grade in product.grades}
        # Of everything that can be bought, as product, variety and grade, the prices that are in its band.
        self.prices = {
            (product.id, variety.id, grade.grade): range(grade.price_low_fen, grade.price_high_fen + 1)
            for product in products
            for variety in product.varieties
            for grade in product.grades
        }

    def has_product(self, product: int) -> bool:
        return product in self.products

    def has_variety(self, product: int, variety: int) -> bool:
        return (product, variety) in self._varieties

    def grade(self, product: int, grade: int) -> Grade | None:
        """The grade with its price band, None when the product has no such grade."""
        return self._grades.get((product, grade))


def _numbered(what: str, numbers: list[int], key: int) -> None:
    if len(set(numbers)) != len(numbers):
        raise DictionaryError(f"{what}: a number is taken twice")
    if any(not 0 < number <= _MAXIMUM[key] for number in numbers):
        raise DictionaryError(f"{what}: a number is not 1 .. {_MAXIMUM[key]}")


def load(path: Path = PRODUCTS_FILE) -> ProductDictionary:
    """The dictionary in a file. Raises DictionaryError."""
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
        return ProductDictionary(file.version, file.products)
    except OSError as error:
        raise DictionaryError(f"{path}: {error.strerror}") from None
    except (msgspec.DecodeError, DictionaryError) as error:
        raise DictionaryError(f"{path}: {error}") from None
