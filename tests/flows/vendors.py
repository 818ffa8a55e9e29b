"""All fake vendors together, and a team that is connected to all of them through the API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.contracts import (
    meta_server,
    paypal_server,
    smtp_server,
    square_server,
    stripe_contract,
    stripe_server,
    twilio_server,
)
from tests.contracts.meta_server import MetaServer
from tests.contracts.paypal_server import PayPalServer
from tests.contracts.smtp_server import MailServer
from tests.contracts.square_server import SquareServer
from tests.contracts.stripe_server import StripeServer
from tests.contracts.twilio_server import TwilioServer
from tests.flows import documents as d
from tests.flows.conftest import Team
from tests.flows.harness import Product

MAIL_FROM = "pay@acme.test"
MAIL_SECRET = "inbound-secret-of-the-mail-service"

CREDENTIALS: Mapping[str, Mapping[str, str]] = {
    "STRIPE": {"secret_key": stripe_server.SECRET_KEY, "webhook_secret": stripe_server.WEBHOOK_SECRET},
    "PAYPAL": {
        "client_id": paypal_server.CLIENT_ID,
        "client_secret": paypal_server.CLIENT_SECRET,
        "webhook_id": paypal_server.WEBHOOK_ID,
    },
    "SQUARE": {
        "access_token": square_server.ACCESS_TOKEN,
        "location_id": square_server.LOCATION_ID,
        "webhook_signature_key": square_server.SIGNATURE_KEY,
    },
    "SMS": {
        "account_sid": twilio_server.ACCOUNT_SID,
        "auth_token": twilio_server.AUTH_TOKEN,
        "from_number": twilio_server.FROM_NUMBER,
    },
    "EMAIL": {
        "host": "127.0.0.1",
        "security": "none",
        "from_address": MAIL_FROM,
        "username": smtp_server.USERNAME,
        "password": smtp_server.PASSWORD,
        "inbound_secret": MAIL_SECRET,
    },
    "MESSENGER": {
        "account_id": meta_server.PAGE_ID,
        "access_token": meta_server.ACCESS_TOKEN,
        "app_secret": meta_server.APP_SECRET,
        "verify_token": meta_server.VERIFY_TOKEN,
    },
}
PROVIDERS = {"SMS": ("twilio_sms", twilio_server.FROM_NUMBER), "EMAIL": ("smtp_email", MAIL_FROM)}


@dataclass
class Vendors:
    """The fake vendors and their addresses."""

    stripe: StripeServer
    paypal: PayPalServer
    square: SquareServer
    twilio: TwilioServer
    meta: MetaServer
    mail: MailServer

    @property
    def addresses(self) -> dict[str, str]:
        """The settings that replace the vendors' addresses by theirs."""
        named = {"STRIPE": self.stripe, "PAYPAL": self.paypal, "SQUARE": self.square}
        named |= {"TWILIO": self.twilio, "META": self.meta}
        return {f"{name}_API_BASE": server.url for name, server in named.items()}

    def credentials(self, kind: str) -> list[dict[str, str]]:
        """As the API's input."""
        more = {"port": str(self.mail.port)} if kind == "EMAIL" else {}
        return [{"name": name, "value": value} for name, value in ({**CREDENTIALS[kind]} | more).items()]


@asynccontextmanager
async def all_vendors() -> AsyncIterator[Vendors]:
    """Start them all."""
    async with (
        StripeServer(stripe_contract.contracts()[0]) as stripe,
        PayPalServer(paypal_server.contracts()[0]) as paypal,
        SquareServer(square_server.contracts()[0]) as square,
        TwilioServer(twilio_server.contracts()[0]) as twilio,
        MetaServer(meta_server.contracts()[0]) as meta,
        MailServer() as mail,
    ):
        yield Vendors(stripe, paypal, square, twilio, meta, mail)


async def connect_processor(team: Team, vendors: Vendors, kind: str) -> dict[str, Any]:
    """Call configureProcessor; return the connection."""
    values = {each["name"]: each["value"] for each in vendors.credentials(kind)}
    given = {"testMode": True, "credentials": d.keys_of(kind, values)}
    payload = await team.product.ok(d.CONFIGURE_PROCESSOR, given, token=team.owner)
    processor: dict[str, Any] = payload["processor"]
    return processor


async def connect_channel(team: Team, vendors: Vendors, kind: str) -> str:
    """Call connectChannel; return the channel's id."""
    provider, sender = PROVIDERS.get(kind, ("meta_messenger", "acmecleaning"))
    given = {"kind": kind, "provider": provider, "displayName": f"Our {kind}", "sender": sender}
    payload = await team.product.ok(
        d.CONNECT_CHANNEL, {**given, "credentials": vendors.credentials(kind)}, token=team.owner
    )
    team.channels[kind] = payload["channel"]["id"]
    return team.channels[kind]


async def press_pay(product: Product, checkout_url: str) -> str:
    """The contact presses Pay; return the page's URL."""
    async with httpx2.AsyncClient() as contact:
        answer = await contact.post(checkout_url + "/pay", headers={"Origin": product.base_url})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


async def post(url: str, body: bytes, headers: Mapping[str, str]) -> httpx2.Response:
    """A vendor posts a webhook."""
    async with httpx2.AsyncClient() as vendor:
        return await vendor.post(url, content=body, headers=dict(headers))
