"""Plans for the events of subscriptions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from graphql import FieldNode

from resolvers.plans.compiler import Compiler, Root
from resolvers.plans.selections import Built, RowSelection, Run
from resolvers.transport.executor import NotPlanned

# Event -> field -> the attribute that holds its value.
_VALUES: Final[dict[str, dict[str, str]]] = {
    "Subscribed": {},
    "ResyncRequired": {"reason": "reason"},
    "ThreadItemAdded": {"conversationId": "conversation_id", "contactId": "contact_id"},
    "PaymentRequestUpdated": {"conversationId": "conversation_id", "contactId": "contact_id"},
    "MessageUpdated": {"conversationId": "conversation_id"},
    "ContactUpdated": {},
    "ContactMerged": {
        "mergedContactId": "merged_contact_id",
        "mergedConversationId": "merged_conversation_id",
    },
    "ConversationUpdated": {},
}
# Event -> field -> candidates of (type, attribute with the row's id), and whether the field is nullable.
_ROWS: Final[dict[str, dict[str, tuple[tuple[tuple[str, str], ...], bool]]]] = {
    "ThreadItemAdded": {"item": ((("Message", "message_id"), ("ActivityCard", "card_id")), False)},
    "PaymentRequestUpdated": {
        "paymentRequest": ((("PaymentRequest", "payment_request_row"),), False),
        "card": ((("ActivityCard", "card_row"),), True),
    },
    "MessageUpdated": {"message": ((("Message", "message_row"),), False)},
    "ContactUpdated": {"contact": ((("Contact", "contact_row"),), False)},
    "ContactMerged": {
        "contact": ((("Contact", "contact_row"),), False),
        "conversation": ((("Conversation", "conversation_row"),), False),
    },
    "ConversationUpdated": {"conversation": ((("Conversation", "conversation_row"),), False)},
}


def event_reader(compiler: Compiler, event: type, nodes: list[FieldNode]) -> Root:
    """Raises: NotPlanned."""
    type_name = event.__name__
    if type_name not in _VALUES:
        raise NotPlanned
    values = _VALUES[type_name]
    rows = _ROWS.get(type_name, {})
    parts: list[tuple[str, Callable[[Any], Any] | _EventRow]] = []
    for name, found in compiler.fields(nodes, type_name).items():
        field = found[0].name.value
        if field == "__typename":
            parts.append((name, lambda event: type_name))
        elif field == "cursor":
            parts.append((name, lambda event: event.cursor))
        elif field == "previousStatus" and type_name == "PaymentRequestUpdated":
            parts.append((name, _previous_status))
        elif field in values:
            parts.append((name, _attribute(values[field])))
        elif field in rows:
            candidates, nullable = rows[field]
            selections = [(compiler.rows(row_type, found), attribute) for row_type, attribute in candidates]
            parts.append((name, _EventRow(selections, nullable)))
        else:
            raise NotPlanned

    async def read(run: Run) -> Built:
        event = run.event
        return {name: await part.read(run) if isinstance(part, _EventRow) else part(event) for name, part in parts}

    return read


def _attribute(name: str) -> Callable[[Any], Any]:
    return lambda event: getattr(event, name)


def _previous_status(event: Any) -> str | None:
    return event.previous_status.name if event.previous_status is not None else None


class _EventRow:
    def __init__(self, selections: list[tuple[RowSelection, str]], nullable: bool) -> None:
        self._selections = selections
        self._nullable = nullable

    async def read(self, run: Run) -> Built | None:
        for selection, attribute in self._selections:
            id: UUID | None = getattr(run.event, attribute)
            if id is not None:
                found = await run.records.by_id(selection.type.model, selection.columns, [id])
                if found:
                    return (await selection.build(run, found))[0]
                break
        if not self._nullable:
            raise NotPlanned
        return None
