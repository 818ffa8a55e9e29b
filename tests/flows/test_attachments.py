"""A contact sends pictures by text message: they are fetched safely, shown live, and served under URLs that expire."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from models.tables import Attachment, Job
from services.messaging import attachments
from tests.contracts.twilio_server import ACCOUNT_SID, AUTH_TOKEN, FROM_NUMBER, TwilioServer, contracts
from tests.flows import documents as d
from tests.flows import harness
from tests.flows.conftest import Team, opened
from tests.flows.harness import Product

MARIA = "+14155552601"  # the number of the team's first contact
PNG = b"\x89PNG\r\n\x1a\n" + bytes(200)
HTML = b"<html><script>alert(document.domain)</script></html>"
FILES = """query($id: ID!) { conversation(id: $id) { thread(last: 20) { nodes { __typename ... on Message { body
  attachments { id name contentType sizeBytes status reason url } } } } } }"""


@pytest.fixture
async def twilio() -> AsyncIterator[TwilioServer]:
    async with TwilioServer(contracts()[0]) as server:
        yield server
        assert server.violations == []


@pytest.fixture
async def product(database: str, events_url: str, twilio: TwilioServer) -> AsyncIterator[Product]:
    """The server, connected to a fake Twilio."""
    async with harness.in_process(database, events_url, TWILIO_API_BASE=twilio.url) as running:
        yield running


@pytest.fixture
async def texting(bare: Team) -> Team:
    """A team with one channel: SMS by Twilio."""
    credentials = {"account_sid": ACCOUNT_SID, "auth_token": AUTH_TOKEN, "from_number": FROM_NUMBER}
    payload = await bare.product.ok(
        d.CONNECT_CHANNEL,
        {
            "kind": "SMS",
            "provider": "twilio_sms",
            "sender": FROM_NUMBER,
            "credentials": [{"name": name, "value": value} for name, value in credentials.items()],
        },
        token=bare.owner,
    )
    bare.channels["SMS"] = payload["channel"]["id"]
    return bare


async def arrives(team: Team, twilio: TwilioServer, *files: tuple[str, bytes]) -> None:
    """Maria sends a message with these files, and Twilio delivers it twice."""
    url = f"{team.product.base_url}/inbound/twilio_sms/{team.channels['SMS']}"
    body, headers = twilio.mms(url, sender=MARIA, files=files)
    async with httpx2.AsyncClient() as vendor:
        for _ in range(2):
            assert (await vendor.post(url, content=body, headers=headers)).status_code == 200


async def files_of(team: Team, contact: dict[str, Any]) -> list[dict[str, Any]]:
    """The files of the thread, in order."""
    conversation = await team.product.one(FILES, {"id": contact["conversation"]["id"]})
    return [file for item in conversation["thread"]["nodes"] for file in item.get("attachments", [])]


async def until_decided(team: Team, contact: dict[str, Any]) -> list[dict[str, Any]]:
    """The files, once none is PENDING."""
    async with asyncio.timeout(15):
        while True:
            files = await files_of(team, contact)
            if "PENDING" not in [file["status"] for file in files]:
                return files
            await asyncio.sleep(0.05)


async def test_a_picture_is_fetched_safely_and_shown_for_a_while(texting: Team, twilio: TwilioServer) -> None:
    maria = await texting.contact()
    async with texting.product.subscribe(d.CONVERSATION_EVENTS, {"id": maria["conversation"]["id"]}) as feed:
        await opened(feed)
        await arrives(texting, twilio, ("image/jpeg", PNG), ("text/html", HTML))
        await feed.until("ThreadItemAdded", edge__node__body="[2 attachments]")
        await feed.until("MessageUpdated", message__deliveryStatus="DELIVERED")
    picture, page = await until_decided(texting, maria)
    assert (picture["status"], picture["contentType"], picture["sizeBytes"]) == ("STORED", "image/png", len(PNG))
    assert (page["status"], page["contentType"], page["sizeBytes"]) == ("STORED", "text/plain", len(HTML))
    assert [file["name"] for file in (picture, page)] == ["attachment-1", "attachment-2"]

    # Twilio was asked once for each, with its own credentials; its storage never saw them.
    basic = httpx2.BasicAuth(ACCOUNT_SID, AUTH_TOKEN)._auth_header
    asked = sorted((path.split("/")[1], given) for path, given in twilio.media_asked)
    assert asked == [("2010-04-01", basic)] * 2 + [("storage", "")] * 2

    async with httpx2.AsyncClient() as browser:
        shown = await browser.get(picture["url"])
        assert (shown.status_code, shown.content) == (200, PNG)
        assert shown.headers["content-type"] == "image/png"
        assert shown.headers["content-disposition"].startswith("inline;")
        loaded = await browser.get(page["url"])
        assert (loaded.status_code, loaded.content) == (200, HTML)
        assert loaded.headers["content-type"] == "text/plain; charset=utf-8"
        assert loaded.headers["content-disposition"].startswith("attachment;")
        for answer in (shown, loaded):
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["content-security-policy"].startswith("sandbox;")
            assert answer.headers["cache-control"] == "private, no-store"

        # Only the complete URL works, and it expires.
        url = urlsplit(picture["url"])
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        base = f"{url.scheme}://{url.netloc}/attachments/"
        other = page["url"].rpartition("/")[2].partition("?")[0]
        forged = [
            f"{base}{picture['id']}",
            f"{base}{picture['id']}?e={query['e']}",
            f"{base}{picture['id']}?e={query['e']}&s=",
            f"{base}{picture['id']}?e={int(query['e']) + 1}&s={query['s']}",
            f"{base}{picture['id']}?e=9999999999999&s={query['s']}",
            f"{base}{picture['id']}?e=٣&s={query['s']}",
            f"{base}{picture['id']}?e={query['e']}&s={query['s'][::-1]}",
            f"{base}{picture['id']}?e={query['e']}&s=ü",
            f"{base}{other}?e={query['e']}&s={query['s']}",
            f"{base}{texting.channels['SMS']}?e={query['e']}&s={query['s']}",
            f"{base}..%2f..%2fetc%2fpasswd?e={query['e']}&s={query['s']}",
        ]
        row = await Attachment.get(name="attachment-1")
        past = attachments.url_of(row, now=row.created_at.replace(year=2025))
        assert past is not None
        assert [(await browser.get(one)).status_code for one in [*forged, past]] == [404] * 12
    assert row.source_url is None


async def test_what_the_storage_cant_give_yet_is_asked_for_again(texting: Team, twilio: TwilioServer) -> None:
    maria = await texting.contact()
    twilio.media_failures = [503, 404]
    await arrives(texting, twilio, ("image/png", PNG))
    (file,) = await until_decided(texting, maria)
    assert (file["status"], file["reason"], twilio.media_failures) == ("STORED", None, [])
    assert [path.split("/")[1] for path, _ in twilio.media_asked].count("storage") == 3


async def test_what_is_not_allowed_is_said_and_not_kept(
    texting: Team, twilio: TwilioServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    maria = await texting.contact()
    monkeypatch.setattr(attachments, "SIZE_LIMIT", 1000)
    await arrives(
        texting, twilio, ("image/png", PNG + bytes(1000)), ("image/png", b"MZ\x90\x00" + bytes(60)), ("image/png", b"")
    )
    files = await until_decided(texting, maria)
    assert [(file["status"], file["reason"], file["url"]) for file in files] == [
        ("REFUSED", "TOO_LARGE", None),
        ("REFUSED", "TYPE_NOT_ALLOWED", None),
        ("REFUSED", "EMPTY", None),
    ]
    assert await Attachment.filter(content__isnull=False).count() == 0


async def test_an_address_of_our_own_network_is_never_asked(texting: Team, twilio: TwilioServer) -> None:
    maria = await texting.contact()
    asked: list[Any] = []

    async def trap(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.close()

    async with await asyncio.start_server(trap, "127.0.0.1", 0, family=socket.AF_INET) as listening:
        port = listening.sockets[0].getsockname()[1]
        url = f"{texting.product.base_url}/inbound/twilio_sms/{texting.channels['SMS']}"
        addresses = (
            f"http://127.0.0.1:{port}/",
            f"https://127.0.0.1:{port}/",
            "https://127.0.0.1/",
            "file:///etc/passwd",
        )
        more = {f"MediaUrl{n}": address for n, address in enumerate(addresses)}
        types = {f"MediaContentType{n}": "image/png" for n in range(len(addresses))}
        body, headers = twilio.inbound(url, sender=MARIA, body="", NumMedia=str(len(addresses)), **more, **types)
        async with httpx2.AsyncClient() as vendor:
            assert (await vendor.post(url, content=body, headers=headers)).status_code == 200
        files = await until_decided(texting, maria)
    reasons = [(file["status"], file["reason"]) for file in files]
    assert reasons == [
        *[("REFUSED", "NOT_PUBLIC")] * 4,
    ]
    assert asked == []
    assert await Job.filter(kind="attachment.fetch", status="done").count() == 4
