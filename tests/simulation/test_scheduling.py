"""A life that stands still: its tasks do not run, while time and everybody else go on."""

import trio

from fengshou.switch.simulation.scheduling import Life, run


def test_a_process_stands_still_and_catches_up() -> None:
    beats: list[float] = []
    others: list[float] = []

    async def beat(into: list[float]) -> None:
        while True:
            await trio.sleep(1)
            into.append(trio.current_time())

    async def main() -> None:
        life = Life()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(life.run, lambda: beat(beats))
            nursery.start_soon(beat, others)
            await trio.sleep(2.5)
            life.stand_still()
            await trio.sleep(4)
            assert life.stood_still_s == 4.0
            life.go_on()
            await trio.sleep(1.9)
            assert life.stood_still_s == 4.0
            nursery.cancel_scope.cancel()

    run("1", main)
    assert beats == [1, 2, 6.5, 7.5], "what was due while it stood still comes once, when it goes on"
    assert others == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_process_that_stands_still_can_be_killed() -> None:
    async def main() -> bool:
        life = Life()
        ended = False

        async def live() -> None:
            nonlocal ended
            assert not await life.run(trio.sleep_forever)
            ended = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(live)
            await trio.sleep(1)
            life.stand_still()
            await trio.sleep(1)
            life.kill()
        return ended

    assert run("1", main)
