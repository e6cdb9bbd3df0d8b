"""Order among debts: per account as they came, whatever else is in between."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from fengshou.switch.lanes import Lanes


def test_one_account_goes_one_after_the_other_and_another_side_by_side() -> None:
    lanes: Lanes[str] = Lanes()
    assert lanes.enter("first", ["a", "b"])
    assert not lanes.enter("second", ["b", "c"])
    assert not lanes.enter("third", ["c"]), "it is behind the second, which waits for the first"
    assert lanes.enter("other", ["d"])
    assert lanes.leave("other", ["d"]) == []
    assert lanes.leave("first", ["a", "b"]) == ["second"]
    assert lanes.leave("second", ["b", "c"]) == ["third"]
    assert lanes.leave("third", ["c"]) == []
    assert len(lanes) == 0
    assert lanes.enter("without an account", [])


items = st.lists(st.sets(st.sampled_from("abcde"), max_size=3), max_size=40)


@given(items=items, choices=st.randoms(use_true_random=False))
def test_all_go_and_no_account_is_overtaken(items: list[set[str]], choices: Random) -> None:
    lanes: Lanes[int] = Lanes()
    names = [tuple(accounts) for accounts in items]
    ready = [number for number, accounts in enumerate(names) if lanes.enter(number, accounts)]
    gone: list[int] = []
    while ready:
        number = ready.pop(choices.randrange(len(ready)))
        gone.append(number)
        ready += lanes.leave(number, names[number])
    assert sorted(gone) == list(range(len(items)))
    for account in "abcde":
        mine = [number for number in gone if account in names[number]]
        assert mine == sorted(mine)
