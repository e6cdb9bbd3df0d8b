"""For all tests: coroutines run under Trio, no test depends on how fast the machine is, devices are there once."""

import inspect

import pytest
import trio
from hypothesis import HealthCheck, settings

# One daemon of cards a process: the PC/SC library remembers the first that it met.
from tests.devices import card_readers, sdf_device, sdf_library, slots, standing_card  # noqa: F401  # fixtures

settings.register_profile("fengshou", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fengshou")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}

    async def main() -> None:
        await pyfuncitem.obj(**arguments)

    trio.run(main)
    return True
