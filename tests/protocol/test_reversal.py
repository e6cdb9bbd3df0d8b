"""A reversal that is demanded again is another message about the same original."""

from fengshou.protocol.iso8583 import host_stan
from fengshou.protocol.reversal import REVERSAL_ADVICE_MTI, demanded_again, reversal_of
from fengshou.protocol.service import Iso8583Call

RECEIVED_US = 1_795_514_400_000_000  # 2026-11-24 10:00:00 UTC
CALL = Iso8583Call(200, {3: "000000", 4: "000000130300", 102: "1", 103: "2"})


def test_another_demand_differs_in_its_identity_alone() -> None:
    first = reversal_of(CALL, 632_800_000_017, RECEIVED_US, 99_904_520, "98", REVERSAL_ADVICE_MTI)
    again = demanded_again(first, 632_800_000_017, RECEIVED_US + 7_000_000)
    assert again.mti == first.mti
    assert {number: again.fields[number] for number in first.fields} == first.fields
    assert again.fields.keys() - first.fields.keys() == {7, 11}
    assert again.fields[7] == "1124180007"


def test_its_stan_is_never_that_of_the_original() -> None:
    first = reversal_of(CALL, 632_899_999_999, RECEIVED_US, 99_904_520, "98", REVERSAL_ADVICE_MTI)
    moments = [*range(1, 10**6, 1009), *range(999_990, 1_000_010)]
    stans = {demanded_again(first, 632_899_999_999, late_us).fields[11] for late_us in moments}
    assert host_stan(632_899_999_999) not in stans
