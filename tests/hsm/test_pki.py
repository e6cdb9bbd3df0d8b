"""Certificates, requests and lists: what is issued, what is refused, and what other software says of them."""

import multiprocessing
import random
import shutil
import stat
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from asn1crypto import crl as asn1_crl
from asn1crypto import x509 as asn1_x509
from OpenSSL import crypto

from fengshou.codecs import PrivateKey, PublicKey, sm3
from fengshou.hsm import x509
from fengshou.hsm.custody import CustodyError
from fengshou.hsm.pem import CERTIFICATE, REQUEST, REVOCATION_LIST, from_pem, to_pem
from fengshou.hsm.pki import AUTHORITIES, CRL, ISSUING, Authority, PkiError
from fengshou.hsm.x509 import CertificateError, Subject

from .conftest import Network

NOW = datetime(2026, 6, 1, 8, 30, tzinfo=UTC)
TERMINAL = Subject("P0000001", serial="SN20260001")
SERVER = Subject("switch-1", names=("switch.bank.example", "10.0.0.7", "2001:db8::7"))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.initialise(tmp_path / "pki", "Fengshou Rural Bank", NOW)


def openssl(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)


# --- what is issued ---


@pytest.mark.parametrize(
    ("profile", "subject", "days", "extended"),
    [
        (x509.SWITCH,    SERVER,          365, ("server_auth", "client_auth")),
        (x509.TERMINAL,  TERMINAL,        730, ("client_auth",)),
        (x509.HOST,      SERVER,          365, ("server_auth",)),
        (x509.PUBLISHER, Subject("Apps"), 730, ("code_signing",)),
    ],
    ids=lambda value: value.name if isinstance(value, x509.Profile) else "",
)  # fmt: skip
def test_each_profile(
    authority: Authority, profile: x509.Profile, subject: Subject, days: int, extended: tuple[str, ...]
) -> None:
    key = PrivateKey.generate().public_key
    made = authority.issue(profile, subject, key, NOW)
    assert made.subject == Subject(subject.common_name, "Fengshou Rural Bank", subject.serial, subject.names)
    assert made.extended_usage == extended
    assert made.public_key == key
    assert (made.not_before, made.not_after) == (NOW - timedelta(days=1), NOW + timedelta(days=days))
    assert made.fingerprint == sm3(made.der)
    structure = asn1_x509.Certificate.load(made.der)
    assert structure.key_usage_value.native == {"digital_signature"}
    assert structure.ca is None or structure.ca is False
    assert structure.key_identifier == x509.key_identifier(key)
    assert structure.authority_key_identifier == x509.key_identifier(authority.certificate.public_key)
    assert structure["signature_algorithm"]["algorithm"].dotted == "1.2.156.10197.1.501"
    x509.verify_certificate(made, authority.certificate.public_key)


def test_the_authorities_themselves(authority: Authority) -> None:
    root, issuing = (
        asn1_x509.Certificate.load(der) for der in from_pem(CERTIFICATE, (authority.folder / AUTHORITIES).read_bytes())
    )
    for structure, length, years in ((root, 1, 20), (issuing, 0, 10)):
        assert structure.ca
        assert structure.max_path_length == length
        assert structure.key_usage_value.native == {"key_cert_sign", "crl_sign"}
        assert structure.basic_constraints_value is not None
        assert structure.not_valid_after - NOW == timedelta(days=365 * years)
    parsed_root, parsed_issuing = (x509.parse_certificate(each.dump()) for each in (root, issuing))
    x509.verify_certificate(parsed_root, parsed_root.public_key)
    x509.verify_certificate(parsed_issuing, parsed_root.public_key)
    with pytest.raises(CertificateError, match="does not verify"):
        x509.verify_certificate(parsed_root, parsed_issuing.public_key)


def test_serials_have_128_bits_and_never_repeat(authority: Authority) -> None:
    key = PrivateKey.generate().public_key
    made = authority.issue_many(x509.TERMINAL, [(TERMINAL, key)] * 100, NOW)
    assert len({each.serial for each in made}) == 100
    assert {each.serial.bit_length() for each in made} == {128}


@pytest.mark.parametrize("year", [2049, 2050])
def test_dates_on_both_sides_of_2050(tmp_path: Path, year: int) -> None:
    """RFC 5280 section 4.1.2.5: UTCTime through 2049, then GeneralizedTime."""
    now = datetime(year, 1, 2, tzinfo=UTC)
    made = Authority.initialise(tmp_path / "pki", "Bank", now).issue(
        x509.TERMINAL, TERMINAL, PrivateKey.generate().public_key, now
    )
    validity = asn1_x509.Certificate.load(made.der)["tbs_certificate"]["validity"]
    assert validity["not_before"].name == ("utc_time" if year < 2050 else "general_time")
    assert made.not_before == now - timedelta(days=1)
    assert made.not_after == now + timedelta(days=730)


@pytest.mark.parametrize(
    ("profile", "subject", "reason"),
    [
        (x509.TERMINAL,  Subject("P000001", serial="SN1"),                "8 letters or digits"),
        (x509.TERMINAL,  Subject("P00000001", serial="SN1"),              "8 letters or digits"),
        (x509.TERMINAL,  Subject("P000000é", serial="SN1"),               "8 letters or digits"),
        (x509.TERMINAL,  Subject("P0000001"),                             "serial number of the device"),
        (x509.SWITCH,    Subject("switch-1"),                             "at least one DNS name"),
        (x509.HOST,      Subject("core-1"),                               "at least one DNS name"),
        (x509.SWITCH,    Subject("switch-1", names=("*.bank.example",)),  "neither an IP address nor a DNS name"),
        (x509.SWITCH,    Subject("switch-1", names=("Bank.example",)),    "neither an IP address nor a DNS name"),
        (x509.SWITCH,    Subject("switch-1", names=("a..b",)),            "neither an IP address nor a DNS name"),
        (x509.SWITCH,    Subject("switch-1", names=("",)),                "neither an IP address nor a DNS name"),
        (x509.SWITCH,    Subject("switch-1", names=("bank.example\n",)),  "neither an IP address nor a DNS name"),
        (x509.PUBLISHER, Subject(""),                                     "1 to 64 characters"),
        (x509.PUBLISHER, Subject("x" * 65),                               "1 to 64 characters"),
        (x509.ROOT,      Subject("Another Root"),                         "does not issue root"),
        (x509.ISSUING,   Subject("Another CA"),                           "does not issue issuing"),
    ],
)  # fmt: skip
def test_what_a_profile_refuses(authority: Authority, profile: x509.Profile, subject: Subject, reason: str) -> None:
    with pytest.raises(CertificateError, match=reason):
        authority.issue(profile, subject, PrivateKey.generate().public_key, NOW)
    assert authority.entries() == [], "a refusal leaves nothing in the index"


# --- what other software says ---


@pytest.mark.parametrize(
    ("profile", "subject", "purpose", "accepted"),
    [
        (x509.TERMINAL,  TERMINAL,        "sslclient", True),
        (x509.TERMINAL,  TERMINAL,        "sslserver", False),
        (x509.SWITCH,    SERVER,          "sslserver", True),
        (x509.SWITCH,    SERVER,          "sslclient", True),
        (x509.HOST,      SERVER,          "sslserver", True),
        (x509.HOST,      SERVER,          "sslclient", False),
        (x509.PUBLISHER, Subject("Apps"), "sslclient", False),
        (x509.PUBLISHER, Subject("Apps"), "sslserver", False),
    ],
    ids=lambda value: value.name if isinstance(value, x509.Profile) else str(value)[:9],
)  # fmt: skip
def test_the_openssl_command_agrees(
    network: Network, tmp_path: Path, profile: x509.Profile, subject: Subject, purpose: str, accepted: bool
) -> None:
    """Strictly by RFC 5280. OpenSSL 3.0 wants to be told the signer identity and applies it to the leaf only, hence the
    partial chain; the next test takes the other link.
    """
    certificate = network.certify(profile, subject)[1]
    (tmp_path / "leaf.crt").write_bytes(to_pem(CERTIFICATE, certificate.der))
    verdict = openssl(
        "verify", "-x509_strict", "-purpose", purpose, "-vfyopt", "distid:1234567812345678", "-partial_chain",
        "-trusted", network.authority.folder / ISSUING, tmp_path / "leaf.crt",
    )  # fmt: skip
    assert (verdict.returncode == 0) is accepted, verdict.stderr


def test_the_openssl_command_verifies_the_issuing_authority(network: Network, tmp_path: Path) -> None:
    root, _ = from_pem(CERTIFICATE, (network.authority.folder / AUTHORITIES).read_bytes())
    (tmp_path / "root.crt").write_bytes(to_pem(CERTIFICATE, root))
    verdict = openssl(
        "verify", "-x509_strict", "-vfyopt", "distid:1234567812345678",
        "-CAfile", tmp_path / "root.crt", network.authority.folder / ISSUING,
    )  # fmt: skip
    assert verdict.returncode == 0, verdict.stderr


def test_the_openssl_command_verifies_request_and_revocation_list(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "a.csr").write_bytes(to_pem(REQUEST, x509.request(PrivateKey.generate(), SERVER)))
    verdict = openssl("req", "-in", tmp_path / "a.csr", "-verify", "-vfyopt", "distid:1234567812345678", "-noout")
    assert verdict.returncode == 0, verdict.stderr

    authority.revoke(
        authority.issue(x509.TERMINAL, TERMINAL, PrivateKey.generate().public_key, NOW).serial, "superseded", NOW
    )
    (der,) = from_pem(REVOCATION_LIST, authority.make_revocation_list(NOW).read_bytes())
    assert "Superseded" in openssl("crl", "-in", authority.folder / CRL, "-noout", "-text").stdout
    # `openssl crl -CAfile` has no way to tell the signer identity, so the signature is verified as one over bytes.
    structure = asn1_crl.CertificateList.load(der)
    (tmp_path / "tbs").write_bytes(structure["tbs_cert_list"].dump())
    (tmp_path / "sig").write_bytes(structure["signature"].native)
    (tmp_path / "key").write_bytes(to_pem("PUBLIC KEY", authority.certificate.public_key.spki))
    verdict = openssl(
        "dgst", "-sm3", "-sigopt", "distid:1234567812345678", "-verify", tmp_path / "key",
        "-signature", tmp_path / "sig", tmp_path / "tbs",
    )  # fmt: skip
    assert verdict.stdout.strip() == "Verified OK", verdict.stderr


def test_a_request_that_the_openssl_command_made_is_served(authority: Authority, tmp_path: Path) -> None:
    assert openssl("genpkey", "-algorithm", "SM2", "-out", tmp_path / "a.key").returncode == 0
    made = openssl(
        "req", "-new", "-key", tmp_path / "a.key", "-sm3", "-sigopt", "distid:1234567812345678",
        "-subj", "/CN=P0000009/serialNumber=SN9", "-out", tmp_path / "a.csr",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    (der,) = from_pem(REQUEST, (tmp_path / "a.csr").read_bytes())
    certificate = authority.issue_from_request(x509.TERMINAL, der, NOW)
    assert (certificate.subject.common_name, certificate.subject.serial) == ("P0000009", "SN9")


def test_pyopenssl_verifies_the_chain_and_the_revocation(authority: Authority) -> None:
    """The library of the channel itself, at the day of issue."""
    kept, gone = (authority.issue(x509.TERMINAL, TERMINAL, PrivateKey.generate().public_key, NOW) for _ in range(2))
    authority.revoke(gone.serial, "key_compromise", NOW)
    authority.make_revocation_list(NOW)
    store = crypto.X509Store()
    store.load_locations(str(authority.folder / AUTHORITIES))
    store.load_locations(str(authority.folder / CRL))
    store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.X509_STRICT)
    store.set_time(NOW + timedelta(days=7))

    def verify(certificate: x509.Certificate) -> None:
        loaded = crypto.load_certificate(crypto.FILETYPE_ASN1, certificate.der)
        crypto.X509StoreContext(store, loaded).verify_certificate()

    verify(kept)
    with pytest.raises(crypto.X509StoreContextError, match="revoked"):
        verify(gone)


# --- requests ---


def test_a_request_proves_the_key_and_names_the_subject() -> None:
    key = PrivateKey.generate()
    assert x509.verify_request(x509.request(key, SERVER)) == (SERVER, key.public_key)


def test_a_request_for_somebody_elses_key_is_refused(authority: Authority) -> None:
    class Impostor:
        """Signs with one key and asks for the certificate of another."""

        public_key: PublicKey = PrivateKey.generate().public_key
        sign = staticmethod(PrivateKey.generate().sign)

    with pytest.raises(CertificateError, match="does not verify"):
        authority.issue_from_request(x509.TERMINAL, x509.request(Impostor(), TERMINAL), NOW)


def test_the_authority_decides_about_names(authority: Authority) -> None:
    request = x509.request(PrivateKey.generate(), Subject("core-1", names=("switch.bank.example",)))
    made = authority.issue_from_request(x509.HOST, request, NOW, names=("core.bank.example",))
    assert made.subject.names == ("core.bank.example",)


def test_a_subject_cannot_write_on_the_operators_screen() -> None:
    with pytest.raises(CertificateError, match="cannot be shown"):
        x509.verify_request(x509.request(PrivateKey.generate(), Subject("P00\x1b[2J")))


@pytest.mark.parametrize(
    ("make", "parse"),
    [
        (lambda key: x509.request(key, SERVER), x509.verify_request),
        (
            lambda key: x509.issue(x509.SWITCH, SERVER, key.public_key, issuer=SERVER, signer=key, now=NOW).der,
            x509.parse_certificate,
        ),
    ],
    ids=["request", "certificate"],
)
def test_mutated_bytes_raise_one_error(make: Callable[[PrivateKey], bytes], parse: Callable[[bytes], object]) -> None:
    """Bytes of strangers: cut, flipped, spliced. They parse or raise CertificateError, and nothing else."""
    good = make(PrivateKey.generate())
    chance = random.Random(8998)
    refused = 0
    for _ in range(1500):
        data = bytearray(good)
        match chance.randrange(4):
            case 0:
                del data[chance.randrange(len(data)) :]
            case 1:
                data[chance.randrange(len(data))] = chance.randrange(256)
            case 2:
                at = chance.randrange(len(data))
                data[at:at] = chance.randbytes(chance.randrange(1, 5))
            case 3:
                at = chance.randrange(len(data))
                del data[at : at + chance.randrange(1, 5)]
        try:
            parse(bytes(data))
        except CertificateError:
            refused += 1
    assert refused > 700


def test_no_changed_bit_of_a_certificate_verifies() -> None:
    key = PrivateKey.generate()
    made = x509.issue(x509.SWITCH, SERVER, key.public_key, issuer=SERVER, signer=key, now=NOW)
    for bit in range(8 * len(made.der)):
        changed = bytearray(made.der)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CertificateError):
            x509.verify_certificate(x509.parse_certificate(bytes(changed)), key.public_key)


# --- revocation ---


def test_revocation_is_once_and_only_of_what_was_issued(authority: Authority) -> None:
    made = authority.issue(x509.TERMINAL, TERMINAL, PrivateKey.generate().public_key, NOW)
    assert authority.revoke(made.serial, "key_compromise", NOW).common_name == "P0000001"
    for serial, reason, refusal in (
        (made.serial, "superseded", "was revoked at 2026-06-01"),
        (made.serial + 1, "superseded", "no certificate with serial"),
        (made.serial, "boredom", "is not a reason"),
    ):
        with pytest.raises(PkiError, match=refusal):
            authority.revoke(serial, reason, NOW)


def test_a_list_holds_what_is_revoked_and_its_number_grows(authority: Authority) -> None:
    key = PrivateKey.generate().public_key
    made = authority.issue_many(x509.TERMINAL, [(TERMINAL, key)] * 3, NOW)

    def read() -> tuple[int, list[tuple[int, str]]]:
        (der,) = from_pem(REVOCATION_LIST, authority.make_revocation_list(NOW).read_bytes())
        body = asn1_crl.CertificateList.load(der)["tbs_cert_list"]
        number = next(each for each in body["crl_extensions"] if each["extn_id"].native == "crl_number")
        return number["extn_value"].parsed.native, [
            (entry["user_certificate"].native, entry.crl_reason_value.native) for entry in body["revoked_certificates"]
        ]

    first, empty = read()
    assert empty == []
    authority.revoke(made[2].serial, "superseded", NOW)
    authority.revoke(made[0].serial, "key_compromise", NOW)
    assert read() == (first + 1, [(made[2].serial, "superseded"), (made[0].serial, "key_compromise")])


# --- the folder ---


def test_initialising_twice_changes_nothing(tmp_path: Path) -> None:
    Authority.initialise(tmp_path / "pki", "Bank", NOW)
    before = {path: path.read_bytes() for path in (tmp_path / "pki").rglob("*") if path.is_file()}
    with pytest.raises(PkiError, match="nothing was changed"):
        Authority.initialise(tmp_path / "pki", "Bank", NOW)
    assert before == {path: path.read_bytes() for path in (tmp_path / "pki").rglob("*") if path.is_file()}


@pytest.mark.parametrize("content", ["a file", "a full folder"])
def test_what_is_there_is_not_overwritten(tmp_path: Path, content: str) -> None:
    target = tmp_path / "pki"
    if content == "a file":
        target.write_text("precious")
    else:
        target.mkdir()
        (target / "precious").write_text("")
    with pytest.raises(PkiError, match="nothing was changed"):
        Authority.initialise(target, "Bank", NOW)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pki"], "no half-made folder stays behind"


def test_an_initialisation_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CertificateError):
        Authority.initialise(tmp_path / "pki", "x" * 64, NOW)
    assert list(tmp_path.iterdir()) == []


def test_the_root_can_be_moved_away(authority: Authority) -> None:
    shutil.rmtree(authority.folder / "root")
    again = Authority(authority.folder)
    again.issue(x509.TERMINAL, TERMINAL, PrivateKey.generate().public_key, NOW)
    again.make_revocation_list(NOW)


def test_private_parts_are_private_and_the_rest_is_not(authority: Authority) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in authority.folder.iterdir()}
    assert {name: modes[name] for name in ("keys", "root", AUTHORITIES, ISSUING, CRL)} == {
        "keys": 0o700, "root": 0o700, AUTHORITIES: 0o644, ISSUING: 0o644, CRL: 0o644,
    }  # fmt: skip
    (authority.folder / "keys" / "ca.issuing.1.pem").chmod(0o644)
    with pytest.raises(CustodyError, match="chmod 600"):
        Authority(authority.folder)


def test_a_folder_without_an_authority_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(PkiError, match="fengshou pki init"):
        Authority(tmp_path)


def test_a_line_that_a_crash_cut_short_gives_way(authority: Authority) -> None:
    key = PrivateKey.generate().public_key
    first = authority.issue(x509.TERMINAL, TERMINAL, key, NOW)
    index = authority.folder / "index.jsonl"
    index.write_bytes(index.read_bytes() + b'{"act":"issued","at":"2026-06-01T08:')
    assert [int(entry.issued.serial, 16) for entry in authority.entries()] == [first.serial]
    second = authority.issue(x509.TERMINAL, TERMINAL, key, NOW)
    assert [int(entry.issued.serial, 16) for entry in authority.entries()] == [first.serial, second.serial]


@pytest.mark.parametrize("line", [b"nonsense\n", b"{}\n", b'{"act":"forgotten"}\n', b"\n"])
def test_a_damaged_index_is_not_guessed_at(authority: Authority, line: bytes) -> None:
    index = authority.folder / "index.jsonl"
    index.write_bytes(line + index.read_bytes())
    with pytest.raises(PkiError, match="line 1 is damaged"):
        authority.make_revocation_list(NOW)


def _issue_ten(folder: Path) -> None:
    authority = Authority(folder)
    for _ in range(10):
        authority.issue(x509.TERMINAL, TERMINAL, PrivateKey.generate().public_key, NOW)
        authority.make_revocation_list(NOW)


def test_writers_in_several_processes_lose_nothing(authority: Authority) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_issue_ten, args=(authority.folder,)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    entries = authority.entries()
    assert len({entry.issued.serial for entry in entries}) == 40
    for entry in entries:
        x509.verify_certificate(x509.parse_certificate(entry.issued.certificate), authority.certificate.public_key)
    numbers = [act.number for act in authority._acts() if hasattr(act, "number")]
    assert numbers == list(range(1, 42)), "each list has its own number"
