"""Which items an entry of the log may have changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from models.event_log import LogEntry

MERGED: Final = "contact.merged"
# Entries that may change what a request's filter reads of its contact and conversation.
_SPREADING: Final = frozenset({"contact.updated", "conversation.updated", MERGED})


@dataclass(frozen=True, slots=True)
class Touched:
    """One item. `snapshot` None: it does not exist (any more). `direct`: the entry names it."""

    id: UUID
    entry: LogEntry
    snapshot: Any
    direct: bool


@dataclass(slots=True)
class Touches:
    """The items that entries name, each with its newest entry.

    `spreading`: conversations whose requests may have changed with them. `contacts`: of entries that name no conversation.
    """

    requests: dict[UUID, LogEntry] = field(default_factory=dict)
    conversations: dict[UUID, LogEntry] = field(default_factory=dict)
    spreading: dict[UUID, LogEntry] = field(default_factory=dict)
    contacts: dict[UUID, LogEntry] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.requests or self.conversations or self.spreading or self.contacts)

    def note(self, entry: LogEntry) -> None:
        if entry.kind.startswith("notification."):
            return
        if entry.payment_request_id is not None:
            _keep_newest(self.requests, entry.payment_request_id, entry)
        if entry.conversation_id is None and entry.contact_id is not None and entry.kind in _SPREADING:
            _keep_newest(self.contacts, entry.contact_id, entry)
        named = [entry.conversation_id] if entry.conversation_id is not None else []
        if entry.kind == MERGED:
            named.append(UUID(entry.data["conversation_id"]))
        for id in named:
            _keep_newest(self.conversations, id, entry)
            if entry.kind in _SPREADING:
                _keep_newest(self.spreading, id, entry)

    def add(self, other: Touches) -> None:
        for mine, theirs in (
            (self.requests, other.requests),
            (self.conversations, other.conversations),
            (self.spreading, other.spreading),
            (self.contacts, other.contacts),
        ):
            for id, entry in theirs.items():
                _keep_newest(mine, id, entry)

    def add_conversations_of(self, contacts: Mapping[UUID, UUID]) -> None:
        """`contacts`: their conversations."""
        for contact_id, conversation_id in contacts.items():
            entry = self.contacts.pop(contact_id)
            _keep_newest(self.conversations, conversation_id, entry)
            _keep_newest(self.spreading, conversation_id, entry)

    def add_items(self, items: Iterable[Touched], *, are_requests: bool) -> None:
        for one in items:
            _keep_newest(self.requests if are_requests else self.conversations, one.id, one.entry)


def _keep_newest(entries: dict[UUID, LogEntry], id: UUID, entry: LogEntry) -> None:
    known = entries.get(id)
    if known is None or known.seq <= entry.seq:
        entries[id] = entry
