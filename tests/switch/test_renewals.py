"""Certificates of terminals end, begin later, are renewed through the switch, and nobody gets one who may not."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import trio
from click.testing import CliRunner

from fengshou.codecs import PrivateKey
from fengshou.hsm import pki_renewal
from fengshou.hsm.channel import Fault
from fengshou.hsm.files import write_public
from fengshou.hsm.pem import CERTIFICATE, to_pem
from fengshou.hsm.x509 import TERMINAL, Certificate, Subject
from fengshou.protocol import elements as de
from fengshou.protocol.message import COMMAND_CERTIFICATE, Value
from fengshou.switch.certificate_files import read_certificate
from fengshou.switch.cli.main import main
from fengshou.terminals.binding import TerminalRow
from fengshou.terminals.client import Unreachable
from fengshou.terminals.identity import Counters
from tests.switch.line import Line, code_of
from tests.switch.town import TERMINALS, Town, purchase

FreshTown = Callable[..., AbstractContextManager[Town]]

NOW = datetime.now(UTC)


def certify(town: Town, terminal: str, made: datetime, days: int | None = None) -> Certificate:
    """Give a terminal a certificate for the key that it has, as if it were made at that time."""
    home = town.home(terminal)
    key, serial = home.signer().public_key, home.identity.serial
    certificate = town.authority.issue(TERMINAL, Subject(terminal, serial=serial), key, made, days)
    write_public(home.folder / "terminal.crt", town.authority.chain(certificate))
    with town.registry() as registry:
        registry.enrol(terminal, f"{certificate.serial:032x}", certificate.fingerprint)
    return certificate


def until_known(town: Town, terminal: str) -> None:
    """Until the switch has read the registry again: a sign-in with the certificate of now is accepted."""

    town.until(lambda _: sign_in_code(town, terminal) == "00")


def sign_in_code(town: Town, terminal: str) -> str:
    with Line(town, terminal) as line:
        return code_of(line.ask("sign-in", line.sign_in_values(0)))


@contextmanager
def authority_watching(town: Town) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-m", "fengshou.switch", "pki", "renew", "--watch", "--pki", str(town.folder / "pki")],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"ready ")
        yield
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0


def row_of(town: Town, terminal: str) -> TerminalRow:
    with town.registry() as registry:
        return registry.snapshot().terminals[terminal]


async def trade_until_renewed(town: Town, terminal: str, before: Certificate) -> Counter[str]:
    """The codes of all that was traded meanwhile."""
    codes: Counter[str] = Counter()
    with closing(town.home(terminal).counters()) as counters, trio.fail_after(60):
        async with town.client(terminal, counters, renewal_s=0.3) as client:
            while (row := row_of(town, terminal)).fingerprint == before.fingerprint or row.renewed:
                codes[(await client.trade("farm-purchase", purchase(100))).code] += 1
                await trio.sleep(0.05)
            codes[(await client.trade("farm-purchase", purchase(100))).code] += 1
    return codes


def test_a_certificate_is_renewed_while_its_terminal_trades(fresh_town: FreshTown) -> None:
    terminal = TERMINALS[0]
    with fresh_town() as town, authority_watching(town):
        before = certify(town, terminal, NOW - timedelta(days=400))
        until_known(town, terminal)
        key = town.folder / "old.key"
        key.write_bytes((town.home(terminal).folder / "terminal.key").read_bytes())
        key.chmod(0o600)
        codes = trio.run(trade_until_renewed, town, terminal, before)
        assert set(codes) == {"00"}
        home = town.home(terminal)
        after = read_certificate(home.folder / "terminal.crt")
        assert after.public_key == home.signer().public_key != before.public_key
        assert row_of(town, terminal).fingerprint == after.fingerprint
        assert not list((town.folder / "renewals").iterdir()), "nothing waits any more"
        # The certificate before is refused, although it is in date and nobody has revoked it.
        key.replace(home.folder / "terminal.key")
        write_public(home.folder / "terminal.crt", town.authority.chain(before))
        town.until(lambda _: sign_in_code(town, terminal) == "63")
        town.settle()
        town.require_truth()
        proved = json.loads(CliRunner().invoke(main, ["audit", "verify", "--json", "--home", str(town.folder)]).stdout)
        assert (proved["verified"], proved["open_acts"]) == (True, [])


def wish_of(old: Certificate, holder: PrivateKey, new: PrivateKey) -> dict[int, Value]:
    wish = pki_renewal.make_request(old, holder, new)
    return {de.NEW_KEY: wish.key, de.KEY_PROOF: wish.proof, de.KEY_CONSENT: wish.consent}


def test_the_switch_passes_on_what_both_keys_have_signed_and_believes_what_its_authority_has(town: Town) -> None:
    terminal = TERMINALS[5]
    old = certify(town, terminal, NOW - timedelta(days=400))
    until_known(town, terminal)
    folder, holder, new, other = town.folder / "renewals", town.home(terminal).signer(), *map(generate, range(2))
    with Line(town, terminal).sign_in() as line:
        assert line.ask("echo", {}).command == COMMAND_CERTIFICATE
        wish = wish_of(old, holder, new)
        for wrong in (
            {**wish, de.KEY_CONSENT: wish[de.KEY_PROOF]},
            {**wish, de.KEY_PROOF: wish[de.KEY_CONSENT]},
            {**wish, de.NEW_KEY: other.public_key.point[1:]},
            wish_of(old, holder, holder),
        ):
            assert code_of(line.ask("renewal", wrong)) == "63"
        assert not (folder / f"{terminal}.json").exists()
        assert code_of(line.ask("renewal", wish)) == "09"
        request = pki_renewal.load(folder / f"{terminal}.json")
        assert (request.terminal, request.fingerprint) == (terminal, old.fingerprint)
        # What no authority of ours has signed for that key, or for that terminal, is not believed.
        for name, serial, key in ((terminal, "SN00000006", other), (TERMINALS[6], "SN00000007", new)):
            certificate = town.authority.issue(TERMINAL, Subject(name, serial=serial), key.public_key, NOW)
            answer = folder / f"{terminal}.crt"
            write_public(answer, to_pem(CERTIFICATE, certificate.der))
            town.until(lambda _, answer=answer: not answer.exists())
            assert row_of(town, terminal).renewed == b""
        assert code_of(line.ask("renewal", wish)) == "09"
        done = CliRunner().invoke(main, ["pki", "renew", "--days", "3", "--pki", str(town.folder / "pki"), "--json"])
        assert list(json.loads(done.stdout)["issued"]) == [terminal]
        answers = []
        town.until(lambda _: code_of(answers.append(line.ask("renewal", wish)) or answers[-1]) == "00")
        answered = answers[-1]
        issued = pki_renewal.x509.parse_certificate(bytes(answered.values[de.CERTIFICATE]))
        assert issued.public_key == new.public_key
        assert issued.not_after - NOW < timedelta(days=4), "short-lived, as was said"
        assert code_of(line.ask("farm-purchase", {**purchase(100), de.STAN: 999})) == "00", "the old one is good still"
    certify(town, terminal, NOW)


def generate(_: int) -> PrivateKey:
    return PrivateKey.generate()


def test_the_authority_believes_nobody_but_the_key_of_the_certificate(town: Town) -> None:
    """Whoever writes into the folder, the switch too, gets nothing for a key of his own."""
    terminal = TERMINALS[7]
    old = certify(town, terminal, NOW - timedelta(days=400))
    holder, thief = town.home(terminal).signer(), PrivateKey.generate()
    good = pki_renewal.make_request(old, holder, PrivateKey.generate())
    forged = pki_renewal.make_request(old, thief, thief)
    stranger = msgspec.structs.replace(good, terminal=TERMINALS[8])
    ended = town.authority.issue(
        TERMINAL, Subject(terminal, serial="SN00000008"), holder.public_key, NOW - timedelta(days=800)
    )
    for request, reason in (
        (forged, "the keys have not signed"),
        (msgspec.structs.replace(good, key=thief.public_key.point[1:]), "the keys have not signed"),
        (stranger, "was not issued here"),
        (msgspec.structs.replace(good, certificate="00" * 16), "was not issued here"),
        (pki_renewal.make_request(ended, holder, thief), "not in date"),
    ):
        with pytest.raises(pki_renewal.RequestRefused, match=reason):
            pki_renewal.renew(town.authority, request, NOW)
    made = pki_renewal.renew(town.authority, good, NOW)
    assert pki_renewal.renew(town.authority, good, NOW) == made, "the same wish gets the same certificate"
    town.authority.revoke(old.serial, "key_compromise", NOW)
    with pytest.raises(pki_renewal.RequestRefused, match="is revoked"):
        pki_renewal.renew(town.authority, pki_renewal.make_request(old, holder, PrivateKey.generate()), NOW)
    certify(town, terminal, NOW)


@pytest.mark.parametrize(
    ("made", "fault", "alert"),
    [
        (NOW - timedelta(days=800), Fault.EXPIRED, "certificate expired"),
        (NOW + timedelta(days=30), Fault.NOT_YET_VALID, "bad certificate"),
    ],
    ids=["expired", "not yet valid"],
)
def test_a_certificate_out_of_date_is_refused_by_name(town: Town, made: datetime, fault: Fault, alert: str) -> None:
    terminal = TERMINALS[9]
    counted = town.status()["handshakes"]["refused"].get(fault.value, 0)
    certify(town, terminal, made)
    try:
        with pytest.raises(Unreachable, match=f"the peer refused us.*{alert}"):
            trio.run(sign_in, town, terminal)
        town.until(lambda status: status["handshakes"]["refused"].get(fault.value, 0) == counted + 1)
        assert f"calls itself {terminal.lower()}: {fault.value}" in town.log("switch")
    finally:
        certify(town, terminal, NOW)


async def sign_in(town: Town, terminal: str) -> None:
    async with town.client(terminal, Counters()) as client:
        await client.sign_in()
