"""Logging: one JSON object per line. Fields not listed here are dropped, so secrets are never written."""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog
from structlog.stdlib import ProcessorFormatter

FIELDS: Final = frozenset(
    {
        *("event", "level", "logger", "timestamp"),
        *("request_id", "method", "route", "status", "duration_ms", "name", "version", "host", "port", "pid", "signal"),
        *("error", "where", "code", "reason", "result", "kind", "provider", "processor", "channel", "connection"),
        *("attempt", "attempts", "ambiguous", "delay_s", "retry_in_s", "job", "count", "n", "seq", "path", "pages"),
        *(
            "account_id",
            "connection_id",
            "contact_id",
            "payment_request_id",
            "message_id",
            "checkout_session_id",
            "job_id",
        ),
        *("refund_id", "event_id", "event_type", "family_id", "endpoint_id", "subscription_id"),
    }
)

OURS: Final = ("web", "resolvers", "schema", "services", "models", "integrations", "uvicorn.error")
# Secrets in libraries' texts: link tokens, queries, bearers, passwords in server addresses.
_SECRETS: Final = (
    (re.compile(r"(/(?:p|unsubscribe|attachments|sandbox/pay)/)(?!\{)[^/\s\"'?<>]+"), r"\1…"),
    (re.compile(r"(/(?:join|reset-password|confirm-email)#)[^\s\"'<>]+"), r"\1…"),
    (re.compile(r"\?[^\s\"'<>?]*=[^\s\"'<>]*"), "?…"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[^\s\"']+"), r"\1 …"),
    (re.compile(r"\b(?:ptk_[\w-]+|eyJ[\w-]+\.[\w.-]+)"), "…"),
    (re.compile(r"(://)[^/\s@\"']+@"), r"\1…@"),
)
FRAMES: Final = 12
LONGEST: Final = 500


def configure(level: str, stream: TextIO | None = None) -> None:
    """Log from `level` up, libraries included, to `stream` (default: stderr)."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[_where, _allowed, _redacted, structlog.processors.JSONRenderer()],
        )
    )
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    # Below this level libraries log statements with arguments, addresses and bodies: only our packages may.
    root.setLevel(max(logging.WARNING, root.level))
    for name in OURS:
        logging.getLogger(name).setLevel(level.upper())
    # At debug the server logs every WebSocket frame, and the first one carries a token.
    server = logging.getLogger("uvicorn.error")
    server.setLevel(max(logging.INFO, server.level))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # middleware.py writes our own line for each request and each socket, without address, query and token.
    logging.getLogger("uvicorn.access").disabled = True
    if _not_of_a_socket not in server.filters:
        server.addFilter(_not_of_a_socket)


def _not_of_a_socket(record: logging.LogRecord) -> bool:
    # uvicorn's lines of accepted and refused WebSockets are its access log, in the logger of its errors.
    return '"WebSocket %s"' not in str(record.msg)


def _where(_: Any, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    info = fields.pop("exc_info", None)
    error = info[1] if isinstance(info, tuple) else info if isinstance(info, BaseException) else None
    if info is True:  # structlog passes True and expects a look-up
        error = sys.exception()
    if error is not None:
        fields["error"] = type(error).__name__
        fields["where"] = places(error)
    return fields


def places(error: BaseException) -> list[str]:
    """`file:line function` of the innermost frames, innermost last."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    return [f"{'/'.join(frame.filename.split('/')[-2:])}:{frame.lineno} {frame.name}" for frame in frames]


def _redacted(_: Any, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if fields.get("logger") == "asyncio":
        # "Task exception was never retrieved" is followed by the exception's message and callback arguments.
        fields["event"] = re.split(r"[\n(<]", str(fields["event"]), maxsplit=1)[0].strip()
    for name, value in fields.items():
        if isinstance(value, str):
            for pattern, replacement in _SECRETS:
                value = pattern.sub(replacement, value)
            fields[name] = value
    return fields


def _allowed(_: Any, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {name: _short(value) for name, value in fields.items() if name in FIELDS}


def _short(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list):
        return [_short(item) for item in value]
    text = str(value)
    # uvicorn logs a failed start as its traceback's text; the cause is at the end.
    return text[-LONGEST:] if text.startswith("Traceback") else text[:LONGEST]
