"""``fengshou pki``: make the certification authority, issue and revoke certificates, look at them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fengshou.codecs import PrivateKey
from fengshou.hsm import x509
from fengshou.hsm.custody import SWITCH_TLS
from fengshou.hsm.files import write_public
from fengshou.hsm.pem import CERTIFICATE, REQUEST, to_pem
from fengshou.hsm.pki import AUTHORITIES, CRL_DAYS, Authority, Entry, PkiError
from fengshou.hsm.software import load_private_key, provision, save_private_key
from fengshou.hsm.x509 import LEAF_PROFILES, CustodySigner, Signer, Subject
from fengshou.switch import followers
from fengshou.switch.certificate_files import blocks, facts_of, serial_of, single, stem
from fengshou.switch.cli.common import explained, json_option, print_json
from fengshou.switch.config import load
from fengshou.switch.custodies import custody_of
from fengshou.switch.office import acting

folder_option = click.option(
    "--pki",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("pki"),
    show_default=True,
    envvar="FENGSHOU_PKI",
    show_envvar=True,
    help="The authority's folder.",
)
_profile = click.Choice(sorted(LEAF_PROFILES))
_serial = click.option("--serial", default="", help="Serial number of the device; a terminal must have one.")
_names = click.option(
    "--name",
    "names",
    multiple=True,
    help="DNS name or IP address under which a server is reached; may be given several times.",
)
_file = click.Path(path_type=Path, dir_okay=False)


days_option = click.option("--days", type=click.IntRange(1), help="A shorter life than certificates of this kind have.")


def print_facts(facts: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    table = Table(show_header=False, box=None)
    for name, value in facts.items():
        lines = [str(item) for item in value] if isinstance(value, list) else [str(value)]
        table.add_row(name.replace("_", " "), Text("\n".join(lines), overflow="fold"))
    Console().print(table)


@click.group()
def pki() -> None:
    """Certificates of the network: one root, one issuing authority, and what they issue.

    \b
    A whole network from nothing:
      fengshou pki init pki --organisation "Fengshou Rural Bank"
      fengshou pki keys custody
      fengshou pki issue switch switch-1 --name switch.bank.example --custody custody --out tls
      fengshou pki issue host core-1 --name core.bank.example --out tls
      fengshou pki issue terminal P0000001 --serial SN20260001 --out terminals
    """


@pki.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--organisation", required=True, help="Name of the bank, as it stands in every certificate.")
@json_option
@explained
def init(folder: Path, organisation: str, as_json: bool) -> None:
    """Make root and issuing authority in FOLDER.

    Never overwrites: an authority of the same organisation that is there already is left as it is. Afterwards move
    FOLDER/root off line; only a new issuing authority needs it.

    \b
    Example:
      fengshou pki init pki --organisation "Fengshou Rural Bank"
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with acting(folder.parent, "pki.init", folder.name, organisation=organisation) as act:
        try:
            authority, made = Authority.initialise(folder, organisation, datetime.now(UTC)), True
        except PkiError as refusal:
            try:
                authority, made = Authority(folder), False
            except PkiError:
                raise refusal from None
            if authority.certificate.subject.organisation != organisation:
                raise
        act.note(made=made, serial=f"{authority.certificate.serial:032x}")
    print_facts(
        {
            "authority": str(folder),
            "made": made,
            "trust": str(folder / AUTHORITIES),
            "move_off_line": str(folder / "root"),
            "not_after": authority.certificate.not_after.isoformat(),
        },
        as_json,
    )


@pki.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@json_option
@explained
def keys(folder: Path, as_json: bool) -> None:
    """Make the switch's own keys in FOLDER; keys that are there already stay.

    \b
    Example:
      fengshou pki keys custody
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with acting(folder.parent, "keys.make", folder.name) as act:
        custody = provision(folder)
        act.note(**{info.label: info.check_value.hex() for info in custody.inventory()})
    print_facts({label: kind.name for label, kind in sorted(custody.labels().items())}, as_json)


@pki.command()
@click.argument("profile", type=_profile)
@click.argument("common_name")
@_serial
@_names
@click.option(
    "--custody",
    type=click.Path(path_type=Path, file_okay=False),
    help="Certify the switch's TLS key that is kept in this folder, instead of making a key file.",
)
@days_option
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("."), help="Folder for the files."
)
@folder_option
@json_option
@explained
def issue(
    profile: str,
    common_name: str,
    serial: str,
    names: tuple[str, ...],
    custody: Path | None,
    days: int | None,
    out: Path,
    folder: Path,
    as_json: bool,
) -> None:
    """Issue a certificate together with its key.

    Writes COMMON_NAME.crt (a server's with its issuer) and COMMON_NAME.key (mode 0600). Where the key must never leave
    its device, use `csr` there and `sign-csr` here.

    \b
    Examples:
      fengshou pki issue switch switch-1 --name switch.bank.example --custody custody --out tls
      fengshou pki issue terminal P0000001 --serial SN20260001 --out terminals
      fengshou pki issue host core-1 --name core.bank.example --name 10.0.0.7 --out tls
      fengshou pki issue publisher "Fengshou Apps" --out publisher
    """
    authority = Authority(folder)
    subject = Subject(common_name, serial=serial, names=names)
    subject.check(LEAF_PROFILES[profile])
    if custody is not None and profile != x509.SWITCH.name:
        raise click.UsageError("--custody goes with the profile switch only")
    out.mkdir(parents=True, exist_ok=True)
    key_file = out / f"{stem(common_name)}.key"
    certificate_file = out / f"{stem(common_name)}.crt"
    with acting(folder.parent, "pki.issue", common_name, profile=profile) as act:
        signer: Signer
        if custody is not None:
            signer = CustodySigner(provision(custody), SWITCH_TLS)
        else:
            signer = PrivateKey.generate()
            save_private_key(key_file, signer)
        certificate = authority.issue(LEAF_PROFILES[profile], subject, signer.public_key, datetime.now(UTC), days)
        write_public(certificate_file, authority.chain(certificate))
        act.note(serial=f"{certificate.serial:032x}")
    where = f"{SWITCH_TLS} in {custody}" if custody is not None else str(key_file)
    print_facts({"certificate": str(certificate_file), "key": where, **facts_of(certificate)}, as_json)


@pki.command()
@click.argument("profile", type=_profile)
@click.argument("common_name")
@_serial
@_names
@click.option("--key", type=_file, required=True, help="Private key; made when it is not there.")
@click.option("--out", type=_file, required=True, help="File for the request.")
@json_option
@explained
def csr(
    profile: str, common_name: str, serial: str, names: tuple[str, ...], key: Path, out: Path, as_json: bool
) -> None:
    """Make a certification request where the key is.

    \b
    Example:
      fengshou pki csr terminal P0000001 --serial SN20260001 --key P0000001.key --out P0000001.csr
    """
    subject = Subject(common_name, serial=serial, names=names)
    subject.check(LEAF_PROFILES[profile])
    if not key.exists():
        save_private_key(key, PrivateKey.generate())
    write_public(out, to_pem(REQUEST, x509.request(load_private_key(key), subject)))
    print_facts({"request": str(out), "key": str(key)}, as_json)


@pki.command("sign-csr")
@click.argument("profile", type=_profile)
@click.argument("request_file", type=_file)
@_names
@click.option("--out", type=_file, required=True, help="File for the certificate.")
@folder_option
@json_option
@explained
def sign_csr(profile: str, request_file: Path, names: tuple[str, ...], out: Path, folder: Path, as_json: bool) -> None:
    """Issue a certificate to whoever made REQUEST_FILE.

    Look at the request first with `show`: its subject is what gets certified. --name replaces the names it asks for.

    \b
    Example:
      fengshou pki sign-csr terminal P0000001.csr --out P0000001.crt
    """
    authority = Authority(folder)
    request = single(REQUEST, request_file)
    with acting(folder.parent, "pki.issue", request_file.name, profile=profile) as act:
        certificate = authority.issue_from_request(LEAF_PROFILES[profile], request, datetime.now(UTC), names)
        write_public(out, authority.chain(certificate))
        act.note(subject=certificate.subject.common_name, serial=f"{certificate.serial:032x}")
    print_facts({"certificate": str(out), **facts_of(certificate)}, as_json)


@pki.command()
@click.argument("certificate")
@click.option("--reason", type=click.Choice(x509.REVOCATION_REASONS), default="unspecified", show_default=True)
@folder_option
@json_option
@explained
def revoke(certificate: str, reason: str, folder: Path, as_json: bool) -> None:
    """Revoke CERTIFICATE, given as a file or a serial number, for good, and sign a new revocation list.

    \b
    Examples:
      fengshou pki revoke terminals/P0000001.crt --reason key_compromise
      fengshou pki revoke 8f14e45fceea167a5a36dedd4bea2543
    """
    authority = Authority(folder)
    now, serial = datetime.now(UTC), serial_of(certificate)
    with acting(folder.parent, "pki.revoke", f"{serial:032x}", why=reason) as act:
        issued = authority.revoke(serial, reason, now)
        crl = authority.make_revocation_list(now)
        act.note(subject=issued.common_name)
    print_facts({"revoked": issued.common_name, "serial": issued.serial, "reason": reason, "list": str(crl)}, as_json)


@pki.command()
@click.option("--days", type=click.IntRange(1, 365), default=CRL_DAYS, show_default=True, help="How long it is valid.")
@folder_option
@json_option
@explained
def crl(days: int, folder: Path, as_json: bool) -> None:
    """Sign a new revocation list. Do it daily: peers refuse every certificate once the list has expired.

    \b
    Example:
      fengshou pki crl --days 30
    """
    authority = Authority(folder)
    with acting(folder.parent, "pki.list", folder.name, days=days):
        path = authority.make_revocation_list(datetime.now(UTC), days)
    revoked = sum(entry.revoked is not None for entry in authority.entries())
    print_facts({"list": str(path), "revoked": revoked, "days": days}, as_json)


@pki.command("retire")
@click.option("--force", is_flag=True, help="Although terminals still have certificates of it.")
@click.confirmation_option(prompt="Everything that older issuing authorities have issued is refused then. Go on?")
@folder_option
@json_option
@explained
def retire_issuing(force: bool, folder: Path, as_json: bool) -> None:
    """End the overlap after `fengshou keys rotate ca`: trust only the newest issuing authority.

    Refused while terminals have certificates of an older one; see `fengshou keys progress ca`.

    \b
    Example:
      fengshou pki retire
    """
    authority = Authority(folder)
    if not force:
        _check_followed(folder.parent)
    with acting(folder.parent, "keys.rotate-ca", folder.name) as act:
        retired = authority.retire_issuing(datetime.now(UTC))
        act.note(retired=", ".join(retired))
    print_facts({"retired": retired, "issuing": authority.certificate.subject.common_name}, as_json)


def _check_followed(site: Path) -> None:
    """Raises PkiError. An authority on another machine knows of no terminals."""
    if not (site / "switch.toml").exists():
        return
    loaded = load(site / "switch.toml")
    late = followers.behind(loaded, custody_of(loaded), followers.AUTHORITY)
    if late:
        raise PkiError(f"{len(late)} terminals would be refused, {', '.join(sorted(late)[:5])} …; wait, or --force")


@pki.command("list")
@click.option("--profile", type=_profile, help="Only certificates of this profile.")
@folder_option
@json_option
@explained
def list_(profile: str | None, folder: Path, as_json: bool) -> None:
    """All certificates that were issued, oldest first.

    \b
    Example:
      fengshou pki list --profile terminal
    """
    now = datetime.now(UTC)
    entries = [entry for entry in Authority(folder).entries() if profile in (None, entry.issued.profile)]
    if as_json:
        print_json([_row(entry, now) for entry in entries])
        return
    table = Table("profile", "name", "serial", "until", "state")
    for entry in entries:
        row = _row(entry, now)
        cells = (row["profile"], row["name"], row["serial"], row["not_after"][:10], row["state"])
        table.add_row(*(Text(cell, overflow="fold") for cell in cells))
    Console().print(table)


def _row(entry: Entry, now: datetime) -> dict[str, str]:
    state = "expired" if entry.issued.not_after < now else "valid"
    return {
        "profile": entry.issued.profile,
        "name": entry.issued.common_name,
        "serial": entry.issued.serial,
        "issued": entry.issued.at.isoformat(),
        "not_after": entry.issued.not_after.isoformat(),
        "state": f"revoked: {entry.revoked.reason}" if entry.revoked else state,
    }


@pki.command()
@click.argument("file", type=_file)
@json_option
@explained
def show(file: Path, as_json: bool) -> None:
    """Show the certificates, or the certification request, in FILE.

    \b
    Example:
      fengshou pki show terminals/P0000001.crt
    """
    data = file.read_bytes()
    shown: Sequence[dict[str, Any]]
    if f"-----BEGIN {REQUEST}-----".encode() in data:
        subject, key = x509.verify_request(single(REQUEST, file))
        facts = {
            "request_of": subject.common_name,
            "device_serial": subject.serial,
            "names": list(subject.names),
            "public_key": key.point.hex(),
        }
        shown = [{name: value for name, value in facts.items() if value}]
    else:
        shown = [facts_of(x509.parse_certificate(der)) for der in blocks(CERTIFICATE, file)]
    if as_json:
        print_json(shown)
        return
    for row in shown:
        print_facts(row, as_json=False)
