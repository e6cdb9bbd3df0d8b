"""What another thread has done in the Trio thread: everything, once, in order, also while all tasks are cancelled."""

import threading
from functools import partial

import pytest
import trio

from fengshou.switch.doorbell import Doorbell

CALLS = 5000


async def test_calls_of_a_thread_come_in_order_in_the_trio_thread() -> None:
    doorbell = Doorbell()
    heard: list[tuple[int, int]] = []

    def hear(number: int) -> None:
        heard.append((number, threading.get_ident()))

    def leave() -> None:
        for number in range(CALLS):
            doorbell.call(partial(hear, number))

    await trio.to_thread.run_sync(leave)
    await doorbell.close()
    assert heard == [(number, threading.get_ident()) for number in range(CALLS)]


async def test_no_call_of_several_threads_is_lost() -> None:
    doorbell = Doorbell()
    heard: set[tuple[int, int]] = set()

    def leave(thread: int) -> None:
        for number in range(CALLS):
            doorbell.call(partial(heard.add, (thread, number)))

    async with trio.open_nursery() as nursery:
        for thread in range(4):
            nursery.start_soon(trio.to_thread.run_sync, leave, thread)
    await doorbell.close()
    assert len(heard) == 4 * CALLS


async def test_who_waits_in_a_shield_is_called_while_all_else_is_cancelled() -> None:
    doorbell, called = Doorbell(), trio.Event()
    with trio.move_on_after(0):
        thread = threading.Thread(target=doorbell.call, args=(called.set,))
        thread.start()
        with trio.CancelScope(shield=True), trio.fail_after(5):
            await called.wait()
        thread.join()
    with trio.CancelScope(shield=True):
        await doorbell.close()
    assert called.is_set()


def test_a_call_after_the_loop_has_ended_says_so() -> None:
    async def made() -> Doorbell:
        return Doorbell()

    doorbell = trio.run(made)
    with pytest.raises(trio.RunFinishedError):
        doorbell.call(lambda: None)
