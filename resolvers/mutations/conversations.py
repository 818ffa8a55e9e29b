"""Mutations: a conversation's state."""

from __future__ import annotations

from typing import Annotated

import strawberry

from resolvers.mutations.arguments import optional_row_id, row_id
from resolvers.mutations.fields import mutation
from schema.context import Info
from schema.conversation import Conversation
from schema.inputs.conversations import (
    AddNoteInput,
    AssignConversationInput,
    CloseConversationInput,
    FollowConversationInput,
    MarkConversationReadInput,
    ReopenConversationInput,
    SaveDraftInput,
    UpdateConversationTagsInput,
)
from schema.payloads import (
    AddNotePayload,
    AssignConversationPayload,
    CloseConversationPayload,
    FollowConversationPayload,
    MarkConversationReadPayload,
    ReopenConversationPayload,
    SaveDraftPayload,
    UpdateConversationTagsPayload,
)
from schema.thread import Note
from services.messaging import conversations
from services.team import notes, tags


@strawberry.type
class ConversationMutations:
    @mutation(
        "Close a conversation. A message from the contact, a movement of money or a failed delivery opens it again."
    )
    async def close_conversation(
        self, info: Info, input: Annotated[CloseConversationInput, strawberry.argument(description="The conversation.")]
    ) -> CloseConversationPayload:
        row = await conversations.close(info.context.actor, row_id(input.conversation_id, "cnv"))
        return CloseConversationPayload(conversation=Conversation.from_row(row))

    @mutation("Open a closed conversation again.")
    async def reopen_conversation(
        self,
        info: Info,
        input: Annotated[ReopenConversationInput, strawberry.argument(description="The conversation.")],
    ) -> ReopenConversationPayload:
        row = await conversations.reopen(info.context.actor, row_id(input.conversation_id, "cnv"))
        return ReopenConversationPayload(conversation=Conversation.from_row(row))

    @mutation("Mark the conversation as read for the team: unreadCount becomes 0.")
    async def mark_conversation_read(
        self,
        info: Info,
        input: Annotated[MarkConversationReadInput, strawberry.argument(description="The conversation.")],
    ) -> MarkConversationReadPayload:
        row = await conversations.mark_read(info.context.actor, row_id(input.conversation_id, "cnv"))
        return MarkConversationReadPayload(conversation=Conversation.from_row(row))

    @mutation("Assign a conversation to a user, or remove its assignee.")
    async def assign_conversation(
        self,
        info: Info,
        input: Annotated[AssignConversationInput, strawberry.argument(description="The conversation and the user.")],
    ) -> AssignConversationPayload:
        row = await conversations.assign(
            info.context.actor,
            row_id(input.conversation_id, "cnv"),
            optional_row_id(input.user_id, "usr"),
        )
        return AssignConversationPayload(conversation=Conversation.from_row(row))

    @mutation("Whether the viewer gets notifications of payments in a conversation.")
    async def follow_conversation(
        self,
        info: Info,
        input: Annotated[
            FollowConversationInput, strawberry.argument(description="The conversation, and whether to follow it.")
        ],
    ) -> FollowConversationPayload:
        row = await conversations.follow(info.context.actor, row_id(input.conversation_id, "cnv"), input.following)
        return FollowConversationPayload(conversation=Conversation.from_row(row))

    @mutation("Keep the team's unsent text; nothing is sent.")
    async def save_draft(
        self,
        info: Info,
        input: Annotated[SaveDraftInput, strawberry.argument(description="The conversation and the text.")],
    ) -> SaveDraftPayload:
        row = await conversations.save_draft(info.context.actor, row_id(input.conversation_id, "cnv"), input.text)
        return SaveDraftPayload(conversation=Conversation.from_row(row))

    @mutation("Add an internal note to the thread; mentioned users are notified. It is never sent.")
    async def add_note(
        self,
        info: Info,
        input: Annotated[AddNoteInput, strawberry.argument(description="The conversation and the text.")],
    ) -> AddNotePayload:
        row = await notes.add(
            info.context.actor,
            row_id(input.conversation_id, "cnv"),
            input.body,
            mentions=[row_id(id, "usr") for id in input.mentions],
            idempotency_key=input.idempotency_key,
        )
        return AddNotePayload(note=Note.from_row(row))

    @mutation("Put tags on a conversation, and take tags off.")
    async def update_conversation_tags(
        self,
        info: Info,
        input: Annotated[
            UpdateConversationTagsInput, strawberry.argument(description="The conversation and its tags.")
        ],
    ) -> UpdateConversationTagsPayload:
        row = await tags.update_of_conversation(
            info.context.actor, row_id(input.conversation_id, "cnv"), add=input.add, remove=input.remove
        )
        return UpdateConversationTagsPayload(conversation=Conversation.from_row(row))
