"""Request bodies, read whole within a size and a time."""

import asyncio
from collections.abc import Callable, Set
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TIMEOUT_S: Final = 10.0


class BodyRefused(Exception):
    """A body is too large (413) or too slow (408). The rest is unread: close the connection."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


async def read_body(scope: Scope, receive: Receive, *, limit: int, timeout_s: float) -> bytes:
    """`limit` in bytes. Raises: BodyRefused, ClientDisconnect."""
    declared = Headers(scope=scope).get("content-length", "0")
    if declared and (not declared.isdecimal() or int(declared) > limit):
        raise BodyRefused(413)
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > limit:
                    raise BodyRefused(413)
    except TimeoutError as error:
        raise BodyRefused(408) from error
    return bytes(body)


def replayed(body: bytes, receive: Receive) -> Receive:
    returned = False

    async def receive_again() -> Message:
        nonlocal returned
        if returned:
            return await receive()
        returned = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


class BodyLimit:
    """Limits the bodies of all paths but `exempt`."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        limit_of: Callable[[str], int],
        refuse: Callable[[int, Scope], Response],
        exempt: Set[str] = frozenset(),
    ) -> None:
        self._app = app
        self._limit_of = limit_of
        self._refuse = refuse
        self._exempt = exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._exempt:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if headers.get("content-length", "") in ("", "0") and "transfer-encoding" not in headers:
            await self._app(scope, receive, send)
            return
        try:
            body = await read_body(scope, receive, limit=self._limit_of(scope["path"]), timeout_s=TIMEOUT_S)
        except BodyRefused as refused:
            response = self._refuse(refused.status, scope)
            response.headers["connection"] = "close"
            await response(scope, receive, send)
        except ClientDisconnect:
            return
        else:
            await self._app(scope, replayed(body, receive), send)
