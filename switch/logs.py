"""Structured logs, a line of JSON each. What a message carries is logged only through the mask of its privacy class."""

import logging
import sys
from collections.abc import Mapping
from typing import TextIO

import structlog

from fengshou.protocol.elements import mask
from fengshou.protocol.message import Value
from fengshou.protocol.templates import Grammar


def configure(level: str, stream: TextIO | None = None) -> None:
    """Send every log record of this process, ours and the libraries', to ``stream`` (standard error) as JSON."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                # No local variables in a traceback: they hold messages, and messages hold what must not be logged.
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())


def masked(grammar: Grammar, values: Mapping[int, Value]) -> dict[str, str]:
    """Values by element name as a log or a screen may show them: C2 shortened, C3 withheld."""
    return {grammar.elements[key].name: mask(grammar.elements[key], value) for key, value in sorted(values.items())}
