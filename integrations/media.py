"""Downloads files from untrusted URLs: https and public hosts only, limited in size and time."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from integrations import addresses, http_clients
from integrations.addresses import AddressRefused
from integrations.base import IntegrationError

if TYPE_CHECKING:
    import httpx2

NAME: Final = "media"
REDIRECTS: Final = 3
_MOVED: Final = frozenset({301, 302, 303, 307, 308})
_RETRYABLE: Final = frozenset({404, 408, 425, 429})  # 404: some vendors call before the file is stored


async def fetch(
    url: str,
    *,
    headers: Callable[[str], Mapping[str, str]],
    limit_bytes: int,
    timeout_s: float = 15.0,
    trusted: frozenset[str] = frozenset(),
    context: ssl.SSLContext | None = None,
) -> bytes:
    """Download a file. Follows and checks up to three redirects.

    `headers`: for a URL, used on the first origin only; `trusted`: origins of local fake vendors.
    Raises: IntegrationError, which never contains the URL.
    """
    await asyncio.to_thread(http_clients.load_httpx2)  # 2 MB that not every process needs
    import httpx2

    try:
        async with asyncio.timeout(timeout_s):
            return await _follow_redirects(url, headers, limit_bytes, trusted, context)
    except (TimeoutError, httpx2.TimeoutException) as error:
        raise IntegrationError(NAME, "timeout", retryable=True) from error
    except httpx2.InvalidURL as error:
        raise IntegrationError(NAME, "bad_address") from error
    except (httpx2.HTTPError, ssl.SSLError) as error:
        raise IntegrationError(NAME, "connection", type(error).__name__, retryable=True) from error


def origin(url: str) -> str:
    """Raises: httpx2.InvalidURL."""
    import httpx2  # as in `fetch`

    return _origin(httpx2.URL(url))


async def _follow_redirects(
    url: str,
    headers: Callable[[str], Mapping[str, str]],
    limit_bytes: int,
    trusted: frozenset[str],
    context: ssl.SSLContext | None,
) -> bytes:
    import httpx2  # as in `fetch`

    here = httpx2.URL(url)
    first, left = _origin(here), False
    for _ in range(REDIRECTS + 1):
        address = await _resolve(here, trusted)  # connect to this IP; TLS verifies the name
        left = left or _origin(here) != first
        given = {} if left else headers(str(here))
        # One client per address: no shared pool or cookies.
        async with (
            httpx2.AsyncClient(trust_env=False, timeout=None, verify=context or True) as client,
            client.stream(
                "GET",
                here.copy_with(host=address),
                headers={"accept": "*/*", **given, "host": here.netloc.decode(), "accept-encoding": "identity"},
                extensions={"sni_hostname": here.raw_host.decode()},
            ) as answer,
        ):
            if answer.status_code not in _MOVED:
                return await _body(answer, limit_bytes)
            target = answer.headers.get("location", "")
        if not target:
            break
        here = here.join(target)
    raise IntegrationError(NAME, "too_many_redirects")


async def _resolve(url: httpx2.URL, trusted: frozenset[str]) -> str:
    host = url.raw_host.decode()
    if url.scheme not in ("http", "https") or not host or url.userinfo:
        raise IntegrationError(NAME, "bad_address")
    is_fake = _origin(url) in trusted
    if not is_fake and url.scheme != "https":
        raise IntegrationError(NAME, "not_https")
    if not is_fake and url.port not in (None, 443):
        raise IntegrationError(NAME, "bad_port")
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        found = await (addresses.look_up(host, port) if is_fake else addresses.look_up_public(host, port))
    except AddressRefused as error:
        raise IntegrationError(NAME, error.reason, retryable=error.reason == "unknown_host") from error
    first = str(found[0][4][0])
    if is_fake and not all(ipaddress.ip_address(str(info[4][0])).is_loopback for info in found):
        raise IntegrationError(NAME, "not_public")
    return first


def _origin(url: httpx2.URL) -> str:
    return f"{url.scheme}://{url.raw_host.decode()}:{url.port or (443 if url.scheme == 'https' else 80)}"


async def _body(answer: httpx2.Response, limit_bytes: int) -> bytes:
    status = answer.status_code
    if status != 200:
        raise IntegrationError(NAME, "refused", f"HTTP {status}", retryable=status >= 500 or status in _RETRYABLE)
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise IntegrationError(NAME, "encoded")  # the decoded size would be unbounded
    announced = answer.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit_bytes:
        raise IntegrationError(NAME, "too_large")
    body = bytearray()
    async for chunk in answer.aiter_raw():
        body += chunk
        if len(body) > limit_bytes:
            raise IntegrationError(NAME, "too_large")
    return bytes(body)
