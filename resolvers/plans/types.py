"""The columns that each field reads. `schema/` describes the same fields; a test compares both answers."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Protocol

from models import tables
from models.database import to_time, to_uuid
from models.ledger import OUTSTANDING
from resolvers.plans import objects
from resolvers.plans.readers import (
    Amount,
    By,
    Children,
    Converted,
    EventCursor,
    FirstChild,
    Group,
    Objects,
    One,
    OneColumn,
    Page,
    Plain,
    Reader,
    RowType,
    Through,
    choice,
    flag,
    identifier,
    is_set,
    moment,
    now,
    texts,
    unless,
)
from schema import reasons, scalars
from services.connections import providers
from services.core import actors
from services.messaging import attachments
from services.messaging.resending import REPEATABLE
from services.thread import payment_links


class Clock(Protocol):
    def changes_at(self, when: datetime) -> None:
        """The answer changes at this time without an event."""


def _overdue(due_at: Any, status: str, clock: Clock) -> bool:
    if due_at is None or status not in OUTSTANDING:
        return False
    due = to_time(due_at)
    if due < now():
        return True
    clock.changes_at(due)
    return False


def _due_minor(amount: int, paid: int, waived: int) -> int:
    return max(0, amount - paid - waived)


def _checkout_url(account_id: Any, token: str) -> str:
    return payment_links.checkout_url_of(to_uuid(account_id), token)


def _attachment_url(id: Any, status: str) -> str | None:
    return attachments.address_of(to_uuid(id), status)


def _refusal(code: str | None) -> str | None:
    found = reasons.of_file(code)
    return found.name if found is not None else None


def _released(released_at: Any, status: str) -> Any:
    return _moment(released_at) if status == "PROCESSING" else None


def _moment(value: Any) -> Any:
    return moment("").function(value)


def _void_pending(requested_at: Any, status: str) -> bool:
    return requested_at is not None and status not in ("VOID", "PAID")


def _may_resend(direction: str, status: str) -> bool:
    return direction == "OUTBOUND" and status in REPEATABLE


_ATTEMPT: Final[dict[str, Reader]] = {
    "status": choice(scalars.PaymentStatus, "last_attempt_status"),
    "declineCode": Plain("last_attempt_code"),
    "message": Plain("last_attempt_message"),
    "at": moment("last_attempt_at"),
}

TYPES: Final[dict[str, RowType]] = {
    found.name: found
    for found in (
        RowType(
            "User",
            tables.User,
            {
                "id": identifier("usr"),
                "name": Plain("name"),
                "email": Plain("email"),
                "role": choice(scalars.Role, "role"),
                "disabled": is_set("disabled_at"),
            },
            logged=True,
        ),
        RowType(
            "ApiKey", tables.ApiKey, {"id": identifier("key"), "name": Plain("name")}, logged=True
        ),  # what all may see; it never changes
        RowType(
            "Channel",
            tables.ChannelConnection,
            {
                "id": identifier("chn"),
                "kind": choice(scalars.ChannelKind, "kind"),
                "provider": Plain("provider"),
                "displayName": Plain("display_name"),
                "sender": Plain("sender"),
                "connected": flag("connected"),
                "lastWebhookAt": moment("last_webhook_at"),
                "lastError": Plain("last_error"),
                "allowedOrigins": texts("allowed_origins"),
            },
        ),
        RowType(
            "Processor",
            tables.ProcessorConnection,
            {
                "id": identifier("prc"),
                "kind": Converted(providers.kind_of, ("processor",)),
                "provider": Plain("processor"),
                "displayName": Plain("display_name"),
                "connected": flag("connected"),
                "isDefault": flag("is_default"),
                "testMode": flag("test_mode"),
                "lastWebhookAt": moment("last_webhook_at"),
                "lastError": Plain("last_error"),
                "keyHint": Plain("key_hint"),
            },
        ),
        RowType(
            "ContactAddress",
            tables.ContactAddress,
            {
                "kind": choice(scalars.ChannelKind, "kind"),
                "address": Plain("address"),
                "optedOutAt": moment("opted_out_at"),
                "lastInboundAt": moment("last_inbound_at"),
                "inUse": flag("in_use"),
            },
        ),
        RowType(
            "Contact",
            tables.Contact,
            {
                "id": identifier("cnt"),
                "name": Plain("name"),
                "email": Plain("email"),
                "phone": Plain("phone"),
                "tags": texts("tags"),
                "version": Plain("version"),
                "createdAt": moment("created_at"),
                "updatedAt": moment("updated_at"),
                "addresses": Children("ContactAddress", "contact_id", "kind"),
                "mergedFrom": unless(lambda ids: ids not in (None, "[]", "null"), [], ("merged_ids",)),
                "paymentRequests": Page("paymentRequests", ("merged_ids",)),
                "conversation": FirstChild("Conversation", "contact_id", "id"),
                "eventCursor": EventCursor(),
                "paymentSummary": Children("ContactPaymentSummary", "contact_id", "currency, test_mode"),
            },
            replaced="merged_into_id",
            logged=True,
        ),
        RowType(
            "ContactPaymentSummary",
            tables.ContactSummary,
            {
                "currency": Plain("currency"),
                "testMode": flag("test_mode"),
                "requested": Amount(("requested_minor",)),
                "outstanding": Amount(("outstanding_minor",)),
                "paid": Amount(("paid_minor",)),
                "refunded": Amount(("refunded_minor",)),
                "net": Amount(("net_minor",)),
                "openCount": Plain("open_count"),
                "paidCount": Plain("paid_count"),
                "firstPaidAt": moment("first_paid_at"),
                "lastPaidAt": moment("last_paid_at"),
            },
        ),
        RowType(
            "Attachment",
            tables.Attachment,
            {
                "id": identifier(attachments.PREFIX),
                "name": Plain("name"),
                "contentType": Plain("content_type"),
                "sizeBytes": Plain("size_bytes"),
                "status": choice(scalars.AttachmentStatus, "status"),
                "reason": Converted(_refusal, ("reason",)),
                "url": Converted(_attachment_url, ("id", "status")),
            },
        ),
        RowType(
            "Conversation",
            tables.Conversation,
            {
                "id": identifier("cnv"),
                "unreadCount": Plain("unread_count"),
                "lastActivityAt": moment("last_activity_at"),
                "preview": Plain("preview"),
                "closedAt": moment("closed_at"),
                "waitingSince": moment("waiting_since"),
                "draft": Plain("draft"),
                "tags": texts("tags"),
                "contact": One("Contact", "contact_id"),
                "assignee": One("User", "assignee_id", nullable=True),
                "thread": Page("thread", ("merged_ids",)),
                "eventCursor": EventCursor(),
            },
            replaced="merged_into_id",
            logged=True,
        ),
        RowType(
            "Message",
            tables.Message,
            {
                "id": identifier("msg"),
                "occurredAt": moment("occurred_at"),
                "direction": choice(scalars.MessageDirection, "direction"),
                "channelKind": choice(scalars.ChannelKind, "kind"),
                "subject": Plain("subject"),
                "body": Plain("body"),
                "quotedText": Plain("quoted_text"),
                "address": Plain("address"),
                "cc": texts("cc"),
                "undeliveredCc": texts("undelivered_cc"),
                "deliveryStatus": choice(scalars.DeliveryStatus, "delivery_status", shown={"SENDING": "QUEUED"}),
                "failureReason": Plain("error_message"),
                "errorCode": Plain("error_code"),
                "templateId": Plain("template_id"),
                "reaction": Plain("reaction"),
                "editedAt": moment("edited_at"),
                "removedAt": moment("removed_at"),
                "author": By(("author", "author_id", "author_name", "direction", "contact_id"), actors.of_message),
                "channel": One("Channel", "channel_connection_id"),
                "attachments": Children("Attachment", "message_id", "n"),
                "paymentRequests": Through(
                    "PaymentRequest", "message_payment_request", "message_id", "payment_request_id"
                ),
                "resendOptions": unless(_may_resend, [], ("direction", "delivery_status")),
                "replyTo": One("Message", "reply_to_id", nullable=True),
                "retryOf": One("Message", "retry_of_id", nullable=True),
            },
            logged=True,
        ),
        RowType(
            "ActivityCard",
            tables.ActivityCard,
            {
                "id": identifier("card"),
                "occurredAt": moment("occurred_at"),
                "kind": choice(scalars.ActivityKind, "kind"),
                "status": choice(scalars.PaymentRequestStatus, "status"),
                "text": Plain("text"),
                "paymentRequest": One("PaymentRequest", "payment_request_id"),
                "message": One("Message", "message_id", nullable=True),
                "payment": Objects("Payment", ("money_fact_id",), objects.payments_of_facts, many=False),
                "actor": By(("actor", "actor_id"), actors.of_card),
            },
            logged=True,
        ),
        RowType(
            "Note",
            tables.Note,
            {
                "id": identifier("note"),
                "occurredAt": moment("occurred_at"),
                "body": Plain("body"),
                "author": By(("author",), actors.parse),
                "mentions": Through("User", "note_mention", "note_id", "user_id"),
            },
            logged=True,
        ),
        RowType(
            "PaymentRequest",
            tables.PaymentRequest,
            {
                "id": identifier("pr"),
                "number": Plain("number"),
                "status": choice(scalars.PaymentRequestStatus, "status"),
                "version": Plain("version"),
                "productName": Plain("product_name"),
                "description": Plain("description"),
                "amount": Amount(("amount_minor",)),
                "amountPaid": Amount(("amount_paid_minor",)),
                "amountDue": Amount(("amount_minor", "amount_paid_minor", "waived_minor"), minor=_due_minor),
                "waived": Amount(("waived_minor",)),
                "testMode": flag("test_mode"),
                "createdAt": moment("created_at"),
                "updatedAt": moment("updated_at"),
                "sentAt": moment("sent_at"),
                "sentVia": choice(scalars.SentVia, "sent_via", nullable=True),
                "linkCopiedAt": moment("link_copied_at"),
                "deliveryState": choice(scalars.DeliveryState, "delivery_state"),
                "firstViewedAt": moment("first_viewed_at"),
                "lastViewedAt": moment("last_viewed_at"),
                "humanViews": Plain("human_views"),
                "dueAt": moment("due_at"),
                "isOverdue": Converted(_overdue, ("due_at", "status"), clocked=True),
                "paidAt": moment("paid_at"),
                "voidedAt": moment("voided_at"),
                "voidReason": Plain("void_reason"),
                "voidPending": Converted(_void_pending, ("void_requested_at", "status")),
                "linkReleasedAt": Converted(_released, ("released_at", "status")),
                "discardedAt": moment("discarded_at"),
                "refundState": choice(scalars.RefundState, "refund_state"),
                "disputeState": choice(scalars.DisputeState, "dispute_state"),
                "lastAttempt": Group("PaymentAttempt", ("last_attempt_status", "last_attempt_at"), _ATTEMPT),
                "excess": Amount(("excess_minor",)),
                "late": Amount(("late_minor",)),
                "contact": One("Contact", "contact_id"),
                "conversation": One("Conversation", "conversation_id"),
                "checkoutUrl": Converted(_checkout_url, ("account_id", "token")),
                "channelKind": OneColumn(tables.ChannelConnection, "channel_connection_id", "kind"),
                "channel": One("Channel", "channel_connection_id", nullable=True),
                "processorKind": OneColumn(
                    tables.ProcessorConnection, "processor_connection_id", "processor", shown=providers.kind_of
                ),
                "processor": One("Processor", "processor_connection_id"),
                "createdBy": By(("created_by", "created_by_id"), actors.of_creation),
                "voidedBy": By(("void_requested_by", "void_requested_by_id", "void_requested_at"), actors.of_void),
                "payments": Objects("Payment", ("id",), objects.payments),
                "availableActions": Objects("AvailableAction", objects.ACTION_COLUMNS, objects.actions),
                "unresolved": unless(bool, [], ("unresolved",)),
                "refunds": Objects("Refund", ("id",), objects.refunds_of_requests),
                "disputes": Objects("Dispute", ("id",), objects.disputes),
            },
            logged=True,
        ),
    )
}
