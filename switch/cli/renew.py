"""``fengshou pki renew``: the authority's part in the renewal of terminals' certificates."""

import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from fengshou.hsm import pki_renewal
from fengshou.hsm.files import write_public
from fengshou.hsm.pem import CERTIFICATE, to_pem
from fengshou.hsm.pki import Authority
from fengshou.hsm.pki_renewal import ANSWER, WISH, RequestRefused
from fengshou.switch.cli.common import explained, json_option
from fengshou.switch.cli.pki import days_option, folder_option, pki, print_facts
from fengshou.switch.office import acting, identified

_LOOKS_EVERY_S = 1.0


@pki.command()
@click.option(
    "--requests",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    show_default="renewals beside the authority's folder",
    help="Folder of the wishes, and of the answers.",
)
@days_option
@click.option("--watch", is_flag=True, help="Go on until SIGTERM, looking every second.")
@folder_option
@json_option
@explained
def renew(requests: Path | None, days: int | None, watch: bool, folder: Path, as_json: bool) -> None:
    """Give terminals the certificates that they ask for through the switch.

    A wish is issued when the key of the terminal's certificate has signed it; what is refused is said and set aside as
    TERMINAL.refused. Where the authority is on another machine, bring the folder there and the answers, *.crt, back.

    \b
    Example:
      fengshou pki renew --requests site/renewals --watch
    """
    where = requests or folder.parent / "renewals"
    who = identified(folder.parent)
    issued: dict[str, str] = {}
    refused: dict[str, str] = {}
    for wish in _wishes(where, watch=watch):
        try:
            with acting(folder.parent, "pki.renew", wish.stem, who) as act:
                certificate = pki_renewal.renew(Authority(folder), pki_renewal.load(wish), datetime.now(UTC), days)
                write_public(wish.with_suffix(ANSWER), to_pem(CERTIFICATE, certificate.der))
                act.note(serial=f"{certificate.serial:032x}")
            issued[wish.stem] = f"{certificate.serial:032x}"
        except RequestRefused as refusal:
            wish.replace(wish.with_suffix(".refused"))
            refused[wish.stem] = str(refusal)
            click.echo(str(refusal), err=True)
    print_facts({"issued": issued, "refused": refused}, as_json)


def _wishes(folder: Path, *, watch: bool) -> Iterator[Path]:
    """Wishes without an answer; with ``watch`` until SIGTERM."""
    going = True

    def stop(*_: object) -> None:
        nonlocal going
        going = False

    if watch:
        signal.signal(signal.SIGTERM, stop)
        click.echo(f"ready {folder}", err=True)
    while going:
        for wish in sorted(folder.glob(f"*{WISH}")):
            if not wish.with_suffix(ANSWER).exists():
                yield wish
        if not watch:
            return
        time.sleep(_LOOKS_EVERY_S)
