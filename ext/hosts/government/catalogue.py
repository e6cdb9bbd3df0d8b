"""The catalogue of government services: what can be asked or declared, and what each needs. Data, read from JSON."""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path

import msgspec

# DE 62.1 item: ten bits.
ITEM_ID_MAX = 1023
FIELDS = ("subject", "period")


class CatalogueError(ValueError):
    """The data file contradicts itself; the text names the item."""


class Kind(Enum):
    QUERY = "QUERY"  # reads a record
    DECLARE = "DECLARE"  # opens a case


class Domain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A field of administration. ``person``: its subjects are residents; ``record``: the form of its records."""

    id: int
    zh: str
    en: str
    person: bool
    record: str


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A service. ``idempotent``: asked again by anyone for the same subject and period, it has no second effect."""

    id: int
    domain: int
    kind: Kind
    zh: str
    en: str
    fields: tuple[str, ...]
    timeout_ms: int
    idempotent: bool


class Catalogue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    about: str
    domains: tuple[Domain, ...]
    items: tuple[Item, ...]

    def domain_by_id(self) -> Mapping[int, Domain]:
        return {domain.id: domain for domain in self.domains}

    def item_by_id(self) -> Mapping[int, Item]:
        return {item.id: item for item in self.items}


def load(path: Path) -> Catalogue:
    """Read and check a catalogue. Raises CatalogueError, msgspec.ValidationError or OSError."""
    catalogue = msgspec.json.decode(path.read_bytes(), type=Catalogue)
    domains = catalogue.domain_by_id()
    seen: set[int] = set()
    for item in catalogue.items:
        if not 1 <= item.id <= ITEM_ID_MAX:
            raise CatalogueError(f"item {item.id}: the id is not 1 .. {ITEM_ID_MAX}")
        if item.id in seen:
            raise CatalogueError(f"item {item.id} is listed twice")
        if item.domain not in domains:
            raise CatalogueError(f"item {item.id}: no domain {item.domain}")
        if unknown := set(item.fields) - set(FIELDS):
            raise CatalogueError(f"item {item.id}: no field {', '.join(sorted(unknown))}")
        if item.kind is Kind.QUERY and not item.idempotent:
            raise CatalogueError(f"item {item.id}: a query changes nothing, so it is idempotent")
        seen.add(item.id)
    return catalogue
