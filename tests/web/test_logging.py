"""The log: one JSON object a line, listed fields only, whoever writes it and however."""

from __future__ import annotations

import ast
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from web import logging as web_logging


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    written = io.StringIO()
    web_logging.configure("info", written)
    yield written
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def _lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_fields_that_are_not_listed_are_not_written(stream: io.StringIO) -> None:
    logging.getLogger("a").warning("one", extra={"provider": "sandbox", "body": "secret", "token": "secret"})
    structlog.get_logger("b").warning("two", provider="stripe", phone="secret", password="secret")
    first, second = _lines(stream)
    assert (first["event"], first["provider"], first["level"], first["logger"]) == ("one", "sandbox", "warning", "a")
    assert (second["event"], second["provider"], second["level"]) == ("two", "stripe", "warning")
    assert set(first) == {"event", "provider", "level", "logger", "timestamp"}
    assert "secret" not in stream.getvalue()


def test_an_exception_is_written_as_class_and_places_without_its_message(stream: io.StringIO) -> None:
    def fails() -> None:
        raise ValueError("secret")

    for log in (logging.getLogger("a"), structlog.get_logger("b")):
        try:
            fails()
        except ValueError:
            log.exception("failed")
    for line in _lines(stream):
        assert line["error"] == "ValueError"
        assert any(str(place).endswith(" fails") for place in line["where"])  # type: ignore[attr-defined]
    assert len(_lines(stream)) == 2
    assert "secret" not in stream.getvalue()


def test_a_line_cannot_be_forged(stream: io.StringIO) -> None:
    logging.getLogger("a").warning('x\r\n{"event": "forged"}\x1b[31m', extra={"reason": "a\nb"})
    (line,) = _lines(stream)
    assert line["reason"] == "a\nb"
    assert "\x1b" not in stream.getvalue()


def test_long_values_are_cut_and_debug_is_left_out(stream: io.StringIO) -> None:
    logging.getLogger("services.a").debug("nothing")
    logging.getLogger("services.a").info("x", extra={"reason": "y" * 10_000})
    (line,) = _lines(stream)
    assert len(str(line["reason"])) == 500


def test_of_a_failed_start_the_end_is_kept(stream: io.StringIO) -> None:
    logging.getLogger("uvicorn.error").error("Traceback (most recent call last):\n" + "x" * 600 + "\nValueError: why")
    (line,) = _lines(stream)
    assert str(line["event"]).endswith("ValueError: why")


def test_at_debug_the_libraries_stay_quiet_and_our_rooms_speak() -> None:
    written = io.StringIO()
    web_logging.configure("debug", written)
    try:
        logging.getLogger("aiosqlite").debug("executing SELECT with +14155552671")
        logging.getLogger("twilio.http_client").info("+14155552671")
        logging.getLogger("services.messages").debug("ours")
    finally:
        web_logging.configure("info", io.StringIO())
    assert [json.loads(line)["event"] for line in written.getvalue().splitlines()] == ["ours"]


def test_every_field_that_our_code_logs_is_one_that_is_written() -> None:
    root = Path(__file__).resolve().parents[2]
    lost = []
    for room in ("web", "resolvers", "schema", "services", "models", "integrations"):
        for path in sorted((root / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                for name in _logged(node):
                    if name not in web_logging.FIELDS:
                        lost.append(f"{path.relative_to(root)}:{node.lineno} {name}")  # type: ignore[attr-defined]
    assert lost == []


def _logged(node: ast.AST) -> list[str]:
    """The names of the fields that a call of `log.…` gives."""
    if not (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "log"
    ):
        return []
    names = [k.arg for k in node.keywords if k.arg not in (None, "exc_info", "extra")]
    for keyword in node.keywords:
        if keyword.arg == "extra" and isinstance(keyword.value, ast.Dict):
            names += [str(key.value) for key in keyword.value.keys if isinstance(key, ast.Constant)]
    return [name for name in names if name]


def test_at_debug_the_servers_frames_and_headers_are_not_written(stream: io.StringIO) -> None:
    web_logging.configure("debug", stream)
    logging.getLogger("uvicorn.error").debug('< TEXT \'{"type": "connection_init", "payload": {"Authorization": ...')
    logging.getLogger("services.x").debug("ours")
    assert [line["event"] for line in _lines(stream)] == ["ours"]
    web_logging.configure("error", stream)
    logging.getLogger("uvicorn.error").info("started")
    assert [line["event"] for line in _lines(stream)] == ["ours"]
