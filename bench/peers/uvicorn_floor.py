"""The floor of a Python server: uvicorn with an ASGI function that answers constant bytes or sends one text to all sockets."""

from __future__ import annotations

import os
from typing import Any

import uvicorn

ANSWER = b'{"data":{"conversation":null}}'
CARD = (
    '{"id":"1","type":"next","payload":{"data":{"cardAdded":{"id":"1","kind":"PAYMENT_PROCESSING","status":"PROCESSING",'
    '"title":"bench-card","amountMinor":12500,"currency":"USD","at":"2026-01-01T00:00:00+00:00"}}}}'
)
sockets: set[Any] = set()


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await _socket(receive, send)
    elif scope["type"] == "http":
        if scope["path"] == "/trigger":
            for one in list(sockets):
                await one({"type": "websocket.send", "text": CARD})
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": ANSWER})
    else:
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})


async def _socket(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept", "subprotocol": "graphql-transport-ws"})
    while (message := await receive())["type"] == "websocket.receive":
        text = message["text"]
        if "connection_init" in text:
            await send({"type": "websocket.send", "text": '{"type":"connection_ack"}'})
        elif '"ping"' in text:
            await send({"type": "websocket.send", "text": '{"type":"pong"}'})
        else:
            sockets.add(send)
    sockets.discard(send)


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        log_level="warning",
        access_log=False,
        ws_per_message_deflate=False,
    )
