"""structlog set up once: JSON lines for machines, colours for people, secrets for nobody."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog

from visavis.server.redaction import redact

# Their debug output is every handshake's headers and every frame's bytes.
_CHATTY = ("uvicorn.error", "websockets.server", "websockets.client", "python_multipart.multipart")


def configure_logging(log_format: Literal["auto", "console", "json"], level: str) -> None:
    """Send structlog and the standard library's records to stderr in one format.

    "auto" is "console" on a terminal and "json" elsewhere.
    """
    if log_format == "auto":
        log_format = "console" if sys.stderr.isatty() else "json"
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # A traceback becomes text here, without the values of locals, and is scrubbed, too.
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.types.Processor
    if log_format == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                redact,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # One line a request says nothing about an hour-long socket.
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.INFO, root.level))
