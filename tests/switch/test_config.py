"""A configuration that cannot be used is refused with the key and the reason, before anything is opened."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fengshou.switch.config import ConfigError, address_of, load
from fengshou.switch.grammar import Catalogue, ServiceError, load_service

GOOD = """
[listen]
certificate = "switch.crt"
authorities = "authorities.crt"

[destination.core-banking]
kind = "iso8583"
addresses = ["127.0.0.1:8583"]

[destination.government]
kind = "json"
address = "[::1]:8443"
name = "office"
signer = "signer.crt"
certificate = "switch.crt"
authorities = "authorities.crt"

[[service]]
module = "fengshou.ext.services.balance"
"""

_ADDRESSES, _ADDRESS = "destination.core-banking.addresses", "destination.government.address"
_SIGNER = "destination.government.signer"
_SERVICE = '[[service]]\nmodule = "fengshou.ext.services.balance"'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "keys").mkdir()
    for name in ("switch.crt", "authorities.crt", "signer.crt"):
        (tmp_path / name).touch()
    return tmp_path / "switch.toml"


def test_a_good_file_with_its_defaults(file: Path) -> None:
    file.write_text(GOOD)
    config = load(file).config
    assert config.listen.port == 7443
    assert config.limits.in_flight == 4096
    assert set(config.destination) == {"core-banking", "government"}


@pytest.mark.parametrize(
    ("edit", "key", "reason"),
    [
        (("[listen]", "[listen]\nport = 70000"),                       "listen.port",         "<= 65535"),
        (("[listen]", "[listen]\nport = 'x'"),                         "listen.port",         "Expected `int`"),
        (("[listen]", "[listen]\nprot = 1"),                           "listen",              "unknown field `prot`"),
        (("[listen]", "[listen]\nprofile = 'aes'"),                    "listen.profile",      "Invalid enum value"),
        (('certificate = "switch.crt"\nauth', "auth"),                 "listen",              "missing required field"),
        (("switch.crt", "none.crt"),                                   "listen.certificate",  "does not exist"),
        (("authorities.crt", "none.crt"),                              "listen.authorities",  "does not exist"),
        (("[listen]", "[listen]\nrevoked = 'none.pem'"),               "listen.revoked",      "does not exist"),
        (("[listen]", "[limits]\nin-flight = 0\n[listen]"),            "limits.in-flight",    ">= 1"),
        (("[listen]", "[limits]\nidle-s = 0\n[listen]"),               "limits.idle-s",       "> 0"),
        (("[listen]", "[limits]\nidle_s = 1\n[listen]"),               "limits",              "unknown field `idle_s`"),
        (("[listen]", "[files]\nkeys = 'none'\n[listen]"),             "files.keys",          "fengshou init"),
        (("[listen]", f"[files]\nstatus = '{'x' * 108}'\n[listen]"),   "files.status",        "107 characters"),
        (("127.0.0.1:8583", "127.0.0.1"),                              _ADDRESSES,            "not host:port"),
        (("127.0.0.1:8583", "127.0.0.1:99999"),                        _ADDRESSES,            "not host:port"),
        (('["127.0.0.1:8583"]', "[]"),                                 "destination",         "length >= 1"),
        (("[::1]:8443", "8443"),                                       _ADDRESS,              "not host:port"),
        (("signer.crt", "none.crt"),                                   _SIGNER,               "does not exist"),
        (('kind = "json"', 'kind = "soap"'),                           "destination",         "Invalid value 'soap'"),
        (('kind = "json"', 'kind = "json"\ndeadline-ms = 0'),          "destination",         ">= 1"),
        ((_SERVICE, ""),                                               "",                    "field `service`"),
        ((_SERVICE, "service = []"),                                   "",                    ""),
        ((_SERVICE, f"{_SERVICE}\n{_SERVICE}"),                        "service",             "stands twice"),
        (("[listen]", "log-level = 'loud'\n[listen]"),                 "log-level",           "Invalid enum value"),
        (("[listen]", "[listen"),                                      "",                    "not TOML"),
    ],
)  # fmt: skip
def test_an_error_names_the_key_and_the_reason(file: Path, edit: tuple[str, str], key: str, reason: str) -> None:
    assert edit[0] in GOOD
    file.write_text(GOOD.replace(edit[0], edit[1], 1))
    with pytest.raises(ConfigError) as refused:
        load(file)
    assert str(file) in str(refused.value)
    assert f": {key}" in str(refused.value)
    assert reason in str(refused.value)


def test_a_file_that_is_not_there_or_not_text(file: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not TOML"):
        load(file)


@pytest.mark.parametrize(
    ("text", "address"),
    [("a:1", ("a", 1)), ("10.0.0.1:65535", ("10.0.0.1", 65535)), ("[::1]:8443", ("::1", 8443))],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert address_of(text) == address


@pytest.mark.parametrize("text", ["", ":", "a", "a:", ":1", "a:0", "a:65536", "a:-1", "a:１", "a:1x"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="not host:port"):
        address_of(text)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: load_service("fengshou.ext.services.nothing", {}),              "cannot be imported"),
        (lambda: load_service("fengshou.ext.services.rungs", {}),                "no attribute `service`"),
        (lambda: load_service("fengshou.ext.services.balance", {"x": 1}),        "unknown field `x`"),
        (lambda: load_service("fengshou.ext.services.withdrawal", {"daily_cap_fen": 1}), "daily_cap_fen"),
        (lambda: Catalogue([load_service("fengshou.ext.services.balance", {})] * 2), "loaded twice"),
    ],
    ids=["no such package", "a package of something else", "unknown option", "option out of bounds", "twice"],
)  # fmt: skip
def test_a_service_that_cannot_be_loaded_is_named(build: Callable[[], object], reason: str) -> None:
    with pytest.raises(ServiceError, match=reason):
        build()
