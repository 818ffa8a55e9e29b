"""Services keep the limits in the descriptions: one character more is refused at that field."""

from __future__ import annotations

import re
from typing import Any

import pytest
from graphql import GraphQLInputObjectType, GraphQLSchema, get_named_type

from models.ids import public_id
from resolvers.assemble import build_schema
from resolvers.visitor.assemble import build_visitor_schema
from services.core.permissions import Actor
from tests import factories
from tests.schema.conftest import Api
from tests.services.conftest import Team

SCHEMAS: list[GraphQLSchema] = [build_schema(production=False)._schema, build_visitor_schema(production=False)._schema]
_STATED = re.compile(r"[Aa]t most ([\d,]+) characters|8 to (64) (?:characters|letters)")

# Texts that are looked up in a fixed list: what is too long is unknown.
NAMES = {
    ("CustomCredentialsInput", "provider"),
    ("ConnectChannelInput", "provider"),
    ("CredentialInput", "name"),
    ("StartVisitInput", "widgetKey"),
}


def stated(type_name: str, field: str) -> int | None:
    """The limit that the SDL gives for an input field."""
    for schema in SCHEMAS:
        found = schema.type_map.get(type_name)
        if isinstance(found, GraphQLInputObjectType) and field in found.fields:
            match = _STATED.search(found.fields[field].description or "")
            return int((match[1] or match[2]).replace(",", "")) if match else None
    raise KeyError(type_name, field)


def texts() -> list[tuple[str, str]]:
    """Every input field that takes a text."""
    return sorted(
        {
            (found.name, name)
            for schema in SCHEMAS
            for found in schema.type_map.values()
            if isinstance(found, GraphQLInputObjectType)
            for name, field in found.fields.items()
            if get_named_type(field.type).name == "String"
        }
    )


def test_every_text_of_an_input_states_its_limit() -> None:
    assert [text for text in texts() if text not in NAMES and stated(*text) is None] == []
    assert len(texts()) > 40


# Of each mutation: the texts that are tried, one after the other, in an otherwise valid input.
FIELDS: dict[str, tuple[str, ...]] = {
    "createContact": ("name", "email", "phone"),
    "updateContact": ("name", "email", "phone"),
    "updateAccount": (
        "name",
        "locale",
        "timeZone",
        "contactEmail",
        "contactPhone",
        "linkMessageTemplate",
        "numberPrefix",
    ),
    "createPaymentRequest": ("productName", "description"),
    "voidPaymentRequest": ("reason",),
    "recordOutsidePayment": ("note",),
    "sendMessage": ("body", "subject", "cc"),
    "saveDraft": ("text",),
    "addNote": ("body",),
    "createApiKey": ("name",),
    "configureProcessor": ("displayName",),
    "connectChannel": ("displayName", "sender"),
}
SHAPES = {
    "email": "{}@example.test",
    "cc": "{}@example.test",
    "contactEmail": "{}@example.test",
    "linkMessageTemplate": "{{link}}{}",
}


def text_of(field: str, length: int) -> str:
    """A text of this length, in the field's format if the length allows it."""
    shape = SHAPES.get(field, "{}")
    return shape.format("x" * (length - len(shape.format(""))))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # no database is asked before the limits are
async def test_one_character_more_than_stated_is_refused_and_the_stated_ones_are_not_too_long(
    team: Team, api: Api
) -> None:
    owner: Actor = team.owner
    request = await factories.payment_request(team.contact, status="SENT")
    contact, conversation = public_id("cnt", team.contact.id), public_id("cnv", team.conversation.id)
    sms, pr = public_id("chn", team.channels["SMS"].id), public_id("pr", request.id)
    base: dict[str, dict[str, Any]] = {
        "createContact": {"name": "Maya"},
        "updateContact": {"contactId": contact},
        "updateAccount": {},
        "createPaymentRequest": {
            "for": {"contactId": contact},
            "productName": "Clean",
            "amount": {"amount": "10.00"},
        },
        "voidPaymentRequest": {"paymentRequestId": pr, "expectedVersion": 99},
        "recordOutsidePayment": {
            "paymentRequestId": pr,
            "method": "CASH",
            "amount": "0.01",
        },
        "sendMessage": {
            "conversationId": conversation,
            "channelId": sms,
            "body": "Hello",
        },
        "saveDraft": {"conversationId": conversation, "text": ""},
        "addNote": {"conversationId": conversation, "body": "Hello"},
        "createApiKey": {"name": "Key", "role": "VIEWER"},
        "configureProcessor": {"credentials": {"sandbox": True}},
        "connectChannel": {"kind": "SMS", "provider": "simulated"},
    }
    tried = 0
    for mutation, fields in FIELDS.items():
        for field in fields:
            input_name = mutation[0].upper() + mutation[1:] + "Input"
            limit = stated(input_name, field)
            assert limit is not None
            codes = {}
            for length in (limit, limit + 1):
                tried += 1
                given = {**base[mutation], field: text_of(field, length)}
                if (input_name, "idempotencyKey") in texts():
                    given["idempotencyKey"] = f"limits-key-{tried}"
                answer = await api.run(mutation, given, "__typename", viewer=owner)
                codes[length] = {error["code"] for error in answer["userErrors"] if field in (error["field"] or [])}
            assert "TOO_LONG" in codes[limit + 1], (mutation, field, codes)
            # A channel has a lower limit of its own for what it sends.
            assert "TOO_LONG" not in codes[limit] or (mutation, field) == ("sendMessage", "body"), (
                mutation,
                field,
                codes,
            )
