"""Virtual cards for the drill."""

from tests.devices import card_readers, slots  # noqa: F401  # fixtures
