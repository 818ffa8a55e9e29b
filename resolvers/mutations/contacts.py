"""Mutations: creating, changing and merging contacts."""

from __future__ import annotations

from typing import Annotated

import strawberry

from resolvers.mutations.arguments import addresses, given_fields, row_id
from resolvers.mutations.fields import mutation
from schema.contact import Contact
from schema.context import Info
from schema.inputs.contacts import CreateContactInput, MergeContactsInput, UpdateContactInput, UpdateContactTagsInput
from schema.payloads import CreateContactPayload, MergeContactsPayload, UpdateContactPayload, UpdateContactTagsPayload
from services.messaging import contact_merging, contacts
from services.team import tags


@strawberry.type
class ContactMutations:
    @mutation("Create a contact with its conversation.")
    async def create_contact(
        self, info: Info, input: Annotated[CreateContactInput, strawberry.argument(description="The contact.")]
    ) -> CreateContactPayload:
        row = await contacts.create_contact(
            info.context.actor,
            name=input.name,
            email=input.email,
            phone=input.phone,
            addresses=addresses(input.addresses),
            idempotency_key=input.idempotency_key,
        )
        return CreateContactPayload(contact=Contact.from_row(row))

    @mutation("Change a contact; fields left out stay.")
    async def update_contact(
        self, info: Info, input: Annotated[UpdateContactInput, strawberry.argument(description="What to change.")]
    ) -> UpdateContactPayload:
        changes = given_fields(input, ("name", "email", "phone", "addresses"))
        if "addresses" in changes:
            changes["addresses"] = addresses(changes["addresses"])
        row = await contacts.update_contact(info.context.actor, row_id(input.contact_id, "cnt"), changes=changes)
        return UpdateContactPayload(contact=Contact.from_row(row))

    @mutation(
        "Merge two contacts that are one person on several channels: one record, one thread, one set of"
        " totals. Empty fields are filled, tags and addresses combined; messages, cards, payment requests and"
        " payments of both belong to the kept contact. A merge can't be undone."
    )
    async def merge_contacts(
        self, info: Info, input: Annotated[MergeContactsInput, strawberry.argument(description="The two contacts.")]
    ) -> MergeContactsPayload:
        row = await contact_merging.merge(
            info.context.actor,
            contact_id=row_id(input.contact_id, "cnt"),
            merged_contact_id=row_id(input.merged_contact_id, "cnt"),
            addresses=addresses(input.addresses),
            idempotency_key=input.idempotency_key,
        )
        return MergeContactsPayload(contact=Contact.from_row(row))

    @mutation("Put tags on a contact, and take tags off.")
    async def update_contact_tags(
        self,
        info: Info,
        input: Annotated[UpdateContactTagsInput, strawberry.argument(description="The contact and its tags.")],
    ) -> UpdateContactTagsPayload:
        row = await tags.update_of_contact(
            info.context.actor, row_id(input.contact_id, "cnt"), add=input.add, remove=input.remove
        )
        return UpdateContactTagsPayload(contact=Contact.from_row(row))
