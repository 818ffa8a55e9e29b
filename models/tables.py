"""The tables: columns and keys only. Rules live in states.py, money.py and ledger.py; the SQL beside the models in migrations/.

Every table of a tenant carries `account_id`. `event` has the key (account, seq) and is written and read as raw rows: event_log.py.
What Tortoise can't say (partial uniques, checks, triggers) is named in CONSTRAINTS and stands in the migration.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from tortoise import fields
from tortoise.backends.base.client import BaseDBAsyncClient
from tortoise.models import Model

from models import searching
from models.ids import uuid7
from models.storable import json_text

# Said by the migrations, checked by the drift test.
CONSTRAINTS = """
append-only (triggers refuse UPDATE and DELETE): activity_card, money_fact, audit_entry; event refuses UPDATE (the retention job prunes)
partial unique: activity_card (payment_request_id) WHERE kind = 'PAYMENT_REQUEST'; the same for 'PAYMENT_RECEIVED' and 'REQUEST_VOIDED'
partial unique: processor_connection (account_id) WHERE is_default AND connected
partial unique: money_fact (account_id, kind, external_id, outcome) WHERE processor_connection_id IS NULL
partial unique: money_fact (processor_connection_id, kind, external_id, outcome) WHERE kind <> 'DISPUTE'; with occurred_at for disputes
partial index: job (due_at) WHERE status IN ('queued', 'running')
partial index: checkout_session (next_check_at) WHERE next_check_at IS NOT NULL
partial index: message (channel_connection_id, relay_id) WHERE relay_id IS NOT NULL
partial index: contact (id) and payment_request (id) WHERE search IS NULL
partial index: contact (merged_into_id) WHERE merged_into_id IS NOT NULL
partial unique: contact_address (contact_id, kind) WHERE in_use
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

    id = fields.UUIDField(primary_key=True, default=uuid7)

    class Meta:
        abstract = True


class TenantRow(Row):
    """A row that belongs to one account."""

    account_id = fields.UUIDField()

    class Meta:
        abstract = True


class Searchable(TenantRow):
    """A row that people search for. Every save stores its searched values folded; NULL: not done yet (accounts/search_index.py)."""

    SEARCHED: ClassVar[tuple[str, ...]]  # its columns that are searched
    search = fields.TextField(null=True)

    class Meta:
        abstract = True

    async def save(
        self,
        using_db: BaseDBAsyncClient | None = None,
        update_fields: Iterable[str] | None = None,
        force_create: bool = False,
        force_update: bool = False,
    ) -> None:
        """Save, with the searched text of what the row says now."""
        self.search = searching.stored(getattr(self, name) for name in self.SEARCHED)
        if update_fields is not None:
            update_fields = {*update_fields, "search"}
        await super().save(using_db, update_fields, force_create, force_update)


class Account(Row):
    """The tenant."""

    name = fields.CharField(max_length=120)
    default_currency = fields.CharField(max_length=3)
    locale = fields.CharField(max_length=20, default="en-US")
    time_zone = fields.CharField(max_length=64, default="UTC")
    contact_email = fields.CharField(max_length=254, null=True)  # shown on pay pages
    contact_phone = fields.CharField(max_length=20, null=True)
    link_message_template = fields.TextField()
    number_prefix = fields.CharField(max_length=10, default="PR-")
    request_count = fields.IntField(default=0)  # the last number given out
    event_seq: fields.Field[int] = fields.BigIntField(default=0)
    event_epoch = fields.CharField(max_length=12)  # new after a restored backup
    merge_count = fields.IntField(default=0)  # of contacts; 0: no id has been replaced
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "account"


class User(TenantRow):
    """A person who signs in."""

    email = fields.CharField(max_length=254, unique=True)  # lower case
    name = fields.CharField(max_length=120)
    role = fields.CharField(max_length=10)
    password_hash = fields.CharField(max_length=200)
    token_version = fields.IntField(default=0)  # raised to revoke every access token
    disabled_at = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "user_account"
        indexes = (("account_id",),)


class RefreshToken(TenantRow):
    """One use each; a second use revokes the family."""

    user_id = fields.UUIDField()
    family_id = fields.UUIDField()
    token_hash = fields.CharField(max_length=64, unique=True)
    expires_at = fields.DatetimeField()
    used_at = fields.DatetimeField(null=True)
    revoked_at = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "refresh_token"
        indexes = (("family_id",), ("user_id",))


class ApiKey(TenantRow):
    """For programs; only the SHA-256 is kept."""

    name = fields.CharField(max_length=120)
    role = fields.CharField(max_length=10)
    token_hash = fields.CharField(max_length=64, unique=True)
    hint = fields.CharField(max_length=12)  # last four characters
    created_at = fields.DatetimeField(auto_now_add=True)
    last_used_at = fields.DatetimeField(null=True)
    revoked_at = fields.DatetimeField(null=True)
    expires_at = fields.DatetimeField(null=True)  # null: never, as keys were made before they ended
    manages_keys = fields.BooleanField(default=False)

    class Meta:
        table = "api_key"
        indexes = (("account_id",),)


class Contact(Searchable):
    """The person who is asked to pay."""

    SEARCHED = ("name", "email", "phone", "also_known_as")

    name = fields.CharField(max_length=120)
    email = fields.CharField(max_length=254, null=True)
    phone = fields.CharField(max_length=20, null=True)  # E.164
    tags: fields.Field[Any] = fields.JSONField(default=list, encoder=json_text)
    merged_into_id = fields.UUIDField(null=True)  # the contact that is kept in its place
    merged_at = fields.DatetimeField(null=True)
    merged_ids: fields.Field[Any] = fields.JSONField(
        null=True, encoder=json_text
    )  # of a kept one: all ids merged into it
    also_known_as = fields.TextField(
        null=True
    )  # of a kept one: names, e-mails and phones of the others, to be found by
    version = fields.IntField(default=1)
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        table = "contact"
        indexes = (("account_id", "id"),)


class ContactAddress(TenantRow):
    """The contact's identity on one kind of channel."""

    contact_id = fields.UUIDField()
    kind = fields.CharField(max_length=12)
    address = fields.CharField(max_length=254)
    opted_out_at = fields.DatetimeField(null=True)
    last_inbound_at = fields.DatetimeField(null=True)
    in_use = fields.BooleanField(default=True)  # of a merged contact's several of one kind: the one that is written to
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "contact_address"
        unique_together = (("account_id", "kind", "address"),)


class OptOut(TenantRow):
    """An address wrote STOP to one sender of ours. While one stands, it is opted out of the whole kind of channel, whoever has it."""

    channel_connection_id = fields.UUIDField()
    kind = fields.CharField(max_length=12)
    address = fields.CharField(max_length=254)
    blocked = fields.BooleanField(default=False)  # the vendor says so; the contact has not written STOP
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "opt_out"
        unique_together = (("channel_connection_id", "address"),)
        indexes = (("account_id", "kind", "address"),)


class Blocking(TenantRow):
    """When the vendor's newest block, or end of one, of an address was."""

    channel_connection_id = fields.UUIDField()
    address = fields.CharField(max_length=254)
    told_at = fields.DatetimeField()

    class Meta:
        table = "blocking"
        unique_together = (("channel_connection_id", "address"),)


class ContactSummary(TenantRow):
    """Stored totals of a contact, one row per currency and mode; always equal to what the ledger recomputes."""

    contact_id = fields.UUIDField()
    currency = fields.CharField(max_length=3)
    test_mode = fields.BooleanField()
    requested_minor: fields.Field[int] = fields.BigIntField(default=0)
    outstanding_minor: fields.Field[int] = fields.BigIntField(default=0)
    paid_minor: fields.Field[int] = fields.BigIntField(default=0)
    refunded_minor: fields.Field[int] = fields.BigIntField(default=0)
    net_minor: fields.Field[int] = fields.BigIntField(default=0)
    open_count = fields.IntField(default=0)
    paid_count = fields.IntField(default=0)
    first_paid_at = fields.DatetimeField(null=True)
    last_paid_at = fields.DatetimeField(null=True)

    class Meta:
        table = "contact_summary"
        unique_together = (("contact_id", "currency", "test_mode"),)


class Conversation(TenantRow):
    """One per contact; spans all channels."""

    contact_id = fields.UUIDField(unique=True)
    assignee_id = fields.UUIDField(null=True)
    last_activity_at = fields.DatetimeField()
    preview = fields.CharField(max_length=160, default="")  # of the last thread item
    unread_count = fields.IntField(default=0)
    draft = fields.TextField(null=True)  # the team's unsent composer text
    closed_at = fields.DatetimeField(null=True)  # done with; the contact's next message opens it again
    merged_into_id = fields.UUIDField(null=True)  # the conversation that is kept in its place
    merged_ids: fields.Field[Any] = fields.JSONField(
        null=True, encoder=json_text
    )  # of a kept one: all ids merged into it
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "conversation"
        indexes = (("account_id", "last_activity_at", "id"),)


class ConversationFollower(TenantRow):
    """Users who want the notifications of a conversation beside its assignee and the request's creator."""

    conversation_id = fields.UUIDField()
    user_id = fields.UUIDField()

    class Meta:
        table = "conversation_follower"
        unique_together = (("conversation_id", "user_id"),)


class ChannelConnection(TenantRow):
    """One connected way to send."""

    kind = fields.CharField(max_length=12)
    provider = fields.CharField(max_length=40)  # file name in integrations/channels
    display_name = fields.CharField(max_length=120)
    sender = fields.CharField(max_length=254, default="")  # our own address on it, shown to the team
    credentials = fields.TextField()  # encrypted JSON
    connected = fields.BooleanField(default=True)
    allowed_origins: fields.Field[Any] = fields.JSONField(
        default=list, encoder=json_text
    )  # web chat: the sites that may show the widget
    next_send_at = fields.DatetimeField(null=True)  # the vendor's rate limit: nothing is sent before
    last_webhook_at = fields.DatetimeField(null=True)
    last_error = fields.CharField(max_length=300, null=True)
    version = fields.IntField(default=1)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "channel_connection"
        indexes = (("account_id",),)


class ProcessorConnection(TenantRow):
    """One connected payment processor, live or test."""

    processor = fields.CharField(max_length=40)  # file name in integrations/processors
    display_name = fields.CharField(max_length=120)
    test_mode = fields.BooleanField()
    credentials = fields.TextField()  # encrypted JSON
    key_hint = fields.CharField(max_length=24, null=True)  # masked
    vendor_account = fields.CharField(max_length=120, null=True)
    connected = fields.BooleanField(default=True)
    is_default = fields.BooleanField(default=False)
    last_webhook_at = fields.DatetimeField(null=True)
    last_error = fields.CharField(max_length=300, null=True)
    events_read_until = fields.DatetimeField(null=True)  # the sweeper's place in the vendor's event list
    checkouts_read_until = fields.DatetimeField(null=True)  # the same in its list of checkouts
    webhook_registered = fields.BooleanField(default=False)  # at the vendor by us, not by a person
    webhook_claimed_until = fields.DatetimeField(null=True)  # one call is registering it
    is_duplicate = fields.BooleanField(default=False)  # of a connection to the same vendor account, older than that key
    version = fields.IntField(default=1)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "processor_connection"
        indexes = (("account_id",),)


class PaymentRequest(Searchable):
    """What is asked, its link and status. Status and totals are recomputed from facts by ledger.py; nothing else writes them."""

    SEARCHED = ("number", "product_name")

    conversation_id = fields.UUIDField()
    contact_id = fields.UUIDField()
    number = fields.CharField(max_length=20)
    token_hash = fields.CharField(max_length=64, unique=True)
    token = fields.CharField(max_length=300)  # encrypted
    product_name = fields.CharField(max_length=255)
    description = fields.TextField(null=True)
    amount_minor: fields.Field[int] = fields.BigIntField()
    currency = fields.CharField(max_length=3)
    test_mode = fields.BooleanField()
    processor_connection_id = fields.UUIDField()
    channel_connection_id = fields.UUIDField(null=True)  # chosen in the dialog
    created_by_id = fields.UUIDField(null=True)  # null: by an API key
    status = fields.CharField(max_length=16, default="DRAFT")
    version = fields.IntField(default=1)
    amount_paid_minor: fields.Field[int] = fields.BigIntField(default=0)
    refunded_minor: fields.Field[int] = fields.BigIntField(default=0)
    excess_minor: fields.Field[int] = fields.BigIntField(default=0)
    late_minor: fields.Field[int] = fields.BigIntField(default=0)
    waived_minor: fields.Field[int] = fields.BigIntField(default=0)  # what the team does without
    unresolved = fields.BooleanField(default=False)  # money that arrived waits for the team's decision
    refund_state = fields.CharField(max_length=8, default="NONE")
    dispute_state = fields.CharField(max_length=16, default="NONE")
    sent_at = fields.DatetimeField(null=True)
    sent_via = fields.CharField(max_length=12, null=True)
    link_copied_at = fields.DatetimeField(null=True)
    due_at = fields.DatetimeField(null=True)
    overdue_for = fields.DatetimeField(null=True)  # the due date whose passing the log has told
    paid_at = fields.DatetimeField(null=True)
    void_requested_at = fields.DatetimeField(null=True)
    releasable_at = fields.DatetimeField(null=True)  # PROCESSING: from when on what holds the link may be released
    released_at = fields.DatetimeField(null=True)  # PROCESSING, and yet it can be paid another way
    void_requested_by_id = fields.UUIDField(null=True)
    void_reason = fields.CharField(max_length=500, null=True)
    voided_at = fields.DatetimeField(null=True)
    discarded_at = fields.DatetimeField(null=True)
    first_viewed_at = fields.DatetimeField(null=True)
    last_viewed_at = fields.DatetimeField(null=True)
    human_views = fields.IntField(default=0)
    last_message_id = fields.UUIDField(null=True)  # the newest message that carries the link
    delivery_state = fields.CharField(max_length=12, default="NOT_SENT")
    last_attempt_status = fields.CharField(max_length=12, null=True)
    last_attempt_code = fields.CharField(max_length=80, null=True)
    last_attempt_message = fields.CharField(max_length=300, null=True)
    last_attempt_at = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        table = "payment_request"
        unique_together = (("account_id", "number"),)
        indexes = (("contact_id", "id"), ("account_id", "created_at"), ("conversation_id",))


class Message(TenantRow):
    """One message in the thread, in or out."""

    conversation_id = fields.UUIDField()
    contact_id = fields.UUIDField()
    seq: fields.Field[int] = fields.BigIntField()  # its place in the account's log, and so in the thread
    direction = fields.CharField(max_length=8)
    kind = fields.CharField(max_length=12)  # channel kind
    channel_connection_id = fields.UUIDField()
    address = fields.CharField(max_length=254)  # the contact's
    subject = fields.CharField(max_length=255, null=True)
    body = fields.TextField()
    quoted_text = fields.TextField(null=True)  # of earlier messages, which `body` leaves out
    cc: fields.Field[Any] = fields.JSONField(null=True)  # addresses of a letter's other recipients
    undelivered_cc: fields.Field[Any] = fields.JSONField(null=True)  # those that it did not reach
    delivery_status = fields.CharField(max_length=12)
    error_code = fields.CharField(max_length=40, null=True)
    error_message = fields.CharField(max_length=300, null=True)
    attempt_id = fields.CharField(max_length=40, null=True)  # committed before the vendor is called
    external_id = fields.CharField(max_length=120, null=True)
    relay_id = fields.CharField(max_length=120, null=True)  # a relay's name for it, which may replace our Message-ID
    retry_of_id = fields.UUIDField(null=True)
    template_id = fields.CharField(
        max_length=80, null=True
    )  # the vendor's id of an approved template, sent in place of the body
    template_variables: fields.Field[Any] = fields.JSONField(null=True, encoder=json_text)  # placeholder -> text
    author_id = fields.UUIDField(null=True)  # user
    author_name = fields.CharField(max_length=120, null=True)
    reply_to_id = fields.UUIDField(null=True)  # the message that it answers, where the channel tells
    reaction = fields.CharField(max_length=40, null=True)  # the contact's, an emoji
    edited_at = fields.DatetimeField(null=True)  # its writer changed the text afterwards
    removed_at = fields.DatetimeField(null=True)  # its writer took it back: text and files are gone
    occurred_at = fields.DatetimeField()
    sending_at = fields.DatetimeField(null=True)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        table = "message"
        unique_together = (("channel_connection_id", "external_id"), ("conversation_id", "seq"))


class Attachment(TenantRow):
    """A file that a contact sent: what is known of it, and its bytes once they were fetched safely."""

    message_id = fields.UUIDField()
    n = fields.IntField()  # its place in the message, from 1
    name = fields.CharField(max_length=255)
    content_type = fields.CharField(max_length=120)
    size_bytes: fields.Field[int] | None = fields.BigIntField(null=True)
    source_url = fields.TextField(null=True)  # encrypted: a vendor's address may carry a token
    status = fields.CharField(max_length=12, default="PENDING")
    reason = fields.CharField(max_length=60, null=True)  # why it was REFUSED or FAILED
    content = fields.BinaryField(null=True)
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        table = "attachment"
        unique_together = (("message_id", "n"),)


class Visitor(TenantRow):
    """A browser that uses the web chat widget. Its token is the only key to its conversation."""

    channel_connection_id = fields.UUIDField()
    contact_id = fields.UUIDField(null=True)  # null until it writes
    token_hash = fields.CharField(max_length=64, unique=True)
    external_id = fields.CharField(max_length=120, null=True)  # who the site says it is, by a signed identity
    created_at = fields.DatetimeField(auto_now_add=True)
    last_seen_at = fields.DatetimeField()

    class Meta:
        table = "visitor"
        indexes = (("channel_connection_id", "external_id"),)


class MessagePaymentRequest(TenantRow):
    """Which requests' links a message carries."""

    message_id = fields.UUIDField()
    payment_request_id = fields.UUIDField()

    class Meta:
        table = "message_payment_request"
        unique_together = (("message_id", "payment_request_id"),)
        indexes = (("payment_request_id",),)


class ActivityCard(TenantRow):
    """An entry of the thread that the system logs. Append-only."""

    conversation_id = fields.UUIDField()
    contact_id = fields.UUIDField()
    seq: fields.Field[int] = fields.BigIntField()
    kind = fields.CharField(max_length=24)
    status = fields.CharField(max_length=16)  # of the request when logged
    payment_request_id = fields.UUIDField()
    money_fact_id = fields.UUIDField(null=True)
    message_id = fields.UUIDField(null=True)
    text = fields.CharField(max_length=500)
    actor_id = fields.UUIDField(null=True)  # user; null: the system or the contact
    key = fields.CharField(max_length=160)  # what it says, once
    occurred_at = fields.DatetimeField()

    class Meta:
        table = "activity_card"
        unique_together = (("account_id", "key"), ("conversation_id", "seq"))
        indexes = (("payment_request_id",),)


class CheckoutSession(TenantRow):
    """One attempt to pay, opened at a processor."""

    payment_request_id = fields.UUIDField()
    processor_connection_id = fields.UUIDField()
    n = fields.IntField()
    idempotency_key = fields.CharField(max_length=80, unique=True)
    amount_minor: fields.Field[int] = fields.BigIntField()
    currency = fields.CharField(max_length=3)
    status = fields.CharField(max_length=12, default="OPENING")  # OPENING, then CheckoutStatus; ABANDONED: never made
    external_id = fields.CharField(max_length=200, null=True)
    url = fields.TextField(null=True)
    expires_at = fields.DatetimeField(null=True)
    returned_at = fields.DatetimeField(null=True)  # the contact came back from the processor
    read_at = fields.DatetimeField(null=True)  # a page last had it read at its processor
    capturing_at = fields.DatetimeField(null=True)  # committed before we take the money of an approved checkout
    capture_n = fields.IntField(default=0)  # how often that was begun: the number in the capture's key
    closing_at = fields.DatetimeField(null=True)  # to be closed at its processor: no capture begins after this
    processing_at = fields.DatetimeField(null=True)  # when we learned that its money is under way
    delayed = fields.BooleanField(default=False)  # the processor said that this money takes days
    delayed_method = fields.CharField(max_length=60, null=True)  # how it is paid: OXXO, SEPA Direct Debit
    delayed_until = fields.DatetimeField(null=True)  # when it ends unpaid, where the processor says so
    released_at = fields.DatetimeField(
        null=True
    )  # set once: its money no longer keeps the contact from paying another way
    next_check_at = fields.DatetimeField(null=True)
    checks = fields.IntField(default=0)
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        table = "checkout_session"
        unique_together = (("payment_request_id", "n"), ("processor_connection_id", "external_id"))


class MoneyFact(TenantRow):
    """What a processor said happened to money, once per outcome, of a dispute once per outcome and time; and what the team decided
    about it (ACCEPTANCE, WAIVER). Append-only: the ledger.
    """

    payment_request_id = fields.UUIDField()
    contact_id = fields.UUIDField()
    checkout_session_id = fields.UUIDField(null=True)
    processor_connection_id = fields.UUIDField(null=True)
    processor = fields.CharField(max_length=40, null=True)  # null: recorded by hand
    kind = fields.CharField(max_length=16)
    external_id = fields.CharField(max_length=200)  # the money's
    outcome = fields.CharField(max_length=12)
    amount_minor: fields.Field[int] = fields.BigIntField()
    currency = fields.CharField(max_length=3)
    counted = fields.BooleanField()  # amount and currency equal its checkout's; what counts besides: ledger.counting
    confirmed = fields.BooleanField(default=True)  # of a charge: False if its processor could not be asked
    # Of a confirmed charge: what its checkout asked for, in the same currency; null: it does not add up with others.
    asked_minor: fields.Field[int] | None = fields.BigIntField(null=True)
    after_void = fields.BooleanField(default=False)
    charge_external_id = fields.CharField(max_length=200, null=True)
    fee_minor: fields.Field[int] | None = fields.BigIntField(null=True)
    method_summary = fields.CharField(max_length=80, null=True)
    failure_code = fields.CharField(max_length=80, null=True)
    failure_message = fields.CharField(max_length=300, null=True)
    response_due_at = fields.DatetimeField(null=True)  # of a dispute: until when the business may answer
    dispute_reason = fields.CharField(max_length=80, null=True)
    inquiry = fields.BooleanField(default=False)  # of a dispute: the bank only asked when this was told
    reversal = fields.BooleanField(default=False)  # of a refund: the vendor itself took the money back
    test_mode = fields.BooleanField()
    source = fields.CharField(max_length=12)  # webhook, return, sweeper, void, refund, manual
    occurred_at = fields.DatetimeField()
    recorded_at = fields.DatetimeField(auto_now_add=True)
    note = fields.CharField(max_length=500, null=True)  # of money recorded by hand, as is the next
    recorded_by_id = fields.UUIDField(null=True)  # user; null: an API key, or a processor

    class Meta:
        table = "money_fact"
        indexes = (("payment_request_id", "id"), ("contact_id", "id"))


class Refund(TenantRow):
    """Money that we have asked a processor to give back. Committed with its key before the call; the ledger has what came of it."""

    payment_request_id = fields.UUIDField()
    money_fact_id = fields.UUIDField()  # of the charge
    charge_external_id = fields.CharField(max_length=200)
    processor_connection_id = fields.UUIDField()
    idempotency_key = fields.CharField(max_length=80, unique=True)
    amount_minor: fields.Field[int] = fields.BigIntField()
    currency = fields.CharField(max_length=3)
    reason = fields.CharField(max_length=24)
    status = fields.CharField(max_length=12, default="PENDING")  # or UNKNOWN: the processor's answer was lost
    external_id = fields.CharField(max_length=200, null=True)
    failure_reason = fields.CharField(max_length=300, null=True)
    checks = fields.IntField(default=0)
    requested_by_id = fields.UUIDField(null=True)  # user; null: an API key
    channel_connection_id = fields.UUIDField(null=True)  # where the contact shall be told
    message_id = fields.UUIDField(null=True)  # how the contact was told
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        table = "refund"
        unique_together = (("processor_connection_id", "external_id"),)
        indexes = (("payment_request_id",),)


class ProcessorEvent(TenantRow):
    """The webhook inbox: kept before it is understood."""

    processor_connection_id = fields.UUIDField()
    external_id = fields.CharField(max_length=200)
    type = fields.CharField(max_length=120)
    body = fields.TextField()
    received_at = fields.DatetimeField()
    handled_at = fields.DatetimeField(null=True)
    result = fields.CharField(max_length=20, null=True)  # recorded, repeated, foreign, ignored
    attempts = fields.IntField(default=0)
    error = fields.CharField(max_length=300, null=True)

    class Meta:
        table = "processor_event"
        unique_together = (("processor_connection_id", "external_id"),)


class Notification(TenantRow):
    """One user is told one thing once."""

    user_id = fields.UUIDField()
    seq: fields.Field[int] = fields.BigIntField()
    kind = fields.CharField(max_length=24)
    title = fields.CharField(max_length=200)
    body = fields.CharField(max_length=500)
    payment_request_id = fields.UUIDField(null=True)
    conversation_id = fields.UUIDField(null=True)
    key = fields.CharField(max_length=160)  # user and cause
    read_at = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField()

    class Meta:
        table = "notification"
        unique_together = (("account_id", "key"),)
        indexes = (("user_id", "seq"),)


class IdempotencyKey(TenantRow):
    """A mutation's promise to run once."""

    mutation = fields.CharField(max_length=60)
    key = fields.CharField(max_length=80)
    input_hash = fields.CharField(max_length=64)
    state = fields.CharField(max_length=8)  # running, done
    result: fields.Field[Any] = fields.JSONField(null=True, encoder=json_text)  # ids, from which the answer is rebuilt
    locked_until = fields.DatetimeField()  # a running one that is older belongs to a process that died
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "idempotency_key"
        unique_together = (("account_id", "mutation", "key"),)
        indexes = (("created_at",),)


class Job(Row):
    """Work to do after the commit; the row is the truth."""

    account_id = fields.UUIDField(null=True)
    kind = fields.CharField(max_length=60)
    payload: fields.Field[Any] = fields.JSONField(default=dict, encoder=json_text)
    sealed = fields.TextField(null=True)  # what of the payload is secret, encrypted
    key = fields.CharField(max_length=200, null=True, unique=True)
    status = fields.CharField(max_length=8, default="queued")  # queued, running, done, dead
    attempts = fields.IntField(default=0)
    max_attempts = fields.IntField(default=8)
    due_at = fields.DatetimeField()  # of a running job: until when its process has said that it lives
    set_at = fields.DatetimeField(null=True)  # when due_at was set
    again_at = fields.DatetimeField(null=True)  # when to run once more after the run under way
    lease = fields.CharField(max_length=40, null=True)
    last_error = fields.CharField(max_length=300, null=True)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "job"


class Tick(Model):
    """A periodic task's next slot."""

    name = fields.CharField(max_length=60, primary_key=True)
    every_ms = fields.IntField()
    next_at = fields.DatetimeField()

    class Meta:
        table = "tick"


class AuditEntry(TenantRow):
    """Who changed what in the settings and on a contact's record. Append-only."""

    actor_id = fields.UUIDField(null=True)
    actor_kind = fields.CharField(max_length=8)  # user, api_key, system
    action = fields.CharField(max_length=60)
    subject = fields.CharField(max_length=60)
    detail: fields.Field[Any] = fields.JSONField(default=dict, encoder=json_text)  # never a secret
    occurred_at = fields.DatetimeField()

    class Meta:
        table = "audit_entry"
        indexes = (("account_id", "id"),)


class SandboxCheckout(Row):
    """The sandbox processor's own book. A stand-in for a vendor's database: no tenant's code reads it."""

    external_id = fields.CharField(max_length=60, unique=True)
    connection_id = fields.UUIDField()
    idempotency_key = fields.CharField(max_length=80)
    status = fields.CharField(max_length=12)
    amount_minor: fields.Field[int] = fields.BigIntField()
    currency = fields.CharField(max_length=3)
    request_reference = fields.CharField(max_length=60)
    number = fields.CharField(max_length=20)
    product_name = fields.CharField(max_length=255)
    description = fields.TextField(null=True)
    business_name = fields.CharField(max_length=120, default="")
    success_url = fields.TextField()
    cancel_url = fields.TextField()
    webhook_url = fields.TextField()
    expires_at = fields.DatetimeField()
    payments: fields.Field[Any] = fields.JSONField(default=list, encoder=json_text)
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        table = "sandbox_checkout"
        unique_together = (("connection_id", "idempotency_key"),)
