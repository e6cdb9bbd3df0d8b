"""The keys that a site shares with its ISO 8583 back ends: their first epochs, and what the pipeline needs of them."""

from collections.abc import Mapping

from fengshou.hsm.custody import Custody, Kind, PinFormat, PinZone
from fengshou.routing.zone_keys import CARD_PIN_VERIFY, HOST_ENVELOPE, HOST_MASTER, mac_label, master_label, pin_label
from fengshou.switch.config import Config, Iso8583Destination


def found_zone(custody: Custody, host: Custody, name: str) -> None:
    """Keys between a new site and a new embedded back end: both are here, so the master key travels in an envelope.

    A bank's own host gets it by components, see OPERATIONS. Raises CustodyError.
    """
    custody.create(master_label(name), Kind.TRANSPORT)
    custody.create(pin_label(name), Kind.PIN)
    custody.create(mac_label(name), Kind.MAC)
    host.create(HOST_ENVELOPE, Kind.ENVELOPE)
    host.create(CARD_PIN_VERIFY, Kind.PIN_VERIFY)
    envelope = custody.export_envelope(master_label(name), host.public_key(HOST_ENVELOPE))
    host.import_key(HOST_MASTER, Kind.TRANSPORT, envelope, HOST_ENVELOPE)


def zone_labels(config: Config) -> Mapping[str, Kind]:
    """The labels of all keys that are brought to back ends."""
    return {
        label: kind
        for name, row in config.destination.items()
        if isinstance(row, Iso8583Destination) and row.zone_keys
        for label, kind in ((pin_label(name), Kind.PIN), (mac_label(name), Kind.MAC))
    }


def pin_zones(config: Config) -> Mapping[str, PinZone]:
    """The PIN key of each back end that has one, and the layout of the blocks that it reads."""
    return {
        name: PinZone(pin_label(name), PinFormat(row.pin_format))
        for name, row in config.destination.items()
        if isinstance(row, Iso8583Destination) and row.zone_keys
    }
