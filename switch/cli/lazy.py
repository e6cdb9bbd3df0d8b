"""Groups of commands that read the module of a command when it is asked for.

All modules together take longer than most commands do, so help does not read them either.
"""

import gc
from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import click


class Elsewhere(NamedTuple):
    """Where a command stands: module of this package, name in it. Without a ``line`` help does not list it."""

    module: str
    name: str
    line: str = ""


class LazyGroup(click.Group):
    """A group whose commands stand elsewhere, in the order in which help lists them."""

    def __init__(self, *args: Any, elsewhere: Mapping[str, Elsewhere], **options: Any) -> None:
        super().__init__(*args, **options)
        self.elsewhere = elsewhere

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.elsewhere)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in self.elsewhere:
            return None
        at = self.elsewhere[name]
        gc.disable()  # modules stay: to look for garbage among them took a tenth of the time of `journal find`
        try:
            command: click.Command = getattr(import_module(f"fengshou.switch.cli.{at.module}"), at.name)
        finally:
            gc.enable()
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, at.line) for name, at in self.elsewhere.items() if at.line])
