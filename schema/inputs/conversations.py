"""Inputs that change a conversation."""

from __future__ import annotations

import strawberry

from schema.describe import limited
from schema.inputs.descriptions import CONVERSATION
from services.messaging import conversations


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
