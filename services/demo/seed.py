"""Creates the demo account through the services; every step is repeatable."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from integrations.base import ChannelKind, MoneyKind, MoneyOutcome, MoneyStatement, WebhookRequest
from integrations.channels import simulated, web_chat
from models.ids import public_id
from models.tables import (
    Account,
    ApiKey,
    ChannelConnection,
    Contact,
    Conversation,
    PaymentRequest,
    ProcessorConnection,
    User,
)
from models.vault import digest
from services.accounts import accounts, api_keys, users
from services.connections import channel_settings, processor_settings, providers
from services.core.permissions import Actor, system_actor
from services.messaging import contacts, conversations, inbound, messages
from services.payments import checkout_page, payment_requests, recorder, request_sending, voids
from services.thread import payment_links
from settings import Settings

EMAIL: Final = "agent@demo.test"
PASSWORD: Final = "demo-demo-demo"  # noqa: S105 (a demo's, printed in the terminal; never in production)
COLLEAGUE: Final = "lena@demo.test"
BUSINESS: Final = "Acme Cleaning"
KEY_NAME: Final = "Demo"

CHANNELS: Final = {
    "SMS": ("Text messages", "+14155550100"),
    "EMAIL": ("Email", "hello@acme-cleaning.test"),
    "WHATSAPP": ("WhatsApp", "+14155550100"),
    "INSTAGRAM_DM": ("Instagram", "@acme.cleaning"),
    "MESSENGER": ("Messenger", "Acme Cleaning"),
    "WEB_CHAT": ("Website chat", "acme-cleaning.test"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoAccess:
    """How to sign in; `urls` by name: index, graphiql, phone, site."""

    email: str
    password: str
    api_key: str
    account_id: UUID
    urls: dict[str, str] = field(default_factory=dict)


class DemoClosed(RuntimeError):
    """The demo is closed: set DEMO=true outside production."""


async def seed(settings: Settings) -> DemoAccess:
    """Create, complete or find the demo account. Raises: DemoClosed."""
    if not settings.demo_open or not settings.sandbox_open:
        raise DemoClosed(DemoClosed.__doc__)
    user = await User.get_or_none(email=EMAIL)
    account_id = user.account_id if user is not None else (await _account()).id
    api_key = _api_key(settings)
    access = DemoAccess(
        email=EMAIL,
        password=PASSWORD,
        api_key=api_key,
        account_id=account_id,
        urls={
            "index": f"{settings.base_url}/",
            "graphiql": f"{settings.base_url}/graphiql",
            "phone": f"{settings.base_url}/demo/phone",
            "site": f"{settings.base_url}/demo/site",
        },
    )
    actor = await _agent(account_id, EMAIL)
    if await ApiKey.exists(account_id=account_id, token_hash=digest(api_key), revoked_at=None):
        await _connect_widget(actor, settings)  # the URL may have changed
        return access  # the key is created last
    await _connect(actor)
    await _connect_widget(actor, settings)
    for story in STORIES:
        await _play(actor, story)
    await api_keys.create(actor, name=KEY_NAME, role="ADMIN", token=api_key)
    return access


def _api_key(settings: Settings) -> str:
    # Only its hash is stored, so the key is derived.
    raw = hmac.new(settings.keys[-1].encode(), b"paythread demo api key", hashlib.sha256).hexdigest()
    return f"{api_keys.KEY_PREFIX}demo_{raw}"


async def _account() -> Account:
    account, _ = await accounts.create_account(
        name=BUSINESS,
        currency="USD",
        email=EMAIL,
        password=PASSWORD,
        user_name="Sam Rivera",
        time_zone="America/New_York",
    )
    owner = system_actor(account.id)
    await asyncio.gather(
        users.add(owner, email=COLLEAGUE, name="Lena Fischer", role="AGENT", password=PASSWORD),
        accounts.update_account(
            owner, changes={"contact_email": "hello@acme-cleaning.test", "contact_phone": "+14155550100"}
        ),
    )
    return account


async def _agent(account_id: UUID, email: str) -> Actor:
    user = await User.get(email=email, account_id=account_id)
    return Actor(account_id=account_id, role=user.role, user_id=user.id, name=user.name, kind="user", credential="demo")


async def _connect(actor: Actor) -> None:
    if await providers.default_processor(actor.account_id) is None:
        await processor_settings.configure_processor(
            actor, processor="sandbox", display_name="Sandbox (test money)", make_default=True
        )
    connected = {row.kind for row in await ChannelConnection.filter(account_id=actor.account_id)}
    for kind, (name, sender) in CHANNELS.items():
        if kind not in connected:
            await channel_settings.connect_channel(
                actor, kind=kind, provider=simulated.NAME, display_name=name, sender=sender
            )


async def _connect_widget(actor: Actor, settings: Settings) -> None:
    row = await ChannelConnection.filter(account_id=actor.account_id, provider=web_chat.NAME).order_by("id").first()
    own = settings.base_url
    sites = list(
        dict.fromkeys([own, own.replace("//localhost", "//127.0.0.1"), own.replace("//127.0.0.1", "//localhost")])
    )
    if row is None or (row.connected and not set(sites) <= set(row.allowed_origins)):
        await channel_settings.connect_channel(
            actor,
            kind="WEB_CHAT",
            provider=web_chat.NAME,
            connection_id=row.id if row is not None else None,
            display_name="Website chat (live)",
            sender="/demo/site",
            allowed_origins=[*(row.allowed_origins if row is not None else []), *sites],
        )


# ------------------------------------------------------------------------------------------------------------ stories
@dataclass(slots=True)
class Scene:
    """One contact's thread; every step has its own key."""

    actor: Actor
    slug: str
    contact: Contact
    conversation: Conversation
    channels: dict[str, ChannelConnection]
    processor: ProcessorConnection
    handles: dict[str, str]
    begun_at: datetime
    step: int = 0

    def key(self) -> str:
        self.step += 1
        return f"demo-{self.slug}-{self.step:02d}"

    async def contact_writes(self, kind: str, body: str) -> None:
        row = self.channels[kind]
        now = datetime.now(UTC)
        raw = simulated.inbound_body(self.handles[kind], body, at=now, external_id=f"sim_in_{self.key()}")
        signature = simulated.sign(providers.credentials_of(row)["secret"], raw, at=now)
        await inbound.receive(
            simulated.NAME,
            row.id,
            WebhookRequest(
                method="POST",
                public_url=providers.inbound_url(row),
                headers={simulated.SIGNATURE_HEADER.lower(): signature},
                body=raw,
                now=now,
            ),
        )

    async def agent_writes(self, kind: str, body: str) -> None:
        await messages.send_message(
            self.actor,
            conversation_id=self.conversation.id,
            channel_id=self.channels[kind].id,
            body=body,
            idempotency_key=self.key(),
        )

    async def request_payment(
        self,
        kind: str,
        product: str,
        amount: str,
        currency: str,
        *,
        description: str | None = None,
        words: str | None = None,
        send: bool = True,
        due_days: int | None = None,
    ) -> PaymentRequest:
        """Request a payment; `words` is the text around {link}."""
        request = await payment_requests.create(
            self.actor,
            contact_id=self.contact.id,
            channel_id=self.channels[kind].id,
            product_name=product,
            amount=amount,
            currency=currency,
            description=description,
            # A repeated key needs the same input: count from the account's creation.
            due_at=self.begun_at + timedelta(days=due_days) if due_days is not None else None,
            idempotency_key=self.key(),
        )
        if send:
            await request_sending.send(
                self.actor,
                payment_request_id=request.id,
                channel_id=self.channels[kind].id,
                body=words,
                idempotency_key=self.key(),
            )
        return request

    async def pay(
        self, request: PaymentRequest, outcome: MoneyOutcome = MoneyOutcome.SUCCEEDED, *, card: str = "Visa •••• 4242"
    ) -> None:
        declined = outcome is MoneyOutcome.FAILED
        statement = MoneyStatement(
            kind=MoneyKind.CHARGE,
            external_id=f"sbx_pay_{self.key()}",
            outcome=outcome,
            amount_minor=request.amount_minor,
            currency=request.currency,
            request_reference=payment_links.reference(request),
            method_summary=card,
            failure_code="card_declined" if declined else None,
            failure_message="The card was declined." if declined else None,
            occurred_at=datetime.now(UTC),
        )
        await recorder.record(self.processor, [statement], source="webhook")

    async def open_page(self, request: PaymentRequest) -> None:
        await checkout_page.record_view(payment_links.checkout_url(request).rpartition("/")[2], human=True)

    async def mark_read(self) -> None:
        await conversations.mark_read(self.actor, self.conversation.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    slug: str
    name: str
    email: str
    phone: str
    play: Callable[[Scene], Awaitable[None]]


async def _play(actor: Actor, story: Story) -> None:
    handles = {
        "SMS": story.phone,
        "WHATSAPP": story.phone,
        "EMAIL": story.email,
        "INSTAGRAM_DM": f"ig_{story.slug}",
        "MESSENGER": f"fb_{story.slug}",
        "WEB_CHAT": f"visitor_{story.slug}",
    }
    contact = await Contact.get_or_none(account_id=actor.account_id, email=story.email, merged_into_id=None)
    if contact is None:
        contact = await contacts.create_contact(
            actor, name=story.name, email=story.email, phone=story.phone, addresses=list(handles.items())
        )
    processor = await providers.default_processor(actor.account_id)
    if processor is None:
        raise RuntimeError("the sandbox was connected before")
    scene = Scene(
        actor=actor,
        slug=story.slug,
        contact=contact,
        conversation=await Conversation.get(contact_id=contact.id),
        channels={
            row.kind: row
            for row in await ChannelConnection.filter(
                account_id=actor.account_id, provider=simulated.NAME, kind__in=[k.value for k in ChannelKind]
            ).order_by("-id")
        },
        processor=processor,
        handles=handles,
        begun_at=(await Account.get(id=actor.account_id)).created_at,
    )
    await story.play(scene)


async def _kenji(scene: Scene) -> None:
    await scene.contact_writes(
        "EMAIL", "Hello, we would like to book the monthly office cleaning from next week. — Kenji Sato"
    )
    await scene.agent_writes(
        "EMAIL", "Thank you, Mr. Sato! Four visits, every Tuesday at 7:00. Shall I send the request?"
    )
    await scene.contact_writes("EMAIL", "Yes, please. In yen if possible.")
    request = await scene.request_payment(
        "EMAIL",
        "Office cleaning, four visits",
        "48000",
        "JPY",
        description="Every Tuesday at 7:00, materials included.",
        words="Here is the payment request for {product}, {amount}: {link}",
    )
    await scene.open_page(request)
    await scene.mark_read()


async def _amelie(scene: Scene) -> None:
    await scene.contact_writes("MESSENGER", "Bonjour! Could you clean the flat before we move out on the 30th?")
    await scene.agent_writes("MESSENGER", "Of course! A move-out cleaning of 60 m² takes about five hours.")
    request = await scene.request_payment("MESSENGER", "Move-out cleaning", "320.00", "EUR")
    await scene.contact_writes("MESSENGER", "Sorry, our move was postponed. Can we cancel this one?")
    current = await PaymentRequest.get(id=request.id)
    if current.status != "VOID":
        await voids.void(scene.actor, payment_request_id=request.id, reason="Move postponed")
    await scene.agent_writes(
        "MESSENGER", "No problem, I have cancelled the request. Just write when you have a new date."
    )
    await scene.mark_read()


async def _omar(scene: Scene) -> None:
    await scene.contact_writes("WEB_CHAT", "Hi, what does carpet cleaning cost for two rooms?")
    await scene.agent_writes("WEB_CHAT", "Hello Omar! 36.500 dinar for both rooms, stains included.")
    await scene.request_payment("WEB_CHAT", "Carpet cleaning, two rooms", "36.500", "KWD", send=False)


async def _priya(scene: Scene) -> None:
    await scene.contact_writes("INSTAGRAM_DM", "Loved the before/after pictures! Do you also clean ovens?")
    await scene.agent_writes("INSTAGRAM_DM", "We do 😊 £75 for a double oven, about two hours.")
    await scene.contact_writes("INSTAGRAM_DM", "Perfect, Saturday morning?")
    request = await scene.request_payment(
        "INSTAGRAM_DM",
        "Oven deep clean",
        "75.00",
        "GBP",
        words="Saturday 9:00 it is! Please pay here: {link}",
        due_days=3,
    )
    await scene.pay(request, MoneyOutcome.FAILED, card="Mastercard •••• 0002")
    await scene.contact_writes("INSTAGRAM_DM", "My card was declined, I'll try another one tonight.")


async def _jonas(scene: Scene) -> None:
    await scene.contact_writes("WHATSAPP", "Hi Sam, thanks for the windows last week, they look great.")
    request = await scene.request_payment("WHATSAPP", "Window cleaning, 14 windows", "189.00", "EUR")
    await scene.pay(request, card="Visa •••• 1881")
    await scene.agent_writes("WHATSAPP", "Received, thank you Jonas!")
    await scene.request_payment(
        "WHATSAPP", "Gutter cleaning", "95.00", "EUR", words="And for the gutters on Friday, {amount}: {link}"
    )
    await scene.mark_read()


async def _maya(scene: Scene) -> None:
    await scene.contact_writes("SMS", "Hi! Are you still coming on Thursday for the deep clean?")
    await scene.agent_writes("SMS", "Yes, Thursday 9:00. It is $245 for the three bedrooms, as agreed.")
    await scene.contact_writes("SMS", "Great. Can I pay by card?")
    request = await scene.request_payment(
        "SMS", "Deep clean, three bedrooms", "245.00", "USD", description="Thursday 9:00, about four hours."
    )
    await scene.open_page(request)
    await scene.pay(request)
    await scene.contact_writes("SMS", "Paid! See you on Thursday.")


# The last story is at the top of the inbox.
STORIES: Final = (
    Story(slug="omar", name="Omar Al-Sabah", email="omar@alsabah.example", phone="+96522255501", play=_omar),
    Story(slug="kenji", name="Kenji Sato", email="kenji.sato@minato-design.example", phone="+81355501234", play=_kenji),
    Story(slug="amelie", name="Amélie Laurent", email="amelie@laurent.example", phone="+33155501234", play=_amelie),
    Story(slug="priya", name="Priya Nair", email="priya.nair@kestrel.example", phone="+442079460123", play=_priya),
    Story(slug="jonas", name="Jonas Weber", email="jonas.weber@weberbau.example", phone="+493055501234", play=_jonas),
    Story(slug="maya", name="Maya Torres", email="maya.torres@brightside.example", phone="+14155550142", play=_maya),
)


def described(access: DemoAccess) -> list[tuple[str, str]]:
    return [
        *((name, url) for name, url in access.urls.items()),
        ("sign-in", f"{access.email} / {access.password}"),
        ("API key", access.api_key),
        ("account", public_id("acc", access.account_id)),
    ]
