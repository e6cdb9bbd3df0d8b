"""Terminals of a site: their application, certificates, rows and homes."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from fengshou.codecs import PrivateKey
from fengshou.hsm import manifest
from fengshou.hsm.custody import SWITCH_SIGN
from fengshou.hsm.pki import AUTHORITIES, Authority
from fengshou.hsm.software import SoftwareCustody
from fengshou.hsm.x509 import TERMINAL, CustodySigner, Subject
from fengshou.switch.config import Loaded
from fengshou.switch.custodies import custody_of
from fengshou.switch.site import LOCALHOST, PUBLISHER_SIGN
from fengshou.terminals.binding import AppRow
from fengshou.terminals.home import Configuration, SwitchAddress, make_home
from fengshou.terminals.identity import Identity
from fengshou.terminals.registry import NewTerminal, Registry


def publish_app(loaded: Loaded, registry: Registry, app: str, version: str, services: Iterable[str]) -> AppRow:
    """Sign the manifest of an application with the site's publisher key, keep it and add it to the registry."""
    publisher = CustodySigner(SoftwareCustody(loaded.path("publisher/keys")), PUBLISHER_SIGN)
    signed = manifest.make(
        manifest.Body(
            app=app,
            version=version,
            vendor="Fengshou",
            services=tuple(sorted(services)),
            issued_at=datetime.now(UTC).replace(microsecond=0),
        ),
        publisher,
    )
    signed.save(loaded.path(f"publisher/{app}-{version}.json"))
    return registry.add_app(signed, publisher.public_key)


def enrol(loaded: Loaded, registry: Registry, terminals: Sequence[NewTerminal], app: AppRow) -> list[Path]:
    """Give registered terminals a key, a certificate and a home each; returns the homes.

    For terminals whose key is made here. One with a secure medium makes its own key and sends a request to be signed.
    """
    authority = Authority(loaded.path("pki"))
    custody = custody_of(loaded)
    switch = SwitchAddress(
        host=LOCALHOST,
        port=loaded.config.listen.port,
        name=LOCALHOST,
        signing_key=custody.public_key(SWITCH_SIGN).point.hex(),
        profile=loaded.config.listen.profile,
    )
    keys = [PrivateKey.generate() for _ in terminals]
    subjects = [Subject(new.facts.terminal, serial=new.facts.serial) for new in terminals]
    certificates = authority.issue_many(
        TERMINAL, [(subject, key.public_key) for subject, key in zip(subjects, keys, strict=True)], datetime.now(UTC)
    )
    authorities = loaded.path("pki", AUTHORITIES).read_bytes()
    homes = []
    for new, key, certificate in zip(terminals, keys, certificates, strict=True):
        facts = new.facts
        registry.enrol(facts.terminal, f"{certificate.serial:x}", certificate.fingerprint)
        identity = Identity(
            terminal=facts.terminal,
            merchant=facts.merchant,
            acquirer=facts.acquirer,
            serial=facts.serial,
            credit_code=facts.credit_code,
            settlement_account=facts.settlement_account,
            app=app.app,
            app_version=app.version,
            app_manifest=app.digest.hex(),
        )
        configuration = Configuration(
            switch=switch, identity=identity, services=tuple(entry.module for entry in loaded.config.service)
        )
        homes.append(
            make_home(
                loaded.path("terminals", facts.terminal), configuration, authority.chain(certificate), authorities, key
            ).folder
        )
    return homes
