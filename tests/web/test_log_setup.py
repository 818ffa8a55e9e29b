"""The log: one JSON object a line, listed fields only."""

from __future__ import annotations

import ast
import asyncio
import gc
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from resolvers.transport.server import Server, listen, server_config
from settings import Settings
from web import log_setup, middleware


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    written = io.StringIO()
    log_setup.configure("info", written)
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
    log_setup.configure("debug", written)
    try:
        logging.getLogger("aiosqlite").debug("executing SELECT with +14155552671")
        logging.getLogger("twilio.http_client").info("+14155552671")
        logging.getLogger("services.messaging.messages").debug("ours")
    finally:
        log_setup.configure("info", io.StringIO())
    assert [json.loads(line)["event"] for line in written.getvalue().splitlines()] == ["ours"]


def test_every_field_that_our_code_logs_is_one_that_is_written() -> None:
    root = Path(__file__).resolve().parents[2]
    lost = []
    for room in ("web", "resolvers", "schema", "services", "models", "integrations"):
        for path in sorted((root / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                for name in _logged(node):
                    if name not in log_setup.FIELDS:
                        lost.append(f"{path.relative_to(root)}:{node.lineno} {name}")  # type: ignore[attr-defined]
    assert lost == []


def _logged(node: ast.AST) -> list[str]:
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
    log_setup.configure("debug", stream)
    logging.getLogger("uvicorn.error").debug('< TEXT \'{"type": "connection_init", "payload": {"Authorization": ...')
    logging.getLogger("services.x").debug("ours")
    assert [line["event"] for line in _lines(stream)] == ["ours"]
    log_setup.configure("error", stream)
    logging.getLogger("uvicorn.error").info("started")
    assert [line["event"] for line in _lines(stream)] == ["ours"]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("GET /p/secret/live HTTP/1.1", "GET /p/…/live HTTP/1.1"),
        ("/unsubscribe/secret or /attachments/secret?signature=secret", "/unsubscribe/… or /attachments/…?…"),
        ("/graphql?access_token=secret&x=1 is odd", "/graphql?… is odd"),
        ("header Authorization: Bearer secret", "header Authorization: Bearer …"),
        ("no redis at redis://user:secret@host:6379/0", "no redis at redis://…@host:6379/0"),
        ("key ptk_secret and eyJhbGciOi.secret.secret", "key … and …"),
        ("Is it so? Yes: a/p and 2 = 2", "Is it so? Yes: a/p and 2 = 2"),
    ],
)
def test_texts_of_libraries_lose_their_secrets(stream: io.StringIO, text: str, written: str) -> None:
    logging.getLogger("some.library").warning("%s", text)
    logging.getLogger("some.library").warning("x", extra={"reason": text})
    event, reason = _lines(stream)
    assert (event["event"], reason["reason"]) == (written, written)


async def test_exceptions_that_nobody_retrieves_are_written_without_their_message(stream: io.StringIO) -> None:
    async def fails() -> None:
        raise ValueError("secret")

    def breaks(argument: str) -> None:
        raise ValueError(argument)

    task = asyncio.create_task(fails())
    await asyncio.wait({task})
    del task
    gc.collect()
    asyncio.get_running_loop().call_soon(breaks, "secret")
    await asyncio.sleep(0.01)
    assert [(line["error"], line["logger"]) for line in _lines(stream)] == [("ValueError", "asyncio")] * 2
    assert "secret" not in stream.getvalue()


async def test_no_line_of_a_socket_or_a_request_has_its_path_query_or_address(stream: io.StringIO) -> None:
    async def accepted(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close()

    async def refused(socket: WebSocket) -> None:
        await socket.close()

    async def broken(socket: WebSocket) -> None:
        raise ValueError("secret")

    async def page(request: Request) -> Response:
        return Response(request.path_params["token"])

    app = Starlette(
        routes=[
            WebSocketRoute("/graphql", accepted),
            WebSocketRoute("/refused/{token}", refused),
            WebSocketRoute("/broken/{token}", broken),
            Route("/p/{token}", page),
        ],
        middleware=middleware.stack(Settings()),
    )
    listener = listen("127.0.0.1", 0)
    at = f"127.0.0.1:{listener.getsockname()[1]}"
    server = Server(server_config(app, lifespan="off", log_config=None))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with connect(f"ws://{at}/graphql?access_token=secret"):
            pass
        for path in ("/refused/secret?a=secret", "/broken/secret", "/p/secret", "/unsubscribe/secret"):
            with pytest.raises(InvalidStatus):
                await connect(f"ws://{at}{path}")
        async with httpx2.AsyncClient(base_url=f"http://{at}") as client:
            assert (await client.get("/p/secret?a=secret")).text == "secret"
            await client.post("/unsubscribe/secret")
        reader, writer = await asyncio.open_connection(*at.split(":"))
        writer.write(b"GET /p/secret HTTP/1.1\r\nsecret\r\n\r\n")
        await reader.read()
        writer.close()
    finally:
        server.should_exit = True
        await serving
    text = stream.getvalue()
    assert "secret" not in text
    assert at.split(":")[0] not in text
    sockets = [(line["route"], line["status"]) for line in _lines(stream) if line["event"] == "socket"]
    assert sockets == [("/graphql", 101), ("/refused/{token}", 403), ("(none)", 403), ("(none)", 403)]
