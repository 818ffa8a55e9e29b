"""Inputs that change a conversation."""

from __future__ import annotations

import strawberry

from schema.describe import limited
from schema.inputs.descriptions import ADDED_TAGS, CONVERSATION, KEY, REMOVED_TAGS
from services.messaging import conversations
from services.team import notes


@strawberry.input(description="The conversation to close.")
class CloseConversationInput:
    conversation_id: strawberry.ID = strawberry.field(description=CONVERSATION)


@strawberry.input(description="The conversation to open again.")
class ReopenConversationInput:
    conversation_id: strawberry.ID = strawberry.field(description=CONVERSATION)


@strawberry.input(description="The conversation that was read.")
class MarkConversationReadInput:
    conversation_id: strawberry.ID = strawberry.field(description=CONVERSATION)


@strawberry.input(description="Who is responsible for a conversation.")
class AssignConversationInput:
    conversation_id: strawberry.ID = strawberry.field(description=CONVERSATION)
    user_id: strawberry.ID | None = strawberry.field(default=None, description="The user; null: no assignee.")


@strawberry.input(description="Whether the viewer follows a conversation.")
class FollowConversationInput:
    conversation_id: strawberry.ID = strawberry.field(description=CONVERSATION)
    following: bool = strawberry.field(description="True: get notifications of its payments; false: stop.")


@strawberry.input(description="The team's unsent text.")
class SaveDraftInput:
    conversation_id: strawberry.ID = strawberry.field(description=CONVERSATION)
    text: str | None = strawberry.field(
        default=None, description=limited("The text; null or blank: no draft.", conversations.DRAFT_LIMIT)
    )


@strawberry.input(description="An internal note.")
class AddNoteInput:
    idempotency_key: str = strawberry.field(description=KEY)
    conversation_id: strawberry.ID = strawberry.field(description=CONVERSATION)
    body: str = strawberry.field(description=limited("The text.", notes.LIMIT))
    mentions: list[strawberry.ID] = strawberry.field(
        default_factory=list,
        description=f"Users whom it mentions, at most {notes.MOST_MENTIONS}: each gets a notification.",
    )


@strawberry.input(description="Tags to put on a conversation and to take off.")
class UpdateConversationTagsInput:
    conversation_id: strawberry.ID = strawberry.field(description=CONVERSATION)
    add: list[str] = strawberry.field(default_factory=list, description=ADDED_TAGS)
    remove: list[str] = strawberry.field(default_factory=list, description=REMOVED_TAGS)
