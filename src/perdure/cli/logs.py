"""Structured logs on standard error, ours and the libraries' alike."""

from __future__ import annotations

import logging
import sys
from enum import StrEnum
from typing import Any

import structlog


class LogFormat(StrEnum):
    """How a log line looks."""

    CONSOLE = "console"
    JSON = "json"


def configure_logs(log_format: LogFormat, *, access_log: bool = False) -> None:
    """Send every log line of the process through one renderer."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=log_format is LogFormat.JSON),
        structlog.processors.StackInfoRenderer(),
    ]
    renderers: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if log_format is LogFormat.JSON:
        renderers += [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    else:
        renderers.append(structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=renderers, foreign_pre_chain=shared))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # What uvicorn says of its own start and end, our own lines say better.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").setLevel(logging.INFO if access_log else logging.WARNING)
    for library in ("httpx", "httpx2", "httpcore", "openai", "anthropic", "watchfiles"):
        logging.getLogger(library).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_is_no_deliberate_cut)


def _is_no_deliberate_cut(record: logging.LogRecord) -> bool:
    """A stream without its end is cut on purpose (server/sse.py) and has been logged there."""
    return record.getMessage() != "ASGI callable returned without completing response."
