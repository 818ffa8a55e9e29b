"""The tables: columns and keys."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar

from tortoise import fields
from tortoise.backends.base.client import BaseDBAsyncClient
from tortoise.models import Model, ModelMeta

from models import searching
from models.ids import uuid7
from models.storable import json_text

# What Tortoise can't express. The migrations create these; tests/models/test_drift.py checks them.
CONSTRAINTS = """
append-only (triggers refuse UPDATE and DELETE): activity_card, money_fact, audit_entry; event refuses UPDATE (the retention job prunes)
partial unique: activity_card (payment_request_id) WHERE kind = 'PAYMENT_REQUEST'; the same for 'PAYMENT_RECEIVED' and 'REQUEST_VOIDED'
partial unique: processor_connection (account_id) WHERE is_default AND connected
partial unique: money_fact (account_id, kind, external_id, outcome) WHERE processor_connection_id IS NULL
partial unique: money_fact (processor_connection_id, kind, external_id, outcome) WHERE kind <> 'DISPUTE'; with occurred_at for disputes
partial unique: invitation (account_id, email) WHERE accepted_at IS NULL AND revoked_at IS NULL
partial index: job (due_at) WHERE status IN ('queued', 'running')
partial index: checkout_session (next_check_at) WHERE next_check_at IS NOT NULL
partial index: message (channel_connection_id, relay_id) WHERE relay_id IS NOT NULL
partial index: contact (id), payment_request (id) and message (id) WHERE search IS NULL
partial index: contact (merged_into_id) WHERE merged_into_id IS NOT NULL
partial index: payment_request (account_id, created_at, id, due_at) WHERE due_at IS NOT NULL and the request is open
partial index: conversation (account_id, last_activity_at, id) WHERE closed_at IS NULL; the same WHERE closed_at IS NOT NULL
partial index: conversation (account_id, last_activity_at, id) WHERE unread_count > 0
indexes of the orders in services/lists/orders.py: contact (account_id, folded name, id); payment_request (account_id, amount due, id),
  (account_id, due_at, id), and the same WHERE the request is open
partial index: notification (user_id, seq) WHERE read_at IS NULL
partial unique: contact_address (contact_id, kind) WHERE in_use
check: amounts >= 0 (payment_request.amount_minor > 0), currency length 3, status and kind within their enums
event (account_id, seq) primary key
search_text: the searched text of contact, payment_request and message with an index of its parts, kept by triggers (models/search_index.py)
"""

# column -> table: REFERENCES table (id) ON DELETE RESTRICT wherever the column occurs. Created by the migrations, checked by the
# drift test. Plain UUID columns, not Tortoise's relations: every read is explicit.
FOREIGN_KEYS = {
    "account_id": "account",
    "user_id": "user_account",
    "note_id": "note",
    "contact_id": "contact",
    "conversation_id": "conversation",
    "processor_connection_id": "processor_connection",
    "channel_connection_id": "channel_connection",
    "payment_request_id": "payment_request",
    "checkout_session_id": "checkout_session",
    "message_id": "message",
    "money_fact_id": "money_fact",
    "owner_user_id": "user_account",
}


class _Quick(ModelMeta):
    """Builds a table's class without reading its `#:` comments, which would parse this file once per table (0.2 s)."""

    def __new__(cls, name: str, bases: tuple[type, ...], attrs: dict[str, Any]) -> ModelMeta:
        return super().__new__(cls, name, bases, {**attrs, "_no_comments": True})


class Row(Model, metaclass=_Quick):
    """Ids are UUIDv7, in order of creation."""

    id = fields.UUIDField(primary_key=True, default=uuid7)

    class Meta:
        abstract = True


class TenantRow(Row):
    account_id = fields.UUIDField()

    class Meta:
        abstract = True


class Searchable(TenantRow):
    """Every save stores the folded text; raw writes call `fold` themselves."""

    SEARCHED: ClassVar[tuple[str, ...]]  # columns
    search = fields.TextField(null=True)

    class Meta:
        abstract = True

    @classmethod
    def folded(cls, values: Mapping[str, Any]) -> str:
        """`values`: those of SEARCHED."""
        return searching.stored(values[name] for name in cls.SEARCHED)

    def refolds(self, written: Collection[str]) -> bool:
        """Whether a save of these columns folds the text again."""
        return True

    def fold(self) -> None:
        self.search = self.folded({name: getattr(self, name) for name in self.SEARCHED})

    async def save(
        self,
        using_db: BaseDBAsyncClient | None = None,
        update_fields: Iterable[str] | None = None,
        force_create: bool = False,
        force_update: bool = False,
    ) -> None:
        written = None if update_fields is None else {*update_fields}
        if written is None or self.refolds(written):
            self.fold()
            written = None if written is None else {*written, "search"}
        await super().save(using_db, written, force_create, force_update)


class Account(Row):
    name = fields.CharField(max_length=120)
    default_currency = fields.CharField(max_length=3)
    locale = fields.CharField(max_length=20, default="en-US")
    time_zone = fields.CharField(max_length=64, default="UTC")
    contact_email = fields.CharField(max_length=254, null=True)  # shown on checkout pages
    contact_phone = fields.CharField(max_length=20, null=True)
    link_message_template = fields.TextField()
    number_prefix = fields.CharField(max_length=10, default="PR-")
    request_count = fields.IntField(default=0)  # the last number used
    event_seq: fields.Field[int] = fields.BigIntField(default=0)
    event_epoch = fields.CharField(max_length=12)  # new after a restored backup
    merge_count = fields.IntField(default=0)  # merged contacts; 0: every id is current
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "account"


class User(TenantRow):
    email = fields.CharField(max_length=254, unique=True)  # lower case
    name = fields.CharField(max_length=120)
    role = fields.CharField(max_length=10)
    password_hash = fields.CharField(max_length=200)
    token_version = fields.IntField(default=0)  # raised to revoke every access token
    disabled_at = fields.DatetimeField(null=True)
    locale = fields.CharField(max_length=20, null=True)  # null: the account's, as the time zone
    time_zone = fields.CharField(max_length=64, null=True)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "user_account"
        indexes = (("account_id",),)


class RefreshToken(TenantRow):
    """A second use revokes its family."""

    user_id = fields.UUIDField()
    family_id = fields.UUIDField()
    token_hash = fields.CharField(max_length=64, unique=True)
    expires_at = fields.DatetimeField()
    signed_in_at = fields.DatetimeField(null=True)  # the family's
    device = fields.CharField(max_length=60, null=True)
    network = fields.CharField(max_length=50, null=True)  # shortened
    used_at = fields.DatetimeField(null=True)
    revoked_at = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "refresh_token"
        indexes = (("family_id",), ("user_id",))


class Invitation(TenantRow):
    """Only the token's SHA-256 is stored."""

    email = fields.CharField(max_length=254)  # lower case
    name = fields.CharField(max_length=120, null=True)
    role = fields.CharField(max_length=10)
    token_hash = fields.CharField(max_length=64, unique=True)
    invited_by_id = fields.UUIDField(null=True)  # null: an API key or the command line
    expires_at = fields.DatetimeField()
    accepted_at = fields.DatetimeField(null=True)
    user_id = fields.UUIDField(null=True)  # who accepted
    revoked_at = fields.DatetimeField(null=True)
    emailed_at = fields.DatetimeField(null=True)  # the newest token
    email_error = fields.CharField(max_length=300, null=True)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "invitation"
        indexes = (("account_id", "id"),)


class UserToken(TenantRow):
    """Of a link in an email; only the token's SHA-256 is stored, and using it deletes the row."""

    user_id = fields.UUIDField()
    purpose = fields.CharField(max_length=16)
    token_hash = fields.CharField(max_length=64, unique=True)
    email = fields.CharField(max_length=254, null=True)  # the new address
    expires_at = fields.DatetimeField()
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "user_token"
        unique_together = (("user_id", "purpose"),)


class ApiKey(TenantRow):
    """Only the key's SHA-256 is stored."""

    name = fields.CharField(max_length=120)
    role = fields.CharField(max_length=10)
    token_hash = fields.CharField(max_length=64, unique=True)
    hint = fields.CharField(max_length=12)  # last four characters
    created_at = fields.DatetimeField(auto_now_add=True)
    last_used_at = fields.DatetimeField(null=True)
    revoked_at = fields.DatetimeField(null=True)
    expires_at = fields.DatetimeField(null=True)  # null: never (keys from before expiry existed)
    manages_keys = fields.BooleanField(default=False)

    class Meta:
        table = "api_key"
        indexes = (("account_id",),)


class Contact(Searchable):
    SEARCHED = ("name", "email", "phone", "also_known_as")

    name = fields.CharField(max_length=120)
    email = fields.CharField(max_length=254, null=True)
    phone = fields.CharField(max_length=20, null=True)  # E.164
    tags: fields.Field[Any] = fields.JSONField(default=list, encoder=json_text)
    merged_into_id = fields.UUIDField(null=True)  # the contact that replaces this one
    merged_at = fields.DatetimeField(null=True)
    merged_ids: fields.Field[Any] = fields.JSONField(
        null=True, encoder=json_text
    )  # ids of the rows merged into this one
    also_known_as = fields.TextField(null=True)  # searched names, emails and phones of contacts merged into this one
    version = fields.IntField(default=1)
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        table = "contact"
        indexes = (("account_id", "id"), ("account_id", "updated_at", "id"))


class ContactAddress(TenantRow):
    contact_id = fields.UUIDField()
    kind = fields.CharField(max_length=12)
    address = fields.CharField(max_length=254)
    opted_out_at = fields.DatetimeField(null=True)
    last_inbound_at = fields.DatetimeField(null=True)
    in_use = fields.BooleanField(default=True)  # the one to send to, where merged contacts have several of one kind
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "contact_address"
        unique_together = (("account_id", "kind", "address"),)
        indexes = (("contact_id", "kind"),)


class OptOut(TenantRow):
    """An address that wrote STOP is opted out of its kind of channel."""

    channel_connection_id = fields.UUIDField()
    kind = fields.CharField(max_length=12)
    address = fields.CharField(max_length=254)
    blocked = fields.BooleanField(default=False)  # reported by the vendor, not written by the contact
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "opt_out"
        unique_together = (("channel_connection_id", "address"),)
        indexes = (("account_id", "kind", "address"),)


class Blocking(TenantRow):
    """The vendor's newest block or unblock."""

    channel_connection_id = fields.UUIDField()
    address = fields.CharField(max_length=254)
    told_at = fields.DatetimeField()

    class Meta:
        table = "blocking"
        unique_together = (("channel_connection_id", "address"),)


class ContactSummary(TenantRow):
    """A contact's totals, one row per currency and mode."""

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
    contact_id = fields.UUIDField(unique=True)
    assignee_id = fields.UUIDField(null=True)
    last_activity_at = fields.DatetimeField()
    preview = fields.CharField(max_length=160, default="")  # of the last thread item
    unread_count = fields.IntField(default=0)
    draft = fields.TextField(null=True)  # unsent text in the composer
    closed_at = fields.DatetimeField(null=True)  # the contact's next message reopens it
    # These two: kept by a trigger on message, and by what closes and merges conversations.
    waiting_since = fields.DatetimeField(null=True)  # the contact's first message after the team's last
    channel_kinds = fields.CharField(max_length=160, default=" ")  # of its messages, between spaces
    tags: fields.Field[Any] = fields.JSONField(default=list, encoder=json_text)
    merged_into_id = fields.UUIDField(null=True)  # the conversation that replaces this one
    merged_ids: fields.Field[Any] = fields.JSONField(
        null=True, encoder=json_text
    )  # ids of the rows merged into this one
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "conversation"
        indexes = (
            ("account_id", "last_activity_at", "id"),
            ("account_id", "created_at", "id"),
            ("account_id", "waiting_since", "id"),
            ("account_id", "assignee_id", "last_activity_at", "id"),
        )


class ConversationFollower(TenantRow):
    conversation_id = fields.UUIDField()
    user_id = fields.UUIDField()

    class Meta:
        table = "conversation_follower"
        unique_together = (("conversation_id", "user_id"),)


class ChannelConnection(TenantRow):
    kind = fields.CharField(max_length=12)
    provider = fields.CharField(max_length=40)  # file name in integrations/channels
    display_name = fields.CharField(max_length=120)
    sender = fields.CharField(max_length=254, default="")  # the account's own address, shown to the team
    credentials = fields.TextField()  # encrypted JSON
    connected = fields.BooleanField(default=True)
    allowed_origins: fields.Field[Any] = fields.JSONField(
        default=list, encoder=json_text
    )  # web chat: sites that may embed the widget
    next_send_at = fields.DatetimeField(null=True)  # the vendor's rate limit: no send before this
    last_webhook_at = fields.DatetimeField(null=True)
    last_error = fields.CharField(max_length=300, null=True)
    version = fields.IntField(default=1)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "channel_connection"
        indexes = (("account_id",),)


class ProcessorConnection(TenantRow):
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
    events_read_until = fields.DatetimeField(null=True)  # position in the vendor's list of events
    checkouts_read_until = fields.DatetimeField(null=True)  # position in its list of checkouts
    webhook_registered = fields.BooleanField(default=False)  # by this server, not manually
    webhook_claimed_until = fields.DatetimeField(null=True)  # a call is registering it until then
    is_duplicate = fields.BooleanField(default=False)  # an older connection to the same vendor account exists
    version = fields.IntField(default=1)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "processor_connection"
        indexes = (("account_id",),)


class PaymentRequest(Searchable):
    """Status and totals follow from facts: only the projection writes them, beside `mark_sent` and `mark_void` (request_rows.py)."""

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
    created_by_id = fields.UUIDField(null=True)  # user
    created_by = fields.CharField(max_length=160, null=True)  # services/core/actors.py; the same in other tables
    status = fields.CharField(max_length=16, default="DRAFT")
    version = fields.IntField(default=1)
    amount_paid_minor: fields.Field[int] = fields.BigIntField(default=0)
    refunded_minor: fields.Field[int] = fields.BigIntField(default=0)
    excess_minor: fields.Field[int] = fields.BigIntField(default=0)
    late_minor: fields.Field[int] = fields.BigIntField(default=0)
    waived_minor: fields.Field[int] = fields.BigIntField(default=0)  # the part that the team has waived
    unresolved = fields.BooleanField(default=False)  # money waits for the team's decision
    refund_state = fields.CharField(max_length=8, default="NONE")
    dispute_state = fields.CharField(max_length=16, default="NONE")
    sent_at = fields.DatetimeField(null=True)
    sent_via = fields.CharField(max_length=12, null=True)
    link_copied_at = fields.DatetimeField(null=True)
    due_at = fields.DatetimeField(null=True)
    overdue_for = fields.DatetimeField(null=True)  # the due date whose passing has been logged
    paid_at = fields.DatetimeField(null=True)
    void_requested_at = fields.DatetimeField(null=True)
    releasable_at = fields.DatetimeField(null=True)  # PROCESSING: when the link may be released
    released_at = fields.DatetimeField(null=True)  # PROCESSING, and payable another way since
    void_requested_by_id = fields.UUIDField(null=True)  # user
    void_requested_by = fields.CharField(max_length=160, null=True)
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
        indexes = (
            ("contact_id", "id"),
            ("account_id", "created_at", "id", "test_mode"),
            ("account_id", "status", "created_at", "id"),
            ("account_id", "updated_at", "id"),
            ("account_id", "paid_at", "id"),
            ("conversation_id",),
        )


class Message(Searchable):
    """Only the beginning of a text is searched, and nothing of a removed one."""

    SEARCHED = ("subject", "body", "removed_at")
    SEARCH_LIMIT: ClassVar = 2_000  # characters

    conversation_id = fields.UUIDField()
    contact_id = fields.UUIDField()
    seq: fields.Field[int] = fields.BigIntField()  # position in the account's log, and so in the thread
    direction = fields.CharField(max_length=8)
    kind = fields.CharField(max_length=12)  # channel kind
    channel_connection_id = fields.UUIDField()
    address = fields.CharField(max_length=254)  # the contact's
    subject = fields.CharField(max_length=255, null=True)
    body = fields.TextField()
    quoted_text = fields.TextField(null=True)  # quoted earlier messages, left out of `body`
    cc: fields.Field[Any] = fields.JSONField(null=True)  # addresses of an email's other recipients
    undelivered_cc: fields.Field[Any] = fields.JSONField(null=True)  # those that were not reached
    delivery_status = fields.CharField(max_length=12)
    error_code = fields.CharField(max_length=40, null=True)
    error_message = fields.CharField(max_length=300, null=True)
    attempt_id = fields.CharField(max_length=40, null=True)  # committed before the vendor is called
    external_id = fields.CharField(max_length=120, null=True)
    relay_id = fields.CharField(
        max_length=120, null=True
    )  # the id that a mail relay gave it in place of the Message-ID
    retry_of_id = fields.UUIDField(null=True)
    template_id = fields.CharField(
        max_length=80, null=True
    )  # the vendor's id of an approved template that is sent instead of the body
    template_variables: fields.Field[Any] = fields.JSONField(null=True, encoder=json_text)  # placeholder -> text
    author_id = fields.UUIDField(null=True)  # user
    author = fields.CharField(max_length=160, null=True)  # of an outbound message
    author_name = fields.CharField(max_length=120, null=True)
    reply_to_id = fields.UUIDField(null=True)  # the message that it answers, if the channel reports it
    reaction = fields.CharField(max_length=40, null=True)  # the contact's, an emoji
    edited_at = fields.DatetimeField(null=True)  # the sender edited it
    removed_at = fields.DatetimeField(null=True)  # the sender deleted it: text and files are gone
    occurred_at = fields.DatetimeField()
    sending_at = fields.DatetimeField(null=True)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        table = "message"
        unique_together = (("channel_connection_id", "external_id"), ("conversation_id", "seq"))
        indexes = (("account_id", "seq"),)

    @classmethod
    def folded(cls, values: Mapping[str, Any]) -> str:
        if values["removed_at"] is not None:
            return ""
        texts = (values["subject"], values["body"][: 2 * cls.SEARCH_LIMIT])
        return searching.stored(texts)[: cls.SEARCH_LIMIT]

    def refolds(self, written: Collection[str]) -> bool:
        return not {*self.SEARCHED}.isdisjoint(written)  # deliveries are saved often, and texts are long


class Attachment(TenantRow):
    """Metadata, and bytes once fetched."""

    message_id = fields.UUIDField()
    n = fields.IntField()  # position in the message, from 1
    name = fields.CharField(max_length=255)
    content_type = fields.CharField(max_length=120)
    size_bytes: fields.Field[int] | None = fields.BigIntField(null=True)
    source_url = fields.TextField(null=True)  # encrypted: the URL may carry a token
    status = fields.CharField(max_length=12, default="PENDING")
    reason = fields.CharField(max_length=60, null=True)  # of REFUSED or FAILED
    content = fields.BinaryField(null=True)
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        table = "attachment"
        unique_together = (("message_id", "n"),)


class Visitor(TenantRow):
    """Only its token opens its conversation."""

    channel_connection_id = fields.UUIDField()
    contact_id = fields.UUIDField(null=True)  # null until the first message
    token_hash = fields.CharField(max_length=64, unique=True)
    external_id = fields.CharField(max_length=120, null=True)  # the site's signed identity of the visitor
    created_at = fields.DatetimeField(auto_now_add=True)
    last_seen_at = fields.DatetimeField()

    class Meta:
        table = "visitor"
        indexes = (("channel_connection_id", "external_id"),)


class MessagePaymentRequest(TenantRow):
    message_id = fields.UUIDField()
    payment_request_id = fields.UUIDField()

    class Meta:
        table = "message_payment_request"
        unique_together = (("message_id", "payment_request_id"),)
        indexes = (("payment_request_id",),)


class ActivityCard(TenantRow):
    """Append-only."""

    conversation_id = fields.UUIDField()
    contact_id = fields.UUIDField()
    seq: fields.Field[int] = fields.BigIntField()
    kind = fields.CharField(max_length=24)
    status = fields.CharField(max_length=16)  # of the request when logged
    payment_request_id = fields.UUIDField()
    money_fact_id = fields.UUIDField(null=True)
    message_id = fields.UUIDField(null=True)
    text = fields.CharField(max_length=500)
    actor_id = fields.UUIDField(null=True)  # user
    actor = fields.CharField(max_length=160, null=True)
    key = fields.CharField(max_length=160)  # unique per cause
    occurred_at = fields.DatetimeField()

    class Meta:
        table = "activity_card"
        unique_together = (("account_id", "key"), ("conversation_id", "seq"))
        indexes = (("payment_request_id",),)


class Note(TenantRow):
    """Append-only. For the team: no channel reads it."""

    conversation_id = fields.UUIDField()
    contact_id = fields.UUIDField()
    seq: fields.Field[int] = fields.BigIntField()
    body = fields.TextField()
    author = fields.CharField(max_length=160)
    occurred_at = fields.DatetimeField()

    class Meta:
        table = "note"
        unique_together = (("conversation_id", "seq"),)


ThreadRow = Message | ActivityCard | Note


class NoteMention(TenantRow):
    note_id = fields.UUIDField()
    user_id = fields.UUIDField()

    class Meta:
        table = "note_mention"
        unique_together = (("note_id", "user_id"),)


class Tag(TenantRow):
    """A tag that a contact or conversation of the account has or had."""

    name = fields.CharField(max_length=50)

    class Meta:
        table = "tag"
        unique_together = (("account_id", "name"),)


class CheckoutSession(TenantRow):
    payment_request_id = fields.UUIDField()
    processor_connection_id = fields.UUIDField()
    n = fields.IntField()
    idempotency_key = fields.CharField(max_length=80, unique=True)
    amount_minor: fields.Field[int] = fields.BigIntField()
    currency = fields.CharField(max_length=3)
    status = fields.CharField(
        max_length=12, default="OPENING"
    )  # OPENING, then CheckoutStatus; ABANDONED: never created
    external_id = fields.CharField(max_length=200, null=True)
    url = fields.TextField(null=True)
    expires_at = fields.DatetimeField(null=True)
    returned_at = fields.DatetimeField(null=True)  # the contact came back from the processor
    read_at = fields.DatetimeField(null=True)  # last read for the checkout page
    capturing_at = fields.DatetimeField(null=True)  # committed before the capture of an approved checkout
    capture_n = fields.IntField(default=0)  # number of captures begun, part of the capture's key
    closing_at = fields.DatetimeField(null=True)  # no capture begins after this
    processing_at = fields.DatetimeField(null=True)  # when the payment was first seen under way
    delayed = fields.BooleanField(default=False)  # a payment method that takes days
    delayed_method = fields.CharField(max_length=60, null=True)  # e.g. OXXO, SEPA Direct Debit
    delayed_until = fields.DatetimeField(null=True)  # when it expires unpaid, if the processor reports it
    released_at = fields.DatetimeField(null=True)  # set once: it no longer keeps the contact from paying another way
    next_check_at = fields.DatetimeField(null=True)
    checks = fields.IntField(default=0)
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        table = "checkout_session"
        unique_together = (("payment_request_id", "n"), ("processor_connection_id", "external_id"))


class MoneyFact(TenantRow):
    """A processor's report about money, or the team's decision. Append-only; one row per outcome (disputes: and time)."""

    payment_request_id = fields.UUIDField()
    contact_id = fields.UUIDField()
    checkout_session_id = fields.UUIDField(null=True)
    processor_connection_id = fields.UUIDField(null=True)
    processor = fields.CharField(max_length=40, null=True)  # null: recorded manually
    kind = fields.CharField(max_length=16)
    external_id = fields.CharField(max_length=200)  # id of the charge, refund or dispute
    outcome = fields.CharField(max_length=12)
    amount_minor: fields.Field[int] = fields.BigIntField()
    currency = fields.CharField(max_length=3)
    # Amount and currency equal the checkout's. Whether a charge counts also depends on other facts: ledger.counting.
    counted = fields.BooleanField()
    confirmed = fields.BooleanField(default=True)  # of a charge: False if its processor did not answer
    # Of a confirmed charge: the checkout's amount in the same currency; null: the charge is not summed with others.
    asked_minor: fields.Field[int] | None = fields.BigIntField(null=True)
    after_void = fields.BooleanField(default=False)
    charge_external_id = fields.CharField(max_length=200, null=True)
    fee_minor: fields.Field[int] | None = fields.BigIntField(null=True)
    method_summary = fields.CharField(max_length=80, null=True)
    failure_code = fields.CharField(max_length=80, null=True)
    failure_message = fields.CharField(max_length=300, null=True)
    response_due_at = fields.DatetimeField(null=True)  # of a dispute: the deadline for an answer
    dispute_reason = fields.CharField(max_length=80, null=True)
    inquiry = fields.BooleanField(default=False)  # of a dispute: only an inquiry of the bank so far
    reversal = fields.BooleanField(default=False)  # of a refund: the vendor took the money back itself
    test_mode = fields.BooleanField()
    source = fields.CharField(max_length=12)  # webhook, return, sweeper, void, refund, manual
    occurred_at = fields.DatetimeField()
    recorded_at = fields.DatetimeField(auto_now_add=True)
    note = fields.CharField(max_length=500, null=True)  # this and the next: of money recorded manually
    recorded_by_id = fields.UUIDField(null=True)  # user
    recorded_by = fields.CharField(max_length=160, null=True)  # null: a processor

    class Meta:
        table = "money_fact"
        indexes = (("payment_request_id", "id"), ("contact_id", "id"))


class Refund(TenantRow):
    """Committed with its key before the vendor's call; the outcome is in the ledger."""

    payment_request_id = fields.UUIDField()
    money_fact_id = fields.UUIDField()  # of the charge
    charge_external_id = fields.CharField(max_length=200)
    processor_connection_id = fields.UUIDField()
    idempotency_key = fields.CharField(max_length=80, unique=True)
    amount_minor: fields.Field[int] = fields.BigIntField()
    currency = fields.CharField(max_length=3)
    reason = fields.CharField(max_length=24)
    status = fields.CharField(max_length=12, default="PENDING")  # or UNKNOWN: the answer was lost
    external_id = fields.CharField(max_length=200, null=True)
    failure_reason = fields.CharField(max_length=300, null=True)
    checks = fields.IntField(default=0)
    requested_by_id = fields.UUIDField(null=True)  # user
    requested_by = fields.CharField(max_length=160, null=True)
    channel_connection_id = fields.UUIDField(null=True)  # where to notify the contact
    message_id = fields.UUIDField(null=True)  # the notice to the contact
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        table = "refund"
        unique_together = (("processor_connection_id", "external_id"),)
        indexes = (("payment_request_id",),)


class ProcessorEvent(TenantRow):
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


class SavedView(TenantRow):
    """A filter and an order over payment requests or conversations."""

    owner_user_id = fields.UUIDField(null=True)  # null: shared
    subject = fields.CharField(max_length=16)
    name = fields.CharField(max_length=80)
    conditions: fields.Field[Any] = fields.JSONField(default=dict, encoder=json_text)  # the filter as clients give it
    order_field = fields.CharField(max_length=20)
    descending = fields.BooleanField()
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        table = "saved_view"
        indexes = (("account_id", "id"),)


class Notification(TenantRow):
    """Unique per user and cause."""

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


class NotificationRule(TenantRow):
    user_id = fields.UUIDField()
    topic = fields.CharField(max_length=12)
    scope = fields.CharField(max_length=12)  # whose conversations: NONE, MINE, FOLLOWED, ALL
    by_email = fields.BooleanField()

    class Meta:
        table = "notification_rule"
        unique_together = (("user_id", "topic"),)


class NotificationDigest(TenantRow):
    """A user's emails of unread notifications."""

    user_id = fields.UUIDField(unique=True)
    frequency = fields.CharField(max_length=8)  # OFF, HOURLY, DAILY
    quiet_from = fields.IntField(null=True)  # minute of the account's day
    quiet_until = fields.IntField(null=True)
    sent_seq: fields.Field[int] = fields.BigIntField(default=0)  # of the newest notification that was looked at
    next_at = fields.DatetimeField(null=True)  # null: off

    class Meta:
        table = "notification_digest"
        indexes = (("next_at",),)


class IdempotencyKey(TenantRow):
    mutation = fields.CharField(max_length=60)
    key = fields.CharField(max_length=80)
    input_hash = fields.CharField(max_length=64)
    state = fields.CharField(max_length=8)  # running, done
    result: fields.Field[Any] = fields.JSONField(null=True, encoder=json_text)  # ids from which the answer is rebuilt
    locked_until = fields.DatetimeField()  # a running one past this belongs to a dead process
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "idempotency_key"
        unique_together = (("account_id", "mutation", "key"),)
        indexes = (("created_at",),)


class Job(Row):
    account_id = fields.UUIDField(null=True)
    kind = fields.CharField(max_length=60)
    payload: fields.Field[Any] = fields.JSONField(default=dict, encoder=json_text)
    sealed = fields.TextField(null=True)  # the payload's secrets, encrypted
    key = fields.CharField(max_length=200, null=True, unique=True)
    status = fields.CharField(max_length=8, default="queued")  # queued, running, done, dead
    attempts = fields.IntField(default=0)
    max_attempts = fields.IntField(default=8)
    due_at = fields.DatetimeField()  # of a running job: the end of its lease
    set_at = fields.DatetimeField(null=True)  # when due_at was set
    again_at = fields.DatetimeField(null=True)  # when to run again after the current run
    lease = fields.CharField(max_length=40, null=True)
    last_error = fields.CharField(max_length=300, null=True)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "job"


class Tick(Model, metaclass=_Quick):
    name = fields.CharField(max_length=60, primary_key=True)
    every_ms = fields.IntField()
    next_at = fields.DatetimeField()

    class Meta:
        table = "tick"


class AuditEntry(TenantRow):
    """Append-only."""

    actor_id = fields.UUIDField(null=True)  # user
    actor_kind = fields.CharField(max_length=8)  # user, api_key, system
    actor = fields.CharField(max_length=160, null=True)
    action = fields.CharField(max_length=60)
    subject = fields.CharField(max_length=60)
    detail: fields.Field[Any] = fields.JSONField(default=dict, encoder=json_text)  # never a secret
    occurred_at = fields.DatetimeField()

    class Meta:
        table = "audit_entry"
        indexes = (("account_id", "id"),)


class SandboxCheckout(Row):
    """Read by the sandbox only."""

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
