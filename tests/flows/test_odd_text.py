"""NUL and lone surrogates in all input: no endpoint answers 5xx, on either engine."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from email.message import EmailMessage
from email.policy import SMTP as WIRE
from typing import Any
from urllib.parse import parse_qsl, urlencode

import httpx2
import pytest

from models.tables import Message, ProcessorEvent
from tests.contracts import meta_server, twilio_server
from tests.contracts.meta_server import PAGE_ID
from tests.flows import harness
from tests.flows.conftest import Team
from tests.flows.harness import Product
from tests.flows.test_channels import MARIA_AT_META, MARIA_PHONE, signed_mail
from tests.flows.test_vendor_examples import Vendor, connect
from tests.flows.vendors import MAIL_FROM, MAIL_SECRET, Vendors, all_vendors, connect_channel, press_pay

pytestmark = pytest.mark.slow

ODD = "\x00\ud800"


@pytest.fixture
async def vendors() -> AsyncIterator[Vendors]:
    async with all_vendors() as running:
        yield running


@pytest.fixture
async def product(database: str, events_url: str, vendors: Vendors) -> AsyncIterator[Product]:
    async with harness.in_process(database, events_url, RUN_JOBS="false", **vendors.addresses) as running:
        yield running


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of a JSON document's texts."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, dict | list):
        for key, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(below, (*path, key))


def odd(value: Any, path: tuple[Any, ...]) -> Any:
    """The document with the odd text at `path`."""
    made = copy.deepcopy(value)
    inside = made
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] += ODD
    return made


async def send(url: str, body: bytes, headers: Mapping[str, str]) -> int:
    async with httpx2.AsyncClient() as vendor:
        return (await vendor.post(url, content=body, headers=dict(headers))).status_code


async def paid(vendor: Vendor, n: int) -> dict[str, Any]:
    """The vendor's event of a payment that is not recorded yet."""
    team = vendor.team
    contact = await team.contact(f"Payer {n}", n=n)
    request = await team.request(contact, amount={"amount": "25.00"}, processorId=team.processor["id"])
    checkout = vendor.opened(await press_pay(team.product, request["checkoutUrl"]))
    vendor.settle(checkout)
    return vendor.paid(checkout)


async def test_no_text_in_a_processors_event_is_a_server_error(bare: Team, vendors: Vendors) -> None:
    wrong: list[tuple[str, int]] = []
    for n, server in enumerate((vendors.stripe, vendors.paypal, vendors.square)):
        vendor = await connect(bare, server)
        event = await paid(vendor, n)
        kinds = set(leaves(event))
        for path in sorted(kinds, key=str):
            status = await vendor.post(odd(event, path))
            if status >= 500:
                wrong.append((f"{type(server).__name__} {path}", status))
        everything = event
        for path in kinds:
            everything = odd(everything, path)
        assert await vendor.post(everything) < 500
        # Stored once, under an id of its own: the genuine event still counts.
        name = "event_id" if "event_id" in event else "id"
        other = {**event, name: event[name] + "\x00"}
        assert [await vendor.post(one) for one in (other, other, event)] == [200, 200, 200]
        ids = [row.external_id for row in await ProcessorEvent.filter(external_id__startswith=event[name])]
        assert sorted(id for id in ids)[:2] == [event[name], event[name] + "\ufffd"]
    assert wrong == []


async def test_no_text_in_a_channels_callback_is_a_server_error(bare: Team, vendors: Vendors) -> None:
    for kind in ("SMS", "MESSENGER", "EMAIL"):
        await connect_channel(bare, vendors, kind)
    base = bare.product.base_url
    at = {
        kind: f"{base}/inbound/{provider}/{bare.channels[kind]}"
        for kind, provider in (("SMS", "twilio_sms"), ("MESSENGER", "meta_messenger"), ("EMAIL", "smtp_email"))
    }
    wrong: list[tuple[object, object]] = []

    form = dict(parse_qsl(vendors.twilio.inbound(at["SMS"], sender=MARIA_PHONE, body="Hello")[0].decode()))
    for name in form:
        values = form | {name: form[name] + "\x00"}
        signature = twilio_server.signature(at["SMS"], values, secret=twilio_server.AUTH_TOKEN)
        headers = {"content-type": "application/x-www-form-urlencoded", "x-twilio-signature": signature}
        for body in (urlencode(values), urlencode(values).replace("%00", "%ED%A0%80")):
            status = await send(at["SMS"], body.encode(), headers)
            if status >= 500:
                wrong.append((f"SMS {name}", status))

    place = {"Body": "", "Latitude": "52.5", "Longitude": "13.4", "Address": "Mill Lane 12", "Label": "Bakery"}
    more = {"ButtonText": "Yes", "ProfileName": "Maria", "OriginalRepliedMessageSid": form["MessageSid"]}
    for n, name in enumerate([*place, *more]):
        values = form | place | more | {"MessageSid": f"SM{n:032x}"}
        values[name] += "\x00"
        signature = twilio_server.signature(at["SMS"], values, secret=twilio_server.AUTH_TOKEN)
        headers = {"content-type": "application/x-www-form-urlencoded", "x-twilio-signature": signature}
        status = await send(at["SMS"], urlencode(values).replace("%00", "%ED%A0%80%00").encode(), headers)
        if status >= 500:
            wrong.append((f"SMS {name}", status))

    payload = json.loads(vendors.meta.inbound(PAGE_ID, MARIA_AT_META, "Hello")[0])
    mid = payload["entry"][0]["messaging"][0]["message"]["mid"]
    people = {key: payload["entry"][0]["messaging"][0][key] for key in ("sender", "recipient", "timestamp")}
    story = {"story": {"url": "https://www.instagram.com/s/1", "id": "1"}}
    post = {"type": "share", "title": "Ovens", "payload": {"url": "https://www.instagram.com/p/1", "title": "Ovens"}}
    photo = {"type": "image", "payload": {"url": "https://127.0.0.1:1/photo.jpg"}}
    kinds: list[dict[str, Any]] = [
        {"message_edit": {"mid": mid, "text": "Hello again"}},
        {"reaction": {"mid": mid, "action": "react", "reaction": "love", "emoji": "❤"}},
        {"message": {"mid": "m_story", "text": "Hi", "reply_to": story, "attachments": [post, photo]}},
        {"message": {"mid": "m_echo", "text": "At nine", "is_echo": True, "reply_to": {"mid": mid}}},
        {"message": {"mid": mid, "text": "an id that a message of theirs has", "is_echo": True}},
        {"message": {"mid": mid, "is_deleted": "true"}},
    ]
    for n, told in enumerate([{}, *kinds]):
        event = people | told if told else payload["entry"][0]["messaging"][0]
        if told.get("message", {}).get("is_echo"):
            event = event | {"sender": people["recipient"], "recipient": people["sender"]}
        shaped = {**payload, "entry": [{**payload["entry"][0], "messaging": [event]}]}
        for m, path in enumerate(leaves(shaped)):
            beside = people | {"message": {"mid": f"m_beside_{n}_{m}", "text": "I stand beside it"}}
            made = odd(shaped, path)
            made["entry"].append({"id": PAGE_ID, "messaging": [beside]})
            status = await send(at["MESSENGER"], *meta_server.signed(made))
            if status >= 500:
                wrong.append((path, status))
            if status == 200 and not await Message.exists(external_id=f"m_beside_{n}_{m}"):
                wrong.append(("lost beside", path))
    assert await Message.filter(body="I stand beside it").count() >= 30

    letter = EmailMessage(policy=WIRE)
    letter["From"], letter["To"], letter["Subject"] = '"Maria" <maria@example.com>', MAIL_FROM, "Hello"
    letter["Message-ID"] = "<one@mail.example.com>"
    letter["In-Reply-To"] = "<two@mail.example.com>"
    letter.set_content("Hello again")
    raw = letter.as_bytes()
    for word in (b"Maria", b"maria@", b"Subject: Hello", b"one@mail", b"two@mail", b"Hello again"):
        for bytes_ in (b"\x00", b"\xed\xa0\x80", b"=?utf-16?b?2AA=?=", b"=?utf-8?q?=00=ED=A0=80?="):
            status = await send(at["EMAIL"], *signed_mail(raw.replace(word, word + bytes_), secret=MAIL_SECRET))
            if status != 200:
                wrong.append((word + bytes_, status))
    assert wrong == []
    assert await Message.filter(kind="EMAIL").count() >= 10
    assert all("\x00" not in message.body for message in await Message.all())


ODD_PARTS = ("%00", "%ED%A0%80", "a%00b", "%FF", "%F0%9F", "%EF%BF%BE")


async def test_no_path_query_or_form_is_a_server_error(bare: Team, vendors: Vendors) -> None:
    await connect(bare, vendors.stripe)
    wrong: list[tuple[str, int]] = []
    places = ("/p/{}", "/p/{}/return", "/p/{}/live", "/unsubscribe/{}", "/attachments/{}", "/attachments/att_1?signature={}",
              "/widget/{}", "/widget/{}/sites.js", "/webhooks/{}/prc_1", "/webhooks/stripe/{}", "/inbound/{}/chn_1",
              "/inbound/twilio_sms/{}?m={}", "/sandbox/pay/{}", "/sandbox/v1/checkouts/{}", "/static/{}", "/{}", "/demo/phone?as={}",
              "/graphql?query={}", "/graphql?query=%7B__typename%7D&operationName={}")  # fmt: skip
    async with httpx2.AsyncClient(base_url=bare.product.base_url) as anybody:
        for place in places:
            for part in ODD_PARTS:
                path = place.replace("{}", part)
                for method in ("GET", "POST"):
                    answer = await anybody.request(method, path, headers={"Origin": bare.product.base_url})
                    if answer.status_code >= 500:
                        wrong.append((f"{method} {path}", answer.status_code))
        request = await bare.request(await bare.contact(), processorId=bare.processor["id"])
        token = request["checkoutUrl"].rsplit("/", 1)[1]
        for part in ODD_PARTS:
            for path in (f"/p/{token}/pay", f"/p/{token}/view", f"/p/{token}/return?session_id={part}"):
                form = {"content-type": "application/x-www-form-urlencoded", "Origin": bare.product.base_url}
                for method in ("GET", "POST"):
                    body = f"a={part}&{part}=b".encode()
                    answer = await anybody.request(method, path, content=body, headers=form)
                    if answer.status_code >= 500:
                        wrong.append((f"{method} {path}", answer.status_code))
        for header in (
            "authorization",
            "accept",
            "accept-language",
            "user-agent",
            "origin",
            "x-forwarded-for",
            "cookie",
        ):
            for value in (b"Bearer \xed\xa0\x80", b"\xff\xfe", b"Basic \xc3"):
                for path in ("/graphql", f"/p/{token}", "/unsubscribe/x", "/widget/graphql"):
                    answer = await anybody.request("POST", path, content=b'{"query": "{ __typename }"}',
                                                   headers=[(b"content-type", b"application/json"), (header.encode(), value)])  # fmt: skip
                    if answer.status_code >= 500:
                        wrong.append((f"{path} {header}", answer.status_code))
    assert wrong == []
