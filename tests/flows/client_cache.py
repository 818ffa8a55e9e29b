"""A normalised cache as clients have one: objects by id, and what events add to lists. It knows no rule of the product."""

from __future__ import annotations

from typing import Any, NamedTuple


class Ref(NamedTuple):
    id: str


class Cache:
    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.conversations: set[str] = set()  # of the inbox
        self.notifications: list[dict[str, Any]] = []  # edges

    def write(self, value: Any) -> Any:
        """The value with each object that has an id replaced by a reference; its fields are merged into the known ones."""
        if isinstance(value, list):
            return [self.write(one) for one in value]
        if not isinstance(value, dict):
            return value
        fields = {name: self.write(one) for name, one in value.items() if name != "__typename"}
        if "id" not in value:
            return fields
        self.objects.setdefault(value["id"], {}).update(fields)
        return Ref(value["id"])

    # ------------------------------------------------------------------------------------------------------- lists
    def load(self, shown: dict[str, Any]) -> None:
        """What a client reads when it starts: every list of its screens."""
        found = self.write(shown)
        self.conversations = {ref.id for ref in found["conversations"]["nodes"]}
        self.notifications = found["notifications"]["edges"]

    def take(self, typename: str, event: dict[str, Any]) -> None:
        """Apply an event: objects by id, then the edge to its list."""
        found = self.write(event)
        match typename:
            case "ThreadItemAdded":
                self._open(found["conversation"])
                _add(self.objects[found["conversation"].id]["thread"]["edges"], found["edge"], at_end=True)
            case "ConversationUpdated":
                self._open(found["conversation"])
            case "PaymentRequestUpdated":
                request = self.objects[found["paymentRequest"].id]
                edges = self.objects[request["contact"].id].setdefault("paymentRequests", {"edges": []})["edges"]
                if found["paymentRequestEdge"] is not None:
                    _add(edges, found["paymentRequestEdge"])
                if request["discardedAt"] is not None:
                    edges[:] = [edge for edge in edges if edge["node"] != found["paymentRequest"]]
            case "ContactMerged":
                self.conversations.discard(found["mergedConversationId"])
                kept = {
                    found["mergedConversationId"]: found["conversation"],
                    found["mergedContactId"]: found["contact"],
                }
                for gone in kept:
                    self.objects.pop(gone, None)
                self.objects = {id: _replaced(fields, kept) for id, fields in self.objects.items()}
                self._open(found["conversation"])
            case "NotificationAdded":
                _add(self.notifications, found["edge"])

    def _open(self, conversation: Ref) -> None:
        self.conversations.add(conversation.id)
        shown = self.objects[conversation.id]
        shown.setdefault("thread", {"edges": []})
        self.objects[shown["contact"].id].setdefault("paymentRequests", {"edges": []})

    def inbox(self) -> list[str]:
        """The conversations as a list shows them, newest activity first."""
        return sorted(self.conversations, key=lambda id: (self.objects[id]["lastActivityAt"], id), reverse=True)

    def differences(self, fresh: Cache) -> list[str]:
        """What this cache shows otherwise than one that was just loaded."""
        wrong = [] if self.inbox() == fresh.inbox() else [f"inbox {self.inbox()}, not {fresh.inbox()}"]
        if self.notifications != fresh.notifications:
            wrong.append(f"notifications {self.notifications}, not {fresh.notifications}")
        for id, fields in fresh.objects.items():
            known = self.objects.get(id, {})
            wrong += [
                f"{id}.{name}: {known.get(name, 'missing')}, not {value}"
                for name, value in fields.items()
                if known.get(name, "missing") != value
            ]
        return wrong


def _replaced(value: Any, by: dict[str, Ref]) -> Any:
    if isinstance(value, Ref):
        return by.get(value.id, value)
    if isinstance(value, list):
        return [_replaced(one, by) for one in value]
    return {name: _replaced(one, by) for name, one in value.items()} if isinstance(value, dict) else value


def _add(edges: list[dict[str, Any]], edge: dict[str, Any], *, at_end: bool = False) -> None:
    if any(known["node"] == edge["node"] for known in edges):
        return  # the query had it already
    edges.insert(len(edges) if at_end else 0, edge)
