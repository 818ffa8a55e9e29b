"""strawberry, Starlette, uvicorn, Tortoise and broadcaster, put together as their documentation shows.

PORT, DATABASE_URL (sqlite:///path or postgres://…, empty: no database) and WEBHOOK_SECRET come from the environment.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated

import orjson
import strawberry
import stripe
import uvicorn
from broadcaster import Broadcast
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from strawberry.asgi import GraphQL
from tortoise import Tortoise, fields
from tortoise.exceptions import IntegrityError
from tortoise.models import Model
from tortoise.transactions import in_transaction

DATABASE_URL = os.environ.get("DATABASE_URL", "")
SECRET = os.environ.get("WEBHOOK_SECRET", "")
broadcast = Broadcast("memory://")


class ConversationRow(Model):
    id = fields.CharField(max_length=40, primary_key=True)

    class Meta:
        table = "conversation"


class ThreadItemRow(Model):
    id = fields.IntField(primary_key=True)
    conversation_id = fields.CharField(max_length=40)
    kind = fields.CharField(max_length=20)
    body = fields.TextField(null=True)
    direction = fields.CharField(max_length=10, null=True)
    channel = fields.CharField(max_length=10, null=True)
    status = fields.CharField(max_length=10)
    title = fields.CharField(max_length=100, null=True)
    amount_minor = fields.IntField(null=True)
    currency = fields.CharField(max_length=3, null=True)
    at = fields.CharField(max_length=40)

    class Meta:
        table = "thread_item"


class WebhookEventRow(Model):
    id = fields.CharField(max_length=60, primary_key=True)
    type = fields.CharField(max_length=60)
    received_at = fields.CharField(max_length=40)

    class Meta:
        table = "webhook_event"


class InvoiceRow(Model):
    id = fields.CharField(max_length=40, primary_key=True)
    status = fields.CharField(max_length=10)
    paid_at = fields.CharField(max_length=40, null=True)

    class Meta:
        table = "invoice"


class CardRow(Model):
    id = fields.CharField(max_length=70, primary_key=True)
    invoice_id = fields.CharField(max_length=40)
    kind = fields.CharField(max_length=20)
    title = fields.CharField(max_length=100)
    amount_minor = fields.IntField()
    currency = fields.CharField(max_length=3)
    at = fields.CharField(max_length=40)

    class Meta:
        table = "activity_card"


@strawberry.type
class Message:
    id: strawberry.ID
    body: str
    direction: str
    channel: str
    status: str
    at: str


@strawberry.type
class Card:
    id: strawberry.ID
    kind: str
    status: str
    title: str
    amount_minor: int
    currency: str
    at: str


def _item(row: ThreadItemRow) -> Message | Card:
    if row.kind == "MESSAGE":
        return Message(
            id=strawberry.ID(str(row.id)),
            body=row.body or "",
            direction=row.direction or "",
            channel=row.channel or "",
            status=row.status,
            at=row.at,
        )
    return Card(
        id=strawberry.ID(str(row.id)),
        kind=row.kind,
        status=row.status,
        title=row.title or "",
        amount_minor=row.amount_minor or 0,
        currency=row.currency or "",
        at=row.at,
    )


ThreadItem = Annotated[Message | Card, strawberry.union("ThreadItem")]


@strawberry.type
class Conversation:
    id: strawberry.ID

    @strawberry.field
    async def thread(self, first: int = 50) -> list[ThreadItem]:
        rows = await ThreadItemRow.filter(conversation_id=str(self.id)).order_by("id").limit(first)
        return [_item(row) for row in rows]


@strawberry.type
class Query:
    @strawberry.field
    async def conversation(self, id: strawberry.ID) -> Conversation | None:
        found = await ConversationRow.get_or_none(id=str(id))
        return Conversation(id=strawberry.ID(found.id)) if found is not None else None


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def card_added(self) -> AsyncGenerator[Card, None]:
        async with broadcast.subscribe(channel="card") as subscriber:
            async for event in subscriber:  # type: ignore[union-attr]  # typed as if it could be None
                yield Card(**orjson.loads(event.message))  # type: ignore[union-attr]  # as above


async def trigger(request: Request) -> Response:
    card = {"id": "1", "kind": "PAYMENT_PROCESSING", "status": "PROCESSING", "title": "bench-card"}
    more = {"amount_minor": 12500, "currency": "USD", "at": datetime.now(UTC).isoformat()}
    await broadcast.publish(channel="card", message=orjson.dumps(card | more).decode())
    return PlainTextResponse("ok")


async def webhook(request: Request) -> Response:
    body = await request.body()
    try:
        event = stripe.Webhook.construct_event(body, request.headers["stripe-signature"], SECRET)
    except (ValueError, stripe.SignatureVerificationError):
        return PlainTextResponse("bad signature", 400)
    session, now = event.data.object, datetime.now(UTC).isoformat()
    invoice_id = session["metadata"]["payment_request_id"]
    try:
        async with in_transaction():
            await WebhookEventRow.create(id=event.id, type=event.type, received_at=now)
            await InvoiceRow.filter(id=invoice_id, status="sent").update(status="paid", paid_at=now)
            await CardRow.create(
                id=f"card_{event.id}",
                invoice_id=invoice_id,
                kind="PAID",
                title="Deep clean",
                amount_minor=session["amount_total"],
                currency=session["currency"],
                at=now,
            )
    except IntegrityError:
        return PlainTextResponse("repeated")
    return PlainTextResponse("ok")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    await broadcast.connect()
    if DATABASE_URL:
        url = DATABASE_URL.replace("postgres://", "asyncpg://", 1)
        if url.startswith("sqlite"):
            url = url.replace("sqlite:///", "sqlite://", 1) + "?journal_mode=WAL&synchronous=FULL"
        await Tortoise.init(db_url=url, modules={"models": [__name__]}, _enable_global_fallback=True)
    yield
    await Tortoise.close_connections()
    await broadcast.disconnect()


graphql_app: GraphQL[None, None] = GraphQL(strawberry.Schema(query=Query, subscription=Subscription))
app = Starlette(
    routes=[
        Route("/graphql", graphql_app),
        WebSocketRoute("/graphql", graphql_app),
        Route("/trigger", trigger, methods=["POST"]),
        Route("/webhooks/stripe", webhook, methods=["POST"]),
    ],
    lifespan=lifespan,
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", access_log=False)
