"""The host without books: whatever is well formed is approved, whatever is not is refused, and each is answered."""

import pytest

from fengshou.codecs import Iso8583Codec
from fengshou.ext.hosts.approver import Application
from fengshou.protocol.iso8583 import HostFormat

REQUEST = {
    0: "0200", 3: "000000", 4: "000001158000", 7: "0612072150", 11: "123456", 22: "012", 32: "99904520",
    37: "632800123456", 41: "FS000001", 42: "999452007630001", 49: "156", 102: "9020000000104729",
}  # fmt: skip


def test_an_answer_repeats_what_the_switch_knows_its_request_by():
    (answer,) = Application({}).answer([REQUEST])
    assert answer[0] == "0210"
    assert all(answer[number] == REQUEST[number] for number in (3, 4, 7, 11, 32, 37, 41, 49))
    assert answer[39] == "00"
    codec = Iso8583Codec(HostFormat())
    assert codec.decode(codec.encode(answer)) == answer


def test_each_approval_has_an_authorisation_of_its_own():
    answers = Application({}).answer([REQUEST] * 100)
    assert len({answer[38] for answer in answers}) == 100


@pytest.mark.parametrize("missing", [3, 7, 11, 32, 37, 41, 42])
def test_what_does_not_say_who_asks_for_what_is_refused(missing):
    (answer,) = Application({}).answer([{number: value for number, value in REQUEST.items() if number != missing}])
    assert answer[39] == "30"
    assert 38 not in answer


def test_it_has_no_options():
    with pytest.raises(ValueError, match="'database'"):
        Application({"database": "x"})
