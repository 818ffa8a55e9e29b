"""Who caused a change, as rows keep it. `resolvers/access` turns it into an object of the API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal
from uuid import UUID

from models.database import to_uuid
from models.ids import parse_public_id, public_id

Kind = Literal["USER", "API_KEY", "CONTACT", "PROCESSOR", "CHANNEL", "SYSTEM"]

LIMIT: Final = 160  # characters of the columns
_PREFIXES: Final[dict[Kind, str]] = {"USER": "usr", "API_KEY": "key", "CONTACT": "cnt"}
_KINDS: Final[dict[str, Kind]] = {prefix: kind for kind, prefix in _PREFIXES.items()}
_NAMED: Final[dict[str, Kind]] = {"processor": "PROCESSOR", "channel": "CHANNEL", "system": "SYSTEM"}


@dataclass(frozen=True, slots=True)
class ActorRef:
    """A row's id, or the name of what has no row."""

    kind: Kind
    id: UUID | None = None
    name: str | None = None

    def stored(self) -> str:
        if self.id is not None:
            return public_id(_PREFIXES[self.kind], self.id)
        return f"{self.kind.lower()}:{self.name or ''}"[:LIMIT]


PAYTHREAD: Final = ActorRef("SYSTEM", name="Paythread")
# Rows of older versions do not say which key it was.
SOME_API_KEY: Final = ActorRef("API_KEY", name="API key")
UNKNOWN_NAME: Final = "Unknown"


def parse(stored: str) -> ActorRef:
    """Reverse `ActorRef.stored`."""
    prefix = stored.partition("_")[0]
    id = parse_public_id(stored, prefix) if prefix in _KINDS else None
    if id is not None:
        return ActorRef(_KINDS[prefix], id)
    kind, _, name = stored.partition(":")
    return ActorRef(_NAMED.get(kind, "SYSTEM"), name=name or UNKNOWN_NAME)


def user(id: UUID) -> ActorRef:
    return ActorRef("USER", id)


def contact(id: UUID) -> ActorRef:
    return ActorRef("CONTACT", id)


def processor(name: str) -> ActorRef:
    return ActorRef("PROCESSOR", name=name)


def channel(name: str) -> ActorRef:
    return ActorRef("CHANNEL", name=name)


# Rows that older versions wrote have no stored actor, only a user's id, or a name.
def of_card(actor: str | None, actor_id: Any) -> ActorRef | None:
    """None: not known."""
    return _stored_or_user(actor, actor_id)


def of_message(
    author: str | None, author_id: Any, author_name: str | None, direction: str, contact_id: Any
) -> ActorRef:
    if direction == "INBOUND":
        return contact(to_uuid(contact_id))
    return _stored_or_user(author, author_id) or ActorRef("SYSTEM", name=author_name or UNKNOWN_NAME)


def of_creation(created_by: str | None, created_by_id: Any) -> ActorRef:
    return _stored_or_user(created_by, created_by_id) or SOME_API_KEY


def of_void(requested_by: str | None, requested_by_id: Any, requested_at: object) -> ActorRef | None:
    """None: no void was requested."""
    if requested_at is None:
        return None
    return _stored_or_user(requested_by, requested_by_id) or SOME_API_KEY


def of_record(recorded_by: str | None, recorded_by_id: Any, processor_connection_id: object) -> ActorRef | None:
    """None: a processor reported it."""
    if processor_connection_id is not None:
        return None
    return _stored_or_user(recorded_by, recorded_by_id) or SOME_API_KEY


def of_refund(requested_by: str | None, requested_by_id: Any) -> ActorRef:
    return _stored_or_user(requested_by, requested_by_id) or SOME_API_KEY


def _stored_or_user(stored: str | None, user_id: Any) -> ActorRef | None:
    if stored:
        return parse(stored)
    return user(to_uuid(user_id)) if user_id is not None else None
