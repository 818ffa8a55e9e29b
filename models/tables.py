"""The tables: columns and keys only. Rules live in states.py, money.py and ledger.py; the SQL beside the models in migrations/.

Every table of a tenant carries `account_id`. `event` has the key (account, seq) and is written and read as raw rows: event_log.py.
What Tortoise can't say (partial uniques, checks, triggers) is named in CONSTRAINTS and stands in the migration.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from tortoise import fields
from tortoise.models import Model

from models.ids import uuid7

# Said by the migrations, checked by the drift test.
CONSTRAINTS = """
append-only (triggers refuse UPDATE and DELETE): activity_card, money_fact, audit_entry; event refuses UPDATE (the retention job prunes)
partial unique: activity_card (payment_request_id) WHERE kind = 'PAYMENT_REQUEST'; the same for 'PAYMENT_RECEIVED' and 'REQUEST_VOIDED'
partial unique: processor_connection (account_id) WHERE is_default AND connected
partial index: job (due_at) WHERE status IN ('queued', 'running')
partial index: checkout_session (next_check_at) WHERE status IN ('OPENING', 'OPEN', 'PROCESSING')
check: amounts >= 0 (payment_request.amount_minor > 0), currency length 3, status and kind within their enums
event (account_id, seq) primary key
"""

# column -> table: REFERENCES table (id) ON DELETE RESTRICT wherever the column occurs. Said by the migrations, checked by the drift test.
# (Plain UUID columns rather than Tortoise's relations: every read is explicit, nothing is loaded behind a reader's back.)
FOREIGN_KEYS = {
    "account_id": "account",
    "user_id": "user_account",
    "contact_id": "contact",
    "conversation_id": "conversation",
    "processor_connection_id": "processor_connection",
    "channel_connection_id": "channel_connection",
    "payment_request_id": "payment_request",
    "checkout_session_id": "checkout_session",
    "message_id": "message",
    "money_fact_id": "money_fact",
}


class Row(Model):
    """What every table has: a UUIDv7, so that ids are in order of creation."""

    id: UUID = fields.UUIDField(primary_key=True, default=uuid7)

    class Meta:
        abstract = True


class TenantRow(Row):
    """A row that belongs to one account."""

    account_id: UUID = fields.UUIDField()

    class Meta:
        abstract = True


class Account(Row):
    """The tenant."""

    name: str = fields.CharField(max_length=120)
    default_currency: str = fields.CharField(max_length=3)
    locale: str = fields.CharField(max_length=20, default="en-US")
    time_zone: str = fields.CharField(max_length=64, default="UTC")
    contact_email: str | None = fields.CharField(max_length=254, null=True)  # shown on pay pages
    contact_phone: str | None = fields.CharField(max_length=20, null=True)
    brand_color: str | None = fields.CharField(max_length=7, null=True)
    link_message_template: str = fields.TextField()
    number_prefix: str = fields.CharField(max_length=10, default="PR-")
    request_count: int = fields.IntField(default=0)  # the last number given out
    event_seq: fields.Field[int] = fields.BigIntField(default=0)
    event_epoch: str = fields.CharField(max_length=12)  # new after a restored backup
    created_at: datetime = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "account"


class User(TenantRow):
    """A person who signs in."""

    email: str = fields.CharField(max_length=254, unique=True)  # lower case
    name: str = fields.CharField(max_length=120)
    role: str = fields.CharField(max_length=10)
    password_hash: str = fields.CharField(max_length=200)
    token_version: int = fields.IntField(default=0)  # raised to revoke every access token
    disabled_at: datetime | None = fields.DatetimeField(null=True)
    created_at: datetime = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "user_account"
        indexes = (("account_id",),)


class RefreshToken(TenantRow):
    """One use each; a second use revokes the family."""

    user_id: UUID = fields.UUIDField()
    family_id: UUID = fields.UUIDField()
    token_hash: str = fields.CharField(max_length=64, unique=True)
    expires_at: datetime = fields.DatetimeField()
    used_at: datetime | None = fields.DatetimeField(null=True)
    revoked_at: datetime | None = fields.DatetimeField(null=True)
    created_at: datetime = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "refresh_token"
        indexes = (("family_id",), ("user_id",))


class ApiKey(TenantRow):
    """For programs; only the SHA-256 is kept."""

    name: str = fields.CharField(max_length=120)
    role: str = fields.CharField(max_length=10)
    token_hash: str = fields.CharField(max_length=64, unique=True)
    hint: str = fields.CharField(max_length=12)  # last four characters
    created_at: datetime = fields.DatetimeField(auto_now_add=True)
    last_used_at: datetime | None = fields.DatetimeField(null=True)
    revoked_at: datetime | None = fields.DatetimeField(null=True)

    class Meta:
        table = "api_key"
        indexes = (("account_id",),)


class Contact(TenantRow):
    """The person who is asked to pay."""

    name: str = fields.CharField(max_length=120)
    email: str | None = fields.CharField(max_length=254, null=True)
    phone: str | None = fields.CharField(max_length=20, null=True)  # E.164
    tags: Any = fields.JSONField(default=list)
    version: int = fields.IntField(default=1)
    created_at: datetime = fields.DatetimeField(auto_now_add=True)
    updated_at: datetime = fields.DatetimeField(auto_now=True)

    class Meta:
        table = "contact"
        indexes = (("account_id", "id"),)


class ContactAddress(TenantRow):
    """The contact's identity on one kind of channel."""

    contact_id: UUID = fields.UUIDField()
    kind: str = fields.CharField(max_length=12)
    address: str = fields.CharField(max_length=254)
    opted_out_at: datetime | None = fields.DatetimeField(null=True)
    last_inbound_at: datetime | None = fields.DatetimeField(null=True)
    created_at: datetime = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "contact_address"
        unique_together = (("account_id", "kind", "address"), ("contact_id", "kind"))


class ContactSummary(TenantRow):
    """Stored totals of a contact, one row per currency and mode; always equal to what the ledger recomputes."""

    contact_id: UUID = fields.UUIDField()
    currency: str = fields.CharField(max_length=3)
    test_mode: bool = fields.BooleanField()
    requested_minor: fields.Field[int] = fields.BigIntField(default=0)
    outstanding_minor: fields.Field[int] = fields.BigIntField(default=0)
    paid_minor: fields.Field[int] = fields.BigIntField(default=0)
    refunded_minor: fields.Field[int] = fields.BigIntField(default=0)
    net_minor: fields.Field[int] = fields.BigIntField(default=0)
    open_count: int = fields.IntField(default=0)
    paid_count: int = fields.IntField(default=0)
    first_paid_at: datetime | None = fields.DatetimeField(null=True)
    last_paid_at: datetime | None = fields.DatetimeField(null=True)

    class Meta:
        table = "contact_summary"
        unique_together = (("contact_id", "currency", "test_mode"),)


class Conversation(TenantRow):
    """One per contact; spans all channels."""

    contact_id: UUID = fields.UUIDField(unique=True)
    assignee_id: UUID | None = fields.UUIDField(null=True)
    last_activity_at: datetime = fields.DatetimeField()
    last_seq: fields.Field[int] = fields.BigIntField(default=0)  # the log's number of the last thread item
    preview: str = fields.CharField(max_length=160, default="")  # of the last thread item
    unread_count: int = fields.IntField(default=0)
    draft: str | None = fields.TextField(null=True)  # the team's unsent composer text
    created_at: datetime = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "conversation"
        indexes = (("account_id", "last_activity_at", "id"),)


class ConversationFollower(TenantRow):
    """Users who want the notifications of a conversation beside its assignee and the request's creator."""

    conversation_id: UUID = fields.UUIDField()
    user_id: UUID = fields.UUIDField()

    class Meta:
        table = "conversation_follower"
        unique_together = (("conversation_id", "user_id"),)


class ChannelConnection(TenantRow):
    """One connected way to send."""

    kind: str = fields.CharField(max_length=12)
    provider: str = fields.CharField(max_length=40)  # file name in integrations/channels
    display_name: str = fields.CharField(max_length=120)
    sender: str = fields.CharField(max_length=254, default="")  # our own address on it, shown to the team
    credentials: str = fields.TextField()  # encrypted JSON
    connected: bool = fields.BooleanField(default=True)
    last_webhook_at: datetime | None = fields.DatetimeField(null=True)
    last_error: str | None = fields.CharField(max_length=300, null=True)
    version: int = fields.IntField(default=1)
    created_at: datetime = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "channel_connection"
        indexes = (("account_id",),)


class ProcessorConnection(TenantRow):
    """One connected payment processor, live or test."""

    processor: str = fields.CharField(max_length=40)  # file name in integrations/processors
    display_name: str = fields.CharField(max_length=120)
    test_mode: bool = fields.BooleanField()
    credentials: str = fields.TextField()  # encrypted JSON
    key_hint: str | None = fields.CharField(max_length=24, null=True)  # masked
    vendor_account: str | None = fields.CharField(max_length=120, null=True)
    connected: bool = fields.BooleanField(default=True)
    is_default: bool = fields.BooleanField(default=False)
    last_webhook_at: datetime | None = fields.DatetimeField(null=True)
    last_error: str | None = fields.CharField(max_length=300, null=True)
    events_read_until: datetime | None = fields.DatetimeField(null=True)  # the sweeper's place in the vendor's event list
    version: int = fields.IntField(default=1)
    created_at: datetime = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "processor_connection"
        indexes = (("account_id",),)


class PaymentRequest(TenantRow):
    """What is asked, its link and status. Status and totals are recomputed from facts by ledger.py; nothing else writes them."""

    conversation_id: UUID = fields.UUIDField()
    contact_id: UUID = fields.UUIDField()
    number: str = fields.CharField(max_length=20)
    token_hash: str = fields.CharField(max_length=64, unique=True)
    token: str = fields.CharField(max_length=300)  # encrypted
    product_name: str = fields.CharField(max_length=255)
    description: str | None = fields.TextField(null=True)
    amount_minor: fields.Field[int] = fields.BigIntField()
    currency: str = fields.CharField(max_length=3)
    test_mode: bool = fields.BooleanField()
    processor_connection_id: UUID = fields.UUIDField()
    channel_connection_id: UUID | None = fields.UUIDField(null=True)  # chosen in the dialog
    created_by_id: UUID | None = fields.UUIDField(null=True)  # null: by an API key
    status: str = fields.CharField(max_length=16, default="DRAFT")
    version: int = fields.IntField(default=1)
    amount_paid_minor: fields.Field[int] = fields.BigIntField(default=0)
    refunded_minor: fields.Field[int] = fields.BigIntField(default=0)
    excess_minor: fields.Field[int] = fields.BigIntField(default=0)
    late_minor: fields.Field[int] = fields.BigIntField(default=0)
    refund_state: str = fields.CharField(max_length=8, default="NONE")
    dispute_state: str = fields.CharField(max_length=16, default="NONE")
    sent_at: datetime | None = fields.DatetimeField(null=True)
    sent_via: str | None = fields.CharField(max_length=12, null=True)
    link_copied_at: datetime | None = fields.DatetimeField(null=True)
    due_at: datetime | None = fields.DatetimeField(null=True)
    paid_at: datetime | None = fields.DatetimeField(null=True)
    void_requested_at: datetime | None = fields.DatetimeField(null=True)
    void_requested_by_id: UUID | None = fields.UUIDField(null=True)
    void_reason: str | None = fields.CharField(max_length=500, null=True)
    voided_at: datetime | None = fields.DatetimeField(null=True)
    discarded_at: datetime | None = fields.DatetimeField(null=True)
    first_viewed_at: datetime | None = fields.DatetimeField(null=True)
    last_viewed_at: datetime | None = fields.DatetimeField(null=True)
    human_views: int = fields.IntField(default=0)
    last_message_id: UUID | None = fields.UUIDField(null=True)  # the newest message that carries the link
    delivery_state: str = fields.CharField(max_length=12, default="NOT_SENT")
    last_attempt_status: str | None = fields.CharField(max_length=12, null=True)
    last_attempt_code: str | None = fields.CharField(max_length=80, null=True)
    last_attempt_message: str | None = fields.CharField(max_length=300, null=True)
    last_attempt_at: datetime | None = fields.DatetimeField(null=True)
    created_at: datetime = fields.DatetimeField(auto_now_add=True)
    updated_at: datetime = fields.DatetimeField(auto_now=True)

    class Meta:
        table = "payment_request"
        unique_together = (("account_id", "number"),)
        indexes = (("contact_id", "id"), ("account_id", "created_at"), ("conversation_id",))


class Message(TenantRow):
    """One message in the thread, in or out."""

    conversation_id: UUID = fields.UUIDField()
    contact_id: UUID = fields.UUIDField()
    seq: fields.Field[int] = fields.BigIntField()  # its place in the account's log, and so in the thread
    direction: str = fields.CharField(max_length=8)
    kind: str = fields.CharField(max_length=12)  # channel kind
    channel_connection_id: UUID = fields.UUIDField()
    address: str = fields.CharField(max_length=254)  # the contact's
    subject: str | None = fields.CharField(max_length=255, null=True)
    body: str = fields.TextField()
    delivery_status: str = fields.CharField(max_length=12)
    error_code: str | None = fields.CharField(max_length=40, null=True)
    error_message: str | None = fields.CharField(max_length=300, null=True)
    attempt_id: str | None = fields.CharField(max_length=40, null=True)  # committed before the vendor is called
    external_id: str | None = fields.CharField(max_length=120, null=True)
    retry_of_id: UUID | None = fields.UUIDField(null=True)
    author_id: UUID | None = fields.UUIDField(null=True)  # user
    author_name: str | None = fields.CharField(max_length=120, null=True)
    occurred_at: datetime = fields.DatetimeField()
    sending_at: datetime | None = fields.DatetimeField(null=True)
    updated_at: datetime = fields.DatetimeField(auto_now=True)

    class Meta:
        table = "message"
        unique_together = (("channel_connection_id", "external_id"), ("conversation_id", "seq"))


class MessagePaymentRequest(TenantRow):
    """Which requests' links a message carries."""

    message_id: UUID = fields.UUIDField()
    payment_request_id: UUID = fields.UUIDField()

    class Meta:
        table = "message_payment_request"
        unique_together = (("message_id", "payment_request_id"),)
        indexes = (("payment_request_id",),)


class ActivityCard(TenantRow):
    """An entry of the thread that the system logs. Append-only."""

    conversation_id: UUID = fields.UUIDField()
    contact_id: UUID = fields.UUIDField()
    seq: fields.Field[int] = fields.BigIntField()
    kind: str = fields.CharField(max_length=24)
    status: str = fields.CharField(max_length=16)  # of the request when logged
    payment_request_id: UUID = fields.UUIDField()
    money_fact_id: UUID | None = fields.UUIDField(null=True)
    message_id: UUID | None = fields.UUIDField(null=True)
    text: str = fields.CharField(max_length=500)
    actor_id: UUID | None = fields.UUIDField(null=True)  # user; null: the system or the contact
    key: str = fields.CharField(max_length=160)  # what it says, once
    occurred_at: datetime = fields.DatetimeField()

    class Meta:
        table = "activity_card"
        unique_together = (("account_id", "key"), ("conversation_id", "seq"))
        indexes = (("payment_request_id",),)


class CheckoutSession(TenantRow):
    """One attempt to pay, opened at a processor."""

    payment_request_id: UUID = fields.UUIDField()
    processor_connection_id: UUID = fields.UUIDField()
    n: int = fields.IntField()
    idempotency_key: str = fields.CharField(max_length=80, unique=True)
    amount_minor: fields.Field[int] = fields.BigIntField()
    currency: str = fields.CharField(max_length=3)
    status: str = fields.CharField(max_length=12, default="OPENING")  # OPENING, then CheckoutStatus; ABANDONED: never made
    external_id: str | None = fields.CharField(max_length=200, null=True)
    url: str | None = fields.TextField(null=True)
    expires_at: datetime | None = fields.DatetimeField(null=True)
    returned_at: datetime | None = fields.DatetimeField(null=True)  # the contact came back from the processor
    next_check_at: datetime | None = fields.DatetimeField(null=True)
    checks: int = fields.IntField(default=0)
    created_at: datetime = fields.DatetimeField(auto_now_add=True)
    updated_at: datetime = fields.DatetimeField(auto_now=True)

    class Meta:
        table = "checkout_session"
        unique_together = (("payment_request_id", "n"), ("processor_connection_id", "external_id"))


class MoneyFact(TenantRow):
    """What a processor said happened to money, once per outcome. Append-only: the ledger."""

    payment_request_id: UUID = fields.UUIDField()
    contact_id: UUID = fields.UUIDField()
    checkout_session_id: UUID | None = fields.UUIDField(null=True)
    processor_connection_id: UUID | None = fields.UUIDField(null=True)
    processor: str | None = fields.CharField(max_length=40, null=True)  # null: recorded by hand
    kind: str = fields.CharField(max_length=16)
    external_id: str = fields.CharField(max_length=200)  # the money's
    outcome: str = fields.CharField(max_length=12)
    amount_minor: fields.Field[int] = fields.BigIntField()
    currency: str = fields.CharField(max_length=3)
    counted: bool = fields.BooleanField()  # amount and currency equal its checkout's
    after_void: bool = fields.BooleanField(default=False)
    charge_external_id: str | None = fields.CharField(max_length=200, null=True)
    fee_minor: fields.Field[int] | None = fields.BigIntField(null=True)
    method_summary: str | None = fields.CharField(max_length=80, null=True)
    failure_code: str | None = fields.CharField(max_length=80, null=True)
    failure_message: str | None = fields.CharField(max_length=300, null=True)
    test_mode: bool = fields.BooleanField()
    source: str = fields.CharField(max_length=12)  # webhook, return, sweeper, void, manual
    occurred_at: datetime = fields.DatetimeField()
    recorded_at: datetime = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "money_fact"
        unique_together = (("processor_connection_id", "kind", "external_id", "outcome"),)
        indexes = (("payment_request_id", "id"), ("contact_id", "id"))


class ProcessorEvent(TenantRow):
    """The webhook inbox: kept before it is understood."""

    processor_connection_id: UUID = fields.UUIDField()
    external_id: str = fields.CharField(max_length=200)
    type: str = fields.CharField(max_length=120)
    body: str = fields.TextField()
    received_at: datetime = fields.DatetimeField()
    handled_at: datetime | None = fields.DatetimeField(null=True)
    result: str | None = fields.CharField(max_length=20, null=True)  # recorded, repeated, foreign, ignored
    attempts: int = fields.IntField(default=0)
    error: str | None = fields.CharField(max_length=300, null=True)

    class Meta:
        table = "processor_event"
        unique_together = (("processor_connection_id", "external_id"),)


class Notification(TenantRow):
    """One user is told one thing once."""

    user_id: UUID = fields.UUIDField()
    seq: fields.Field[int] = fields.BigIntField()
    kind: str = fields.CharField(max_length=24)
    title: str = fields.CharField(max_length=200)
    body: str = fields.CharField(max_length=500)
    payment_request_id: UUID | None = fields.UUIDField(null=True)
    conversation_id: UUID | None = fields.UUIDField(null=True)
    key: str = fields.CharField(max_length=160)  # user and cause
    read_at: datetime | None = fields.DatetimeField(null=True)
    created_at: datetime = fields.DatetimeField()

    class Meta:
        table = "notification"
        unique_together = (("account_id", "key"),)
        indexes = (("user_id", "seq"),)


class IdempotencyKey(TenantRow):
    """A mutation's promise to run once."""

    mutation: str = fields.CharField(max_length=60)
    key: str = fields.CharField(max_length=80)
    input_hash: str = fields.CharField(max_length=64)
    state: str = fields.CharField(max_length=8)  # running, done
    result: Any = fields.JSONField(null=True)  # ids, from which the answer is rebuilt
    locked_until: datetime = fields.DatetimeField()  # a running one that is older belongs to a process that died
    created_at: datetime = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "idempotency_key"
        unique_together = (("account_id", "mutation", "key"),)
        indexes = (("created_at",),)


class Job(Row):
    """Work to do after the commit; the row is the truth."""

    account_id: UUID | None = fields.UUIDField(null=True)
    kind: str = fields.CharField(max_length=60)
    payload: Any = fields.JSONField(default=dict)
    key: str | None = fields.CharField(max_length=200, null=True, unique=True)
    status: str = fields.CharField(max_length=8, default="queued")  # queued, running, done, dead
    attempts: int = fields.IntField(default=0)
    max_attempts: int = fields.IntField(default=8)
    due_at: datetime = fields.DatetimeField()
    lease: str | None = fields.CharField(max_length=40, null=True)
    last_error: str | None = fields.CharField(max_length=300, null=True)
    created_at: datetime = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "job"


class Tick(Model):
    """A periodic task's next slot."""

    name: str = fields.CharField(max_length=60, primary_key=True)
    every_ms: int = fields.IntField()
    next_at: datetime = fields.DatetimeField()

    class Meta:
        table = "tick"


class AuditEntry(TenantRow):
    """Who changed what in the settings and on a contact's record. Append-only."""

    actor_id: UUID | None = fields.UUIDField(null=True)
    actor_kind: str = fields.CharField(max_length=8)  # user, api_key, system
    action: str = fields.CharField(max_length=60)
    subject: str = fields.CharField(max_length=60)
    detail: Any = fields.JSONField(default=dict)  # never a secret
    occurred_at: datetime = fields.DatetimeField()

    class Meta:
        table = "audit_entry"
        indexes = (("account_id", "id"),)


class SandboxCheckout(Row):
    """The sandbox processor's own book. A stand-in for a vendor's database: no tenant's code reads it."""

    external_id: str = fields.CharField(max_length=60, unique=True)
    connection_id: UUID = fields.UUIDField()
    idempotency_key: str = fields.CharField(max_length=80)
    status: str = fields.CharField(max_length=12)
    amount_minor: fields.Field[int] = fields.BigIntField()
    currency: str = fields.CharField(max_length=3)
    request_reference: str = fields.CharField(max_length=60)
    number: str = fields.CharField(max_length=20)
    product_name: str = fields.CharField(max_length=255)
    description: str | None = fields.TextField(null=True)
    business_name: str = fields.CharField(max_length=120, default="")
    success_url: str = fields.TextField()
    cancel_url: str = fields.TextField()
    webhook_url: str = fields.TextField()
    expires_at: datetime = fields.DatetimeField()
    payments: Any = fields.JSONField(default=list)
    created_at: datetime = fields.DatetimeField(auto_now_add=True)
    updated_at: datetime = fields.DatetimeField(auto_now=True)

    class Meta:
        table = "sandbox_checkout"
        unique_together = (("connection_id", "idempotency_key"),)
