"""Structured logs, a line of JSON each. What a message carries is logged only through the mask of its privacy class."""

import logging
import sys
import traceback
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, TextIO

import structlog


def configure(level: str, stream: TextIO | None = None, **always: object) -> None:
    """Send every log record of this process, ours and the libraries', to ``stream`` (standard error) as JSON.

    ``always`` stands in each, as the number of a worker.
    """

    def add(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.update(always)
        return event

    shared: list[structlog.typing.Processor] = [
        add,
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
                _tell_failure,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())


def _tell_failure(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A failure is told by its kind and place; its text and its variables may hold what a message carried."""
    told = event.pop("exc_info", None)
    failure = sys.exc_info()[1] if told is True else told[1] if isinstance(told, tuple) else told
    if isinstance(failure, BaseException):
        event["failure"] = type(failure).__name__
        frames = traceback.extract_tb(failure.__traceback__)
        event["at"] = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    return event
