"""Which terminals have followed a rotation, and which are behind.

Working keys are what each said at its last sign-in, as the journal has it; certificates are those of the registry, and
who signed them stands in the authority's index, where that is on this machine.
"""

from collections.abc import Mapping

from fengshou.hsm import x509
from fengshou.hsm.custody import TERMINAL_MASTER, TERMINAL_WORKING, Custody
from fengshou.hsm.pki import Authority, PkiError
from fengshou.switch.certificate_files import read_certificate, read_certificates
from fengshou.switch.config import Loaded
from fengshou.switch.journal.store import Journal
from fengshou.switch.terminal_keys import Held, TerminalKeys, holders
from fengshou.terminals.binding import Status
from fengshou.terminals.registry import Registry

AUTHORITY = "ca"
# Rotations that terminals follow, and the place of the epoch in ``Held``.
PLACES: Mapping[str, int] = {TERMINAL_WORKING: 0, TERMINAL_MASTER: 1}
KINDS: Mapping[str, str] = {"terminal-working": TERMINAL_WORKING, "terminal-master": TERMINAL_MASTER}


def held_by_terminals(loaded: Loaded) -> dict[str, Held]:
    """The epochs of each terminal that uses working keys; nothing when no switch ever ran here."""
    folder = loaded.path(loaded.config.files.journal)
    if not folder.exists():
        return {}
    journal = Journal(folder, read_only=True)
    try:
        return holders(journal)
    finally:
        journal.close()


def behind(loaded: Loaded, custody: Custody, label: str) -> dict[str, str] | None:
    """What those have who do not have the current epoch of a key, by terminal or file; None: none follows it."""
    if label == AUTHORITY:
        return _of_old_authorities(loaded, custody)
    if label not in PLACES:
        return None
    current, place = TerminalKeys(custody).current, PLACES[label]
    if current is None:
        return {}
    held = held_by_terminals(loaded)
    return {name: f"epoch {keys[place]}" for name, keys in held.items() if keys[place] != current[place]}


def _of_old_authorities(loaded: Loaded, custody: Custody) -> dict[str, str]:
    newest = read_certificates(loaded.path(loaded.config.listen.authorities))[1].subject.common_name
    try:
        entries = Authority(loaded.path("pki")).entries()
    except PkiError:  # it is on another machine, whose `pki list` says it
        return {}
    issuers = {entry.issued.serial: x509.parse_certificate(entry.issued.certificate).issuer for entry in entries}
    with Registry.open(loaded.path(loaded.config.files.registry), custody) as registry:
        rows = registry.snapshot().terminals.values()
    found = {
        row.facts.terminal: issuers.get(row.certificate.rjust(32, "0"), "unknown")
        for row in rows
        if row.status is not Status.RETIRED and row.fingerprint
    }
    # Whoever serves a channel is met by the next connection only, long after the authority has ended.
    for file in (loaded.path(loaded.config.listen.certificate), *loaded.folder.glob("hosts/*/host.crt")):
        found[str(file.relative_to(loaded.folder))] = read_certificate(file).issuer
    return {name: issuer for name, issuer in found.items() if issuer != newest}
