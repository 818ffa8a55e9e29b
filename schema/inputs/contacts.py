"""Inputs that create, change and merge contacts."""

from __future__ import annotations

import strawberry

from schema.describe import limited
from schema.inputs.descriptions import ADDED_TAGS, KEY, OPTIONAL_KEY, REMOVED_TAGS
from schema.scalars import (
    ChannelKind,
)
from services.core import validation
from services.messaging import contacts


@strawberry.input(description="The contact's identity on one kind of channel.")
class ContactAddressInput:
    kind: ChannelKind = strawberry.field(description="The kind of channel.")
    address: str = strawberry.field(
        description=limited("Phone number, email address or the provider's id.", validation.ADDRESS_LIMIT)
    )


_NAME = limited("The person's name.", contacts.NAME_LIMIT)
_EMAIL = limited("Email address; also its address on the EMAIL channel.", validation.EMAIL_LIMIT)
_PHONE = limited(
    "Phone number, for SMS and WHATSAPP. Without a country code, the account's country is assumed.",
    validation.PHONE_LIMIT,
)
_ADDRESSES = "Identities on further channels; one per kind."


@strawberry.input(description="A new contact. Its conversation is made with it.")
class CreateContactInput:
    idempotency_key: str | None = strawberry.field(default=None, description=OPTIONAL_KEY)
    name: str = strawberry.field(description=_NAME)
    email: str | None = strawberry.field(default=None, description=_EMAIL)
    phone: str | None = strawberry.field(default=None, description=_PHONE)
    addresses: list[ContactAddressInput] | None = strawberry.field(default=None, description=_ADDRESSES)


@strawberry.input(description="A contact that is created with the object that names it.")
class NewContactInput:
    name: str = strawberry.field(description=_NAME)
    email: str | None = strawberry.field(default=None, description=_EMAIL)
    phone: str | None = strawberry.field(default=None, description=_PHONE)
    addresses: list[ContactAddressInput] | None = strawberry.field(default=None, description=_ADDRESSES)


@strawberry.input(description="What to change of a contact. Fields left out stay.")
class UpdateContactInput:
    contact_id: strawberry.ID = strawberry.field(description="The contact.")
    name: str | None = strawberry.field(
        default=strawberry.UNSET, description=limited("The person's name.", contacts.NAME_LIMIT)
    )
    email: str | None = strawberry.field(
        default=strawberry.UNSET, description=limited("Email address; null: unknown.", validation.EMAIL_LIMIT)
    )
    phone: str | None = strawberry.field(
        default=strawberry.UNSET, description=limited("Phone number; null: unknown.", validation.PHONE_LIMIT)
    )
    addresses: list[ContactAddressInput] | None = strawberry.field(
        default=strawberry.UNSET, description="Identities to set; kinds left out stay."
    )


@strawberry.input(description="Two contacts that are one person.")
class MergeContactsInput:
    idempotency_key: str = strawberry.field(description=KEY)
    contact_id: strawberry.ID = strawberry.field(description="The contact that is kept.")
    merged_contact_id: strawberry.ID = strawberry.field(
        description="The contact that is merged into it. Its ids give the kept contact from then on."
    )
    addresses: list[ContactAddressInput] | None = strawberry.field(
        default=None,
        description=(
            "Of kinds on which both have an address: the one that messages go to. Left out: the one that the person wrote from"
            " last."
        ),
    )


@strawberry.input(description="Tags to put on a contact and to take off.")
class UpdateContactTagsInput:
    contact_id: strawberry.ID = strawberry.field(description="The contact.")
    add: list[str] = strawberry.field(default_factory=list, description=ADDED_TAGS)
    remove: list[str] = strawberry.field(default_factory=list, description=REMOVED_TAGS)
