"""In every combination the composer says what sending does. The same through the API: tests/flows/test_composer.py."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Awaitable
from itertools import product
from typing import Any
from uuid import uuid4

import pytest

from integrations import registry
from models import tables
from models.errors import Refusal
from services.connections import availability
from services.core.permissions import Actor
from services.messaging import messages
from services.messaging.composer import Template
from services.payments import request_sending
from settings import Settings
from tests import composer_matrix as m
from tests import factories
from tests.services.conftest import actor_of

pytestmark = pytest.mark.slow


async def people(account: tables.Account) -> dict[str, Actor]:
    made = {role: actor_of(await factories.user(account, role=role)) for role in m.ROLES if " " not in role}
    made["AGENT by key"] = dataclasses.replace(made["AGENT"], kind="api_key", user_id=None)
    return made


async def code_of(sending: Awaitable[Any]) -> str | None:
    """The refusal's code; None: accepted."""
    try:
        await sending
    except Refusal as refusal:
        return refusal.code
    return None


# ADMIN and OWNER may what AGENT may, and are tried through the API; so are keys, here only where they are allowed less than people.
ROLES = ("AGENT", "VIEWER", "AGENT by key")
TEMPLATE = Template(id="HX" + "1" * 32, variables=(("1", "{link}"),))


def test_the_matrix_has_every_provider_on_every_kind_that_it_serves() -> None:
    served = {
        (kind.value, name) for name in registry.built_in("channels") for kind in registry.channel_class(name).kinds
    }
    assert {(variant.kind, variant.provider) for variant in m.VARIANTS} == served


# On SQLite only: the rule reads three tables, and no engine decides it.
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("processor", m.PROCESSORS)
async def test_what_the_composer_says_is_what_sending_does_in_every_cell(
    configured: Settings, monkeypatch: pytest.MonkeyPatch, processor: str
) -> None:
    m.stop_the_clock(monkeypatch)
    account = await factories.account()
    actors = await people(account)
    matrix = await m.Matrix.make(account)
    await matrix.set_processor(processor)
    wrong, counted, reasons = [], 0, Counter[str]()
    for role, address in product(ROLES, m.ADDRESSES):
        actor = actors[role]
        conversations = [matrix.thread(variant, address)[0] for variant in m.VARIANTS]
        found = await availability.capabilities_of(actor, conversations)
        reaches = {(id, reach.connection.id): reach for id, row in found.items() for reach in row}
        for (variant, state), channel in matrix.channels.items():
            if role == "AGENT by key" and not variant.for_people:
                continue
            conversation, asked = matrix.thread(variant, address)
            reach = reaches[conversation.id, channel.id]
            text: dict[str, Any] = {"conversation_id": conversation.id, "channel_id": channel.id, "body": "Hello"}
            request: dict[str, Any] = {"payment_request_id": asked.id, "channel_id": channel.id}
            shown = [reach.messages.reason, reach.payment_requests.reason]
            done = [
                await code_of(messages.send_message(actor, **text)),
                await code_of(request_sending.send(actor, **request, idempotency_key=str(uuid4()))),
            ]
            reasons.update(reason or "enabled" for reason in shown)
            if variant.kind == "WHATSAPP":
                sent = request_sending.send(actor, **request, template=TEMPLATE, idempotency_key=str(uuid4()))
                shown.append("template" if reach.payment_requests.templates else "no template")
                done.append("template" if await code_of(sent) is None else "no template")
                reasons[str(shown[-1])] += 1
            counted += 1
            if shown != done:
                wrong.append(f"{m.Cell(variant, state, address, processor, role)}: shown {shown}, done {done}")
    print(f"processor {processor}: cells {counted}, wrong {len(wrong)}; {dict(reasons.most_common())}")  # noqa: T201 (the figure)
    assert not wrong, "\n".join(wrong[:20])
    assert counted == (2 * len(m.VARIANTS) + 1) * len(m.ADDRESSES) * len(m.CONNECTIONS)
    # What was refused has left nothing.
    assert await tables.Message.all().count() == reasons["enabled"] + reasons["template"]
