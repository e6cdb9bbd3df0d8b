"""What several workers say, as one answer."""

import pytest

from fengshou.switch.status import combined


@pytest.mark.parametrize(
    ("key", "first", "second", "together"),
    [
        ("connections", 3,                              4,                              7),
        ("answered",    {"00": 5, "61": 1},             {"00": 2},                      {"00": 7, "61": 1}),
        ("journal",     {"commits": 3, "last_commit": 8}, {"commits": 5, "last_commit": 7},
                        {"commits": 8, "last_commit": 8}),
        ("destinations", {"host": {"up": True, "in_flight": 2}}, {"host": {"up": False, "in_flight": 1}},
                        {"host": {"up": False, "in_flight": 3}}),
        ("keys",        {"switch-sign": 2, "journal": 1}, {"switch-sign": 1, "journal": 1}, {"journal": 1}),
        ("keys_waiting", {"switch-sign": 2},            {},                             {}),
        ("analytics",   {"delivered": 4, "state": "x"}, None,                           {"delivered": 4, "state": "x"}),
        ("custody",     "development",                  "development",                  "development"),
        ("cpu_s",       1.5,                            0.5,                            2.0),
    ],
)  # fmt: skip
def test_counts_add_up_and_states_agree(key: str, first: object, second: object, together: object) -> None:
    assert combined([{key: first}, {key: second}]) == {key: together}


def test_who_knows_less_is_heard_too() -> None:
    found = combined([{"handshakes": {"accepted": 2, "refused": {}}}, {"handshakes": {"refused": {"worker busy": 1}}}])
    assert found == {"handshakes": {"accepted": 2, "refused": {"worker busy": 1}}}
