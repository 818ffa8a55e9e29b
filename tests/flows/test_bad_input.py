"""Every mutation with every wrong argument: the error has its code and field, and no row changes.

Cases of an argument's type come from the schema, the others from CASES. A new mutation or input field fails until it has a case.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from graphql import GraphQLEnumType

from integrations import registry
from integrations.base import Environment
from tests.contracts.stripe_contract import derived_contract
from tests.contracts.stripe_server import StripeServer
from tests.contracts.twilio_server import TwilioServer
from tests.contracts.twilio_server import contracts as twilio_contracts
from tests.flows import documents as d
from tests.flows import harness, probes
from tests.flows.conftest import Team
from tests.flows.harness import Product, key
from tests.flows.probes import Leaf, World
from tests.services.scripted import Scripted

NONE = "none"
SAME = "same"


Value = Any | Callable[[World], Any]


@dataclass(frozen=True)
class Case:
    """One wrong argument; the others are valid. `named`: the field that the error names, by default the path."""

    mutation: str
    path: str
    value: Value
    code: str
    named: str = SAME
    also: dict[str, Value] = field(default_factory=dict)

    def __str__(self) -> str:
        shown = "…" if callable(self.value) else repr(self.value)
        return f"{self.mutation}({self.path}: {shown[:60]}) -> {self.code}"

    @property
    def expected_field(self) -> list[str] | None:
        name = self.path if self.named == SAME else self.named
        return None if name == NONE else name.split(".")


# --------------------------------------------------------------------------------------- wrong by the argument's type
SENDING = ("sendMessage", "sendPaymentRequest")
NEW_CONTACTS = ("createContact.input", "createPaymentRequest.input.for.newContact")
# Texts whose limit is reported as TOO_LONG: path to the limit, characters.
LIMITS = {
    "createApiKey.input.name": 120,
    "createPaymentRequest.input.productName": 255,
    "createPaymentRequest.input.description": 2000,
    "sendPaymentRequest.input.body": 50_000,
    "sendMessage.input.body": 50_000,
    "sendMessage.input.subject": 255,
    "sendMessage.input.cc": 254,
    **{f"{sending}.input.template.id": 80 for sending in SENDING},
    **{f"{sending}.input.template.variables.value": 1000 for sending in SENDING},
    "voidPaymentRequest.input.reason": 500,
    "recordOutsidePayment.input.note": 500,
    "saveDraft.input.text": 10_000,
    "addNote.input.body": 10_000,
    "updateConversationTags.input.add": 50,
    "updateContactTags.input.add": 50,
    **{
        f"{new}.{name}": limit
        for new in NEW_CONTACTS
        for name, limit in {"name": 120, "email": 254, "phone": 40, "addresses.address": 254}.items()
    },
    "updateContact.input.name": 120,
    "updateContact.input.email": 254,
    "updateContact.input.phone": 40,
    "updateContact.input.addresses.address": 254,
    "mergeContacts.input.addresses.address": 254,
    "updateAccount.input.name": 120,
    "updateAccount.input.locale": 20,
    "updateAccount.input.timeZone": 64,
    "updateAccount.input.contactEmail": 254,
    "updateAccount.input.contactPhone": 40,
    "updateAccount.input.linkMessageTemplate": 1000,
    "updateAccount.input.numberPrefix": 10,
    "configureProcessor.input.displayName": 120,
    **{
        f"configureProcessor.input.credentials.{name}": 1000
        for name in (
            *(f"stripe.{key}" for key in ("secretKey", "webhookSecret", "account")),
            *(f"paypal.{key}" for key in ("clientId", "clientSecret", "webhookId")),
            *(f"square.{key}" for key in ("accessToken", "locationId", "webhookSignatureKey", "currency")),
            "custom.credentials.value",
        )
    },
    "connectChannel.input.displayName": 120,
    "connectChannel.input.sender": 254,
    "connectChannel.input.credentials.value": 1000,
    "updateUser.input.name": 120,
    "updateProfile.input.name": 120,
    "updateProfile.input.locale": 20,
    "updateProfile.input.timeZone": 64,
    "requestPasswordReset.input.email": 254,
    "requestEmailChange.input.email": 254,
    "createView.input.name": 80,
    "updateView.input.name": 80,
    "inviteUser.input.email": 254,
    "inviteUser.input.name": 120,
    "acceptInvitation.input.name": 120,
}
# Texts with another answer than TOO_LONG, BLANK or INVALID: what they are is a secret, or only looked up.
LOOKED_UP = {
    "signIn.input.email": "SIGN_IN_FAILED",
    "signIn.input.password": "SIGN_IN_FAILED",
    "refreshSession.input.refreshToken": "SIGN_IN_FAILED",
    **{f"{name}.input.token": "LINK_INVALID" for name in ("acceptInvitation", "resetPassword", "confirmEmailChange")},
    "changePassword.input.currentPassword": "SIGN_IN_FAILED",
    "requestEmailChange.input.password": "SIGN_IN_FAILED",
    "configureProcessor.input.credentials.custom.provider": "INVALID",
    "configureProcessor.input.credentials.custom.credentials.name": "INVALID",
    "connectChannel.input.provider": "INVALID",
    **{f"{sending}.input.template.variables.name": "INVALID" for sending in SENDING},
    "connectChannel.input.credentials.name": "INVALID",
}
BLANKS = (
    "addNote.input.body",
    "updateConversationTags.input.add",
    "updateContactTags.input.add",
    "createApiKey.input.name",
    "createPaymentRequest.input.productName",
    "sendMessage.input.body",
    "sendMessage.input.cc",
    *(f"{sending}.input.template.id" for sending in SENDING),
    *(f"{sending}.input.template.variables.value" for sending in SENDING),
    *(f"{new}.{name}" for new in NEW_CONTACTS for name in ("name", "addresses.address")),
    "updateContact.input.name",
    "updateContact.input.addresses.address",
    "mergeContacts.input.addresses.address",
    "updateAccount.input.name",
    "updateAccount.input.locale",
    "updateAccount.input.timeZone",
    "updateAccount.input.linkMessageTemplate",
    "updateUser.input.name",
    "updateProfile.input.name",
    "requestPasswordReset.input.email",
    "requestEmailChange.input.email",
    "createView.input.name",
    "updateView.input.name",
    "inviteUser.input.email",
)
# Every value of their type is valid.
HARMLESS = {
    "signOut.input.refreshToken": "signing out says nothing about a token that is no longer one",
    "signOut.input.everywhere": "yes or no",
    "followConversation.input.following": "yes or no",
    **{
        f"updateNotificationRules.input.{name}": "a closed set: any other word is refused by its type"
        for name in ("digest", "rules.topic", "rules.scope", "rules.byEmail")
    },
    "runSandboxScenario.input.scenario": "a closed set: any other word is refused by its type",
    "runSandboxScenario.input.seed": "any number is a story of its own",
    "configureProcessor.input.makeDefault": "yes or no",
    "refundPayment.input.reason": "a closed set: any other word is refused by its type",
    "recordOutsidePayment.input.method": "a closed set: any other word is refused by its type",
    "createApiKey.input.role": "a closed set: any other word is refused by its type",
    "inviteUser.input.role": "a closed set: any other word is refused by its type",
    "createPaymentRequest.input.for.newContact.addresses.kind": "a closed set: any other word is refused by its type",
    "createView.input.shared": "yes or no",
    **{
        f"{mutation}.input.list.{kind}.orderBy": "closed sets: any other word is refused by its type"
        for mutation in ("createView", "updateView")
        for kind in ("paymentRequests", "conversations")
    },
    "createContact.input.addresses.kind": "a closed set: any other word is refused by its type",
    "updateContact.input.addresses.kind": "a closed set: any other word is refused by its type",
    "mergeContacts.input.addresses.kind": "a closed set: any other word is refused by its type",
}
# What the answer names instead of the path of a list's item, or where nothing may be named.
NAMED = {
    "createPaymentRequest.input.for.newContact.addresses.address": "input.for.newContact.addresses.0.address",
    "createContact.input.addresses.address": "input.addresses.0.address",
    "updateContact.input.addresses.address": "input.addresses.0.address",
    "mergeContacts.input.addresses.address": "input.addresses.0.address",
    "sendMessage.input.cc": "input.cc.0",
    "addNote.input.mentions": "input.mentions.0",
    **{
        f"update{tagged}Tags.input.{change}": f"input.{change}.0"
        for tagged in ("Conversation", "Contact")
        for change in ("add", "remove")
    },
    **{
        f"{sending}.input.template.variables.{part}": f"input.template.variables.0.{part}"
        for sending in SENDING
        for part in ("name", "value")
    },
    **{
        f"configureProcessor.input.credentials.custom.credentials.{part}": f"input.credentials.custom.credentials.0.{part}"
        for part in ("name", "value")
    },
    "connectChannel.input.credentials.name": "input.credentials.0.name",
    "connectChannel.input.credentials.value": "input.credentials.0.value",
    "signIn.input.email": NONE,
    "signIn.input.password": NONE,
    "refreshSession.input.refreshToken": NONE,
}
# The types of errors that have facts, by code.
TYPES = {
    **dict.fromkeys(("AMOUNT_TOO_SMALL", "AMOUNT_TOO_LARGE"), "AmountLimitError"),
    "REFUND_EXCEEDS_PAYMENT": "RefundLimitError",
    "MESSAGING_WINDOW_CLOSED": "WindowClosedError",
    "RATE_LIMITED": "RateLimitError",
    **dict.fromkeys(
        (
            "VERSION_CONFLICT",
            "ALREADY_PAID",
            "ALREADY_VOID",
            "ALREADY_SENT",
            "ALREADY_USED",
            "PAYMENT_IN_PROGRESS",
            "NOTHING_TO_RESOLVE",
            "RESOLUTION_NOT_POSSIBLE",
            "NOT_REFUNDABLE",
            "CONFIRMATION_REQUIRED",
        ),
        "ConflictError",
    ),
}
CONTROL = ("a\x00b", "a\x07b", "a\x1b[31mb", "a\x7fb")


WRONG_IDS: tuple[Callable[[str], str], ...] = (
    str.upper,
    lambda known: known + "0",
    lambda known: known[:-1],
    probes.other_type,
    probes.foreign_to,
)


def variables(*values: str, name: str = "") -> list[dict[str, str]]:
    """Variables of a template, named 1, 2 … or all the same."""
    return [{"name": name or str(n), "value": value} for n, value in enumerate(values, 1)]


A_TEMPLATE = {"id": "HX1", "variables": variables("{link}")}
# Where a template is taken, although its window is closed.
TEMPLATED: dict[str, Value] = {"input.channelId": lambda w: w.off["WHATSAPP"], "input.template": A_TEMPLATE}
TEMPLATE_CASES = [
    ("template", {"id": "HX1"}, "INVALID"),  # an SMS has none
    ("template.id", "HX1", "MESSAGING_WINDOW_CLOSED", "channelId", {"channelId": lambda w: w.off["MESSENGER"]}),
    *(
        (
            "template.variables",
            wrong,
            code,
            named,
            {"channelId": lambda w: w.off["WHATSAPP"], "template": {"id": "HX1"}},
        )
        for wrong, code, named in (
            (variables(*["{link}"] * 21), "TOO_LONG", SAME),
            (variables("{link}", *["x" * 800] * 2), "TOO_LONG", SAME),
            (variables("{link}", "two", name="1"), "INVALID", "template.variables.1.name"),
            (variables("{link}", name="one two"), "INVALID", "template.variables.0.name"),
            (variables("{link}\nPay"), "INVALID", "template.variables.0.value"),
        )
    ),
]


def wrong_id(kind: str, make: Callable[[str], str]) -> Callable[[World], str]:
    return lambda w: make(w.ids[kind])


def foreign(kind: str) -> Callable[[World], str]:
    return lambda w: w.other.ids[kind]


def by_type() -> Iterator[Case]:
    """Wrong ids, keys and texts, of every argument of these types."""
    for mutation, one in probes.root("Mutation").items():
        for leaf in probes.leaves(one.args):
            where = f"{mutation}.{leaf.path}"
            named = NAMED.get(where, SAME)
            also = TEMPLATED if ".template." in leaf.path else {}
            if mutation == "configureProcessor" and leaf.path.split(".")[2:3] in (["paypal"], ["square"], ["custom"]):
                also = {"input.processorId": None}
            if leaf.type == "ID":
                kind = probes.ID_KINDS[leaf.name]
                for wrong in ("", "rubbish\x00", *(wrong_id(kind, make) for make in WRONG_IDS)):
                    yield Case(mutation, leaf.path, wrong, "NOT_FOUND", named)
                yield Case(mutation, leaf.path, foreign(kind), "NOT_FOUND", named)
            elif leaf.name == "idempotencyKey":
                for bad in ("", "1234567", "x" * 65, "12345678\x00", "12345678\n"):
                    yield Case(mutation, leaf.path, bad, "INVALID")
            elif leaf.type == "String" and where not in HARMLESS:
                for text in CONTROL:
                    yield Case(mutation, leaf.path, text, LOOKED_UP.get(where, "INVALID"), named, also)
                if where in LIMITS:
                    yield Case(mutation, leaf.path, "x" * (LIMITS[where] + 1), "TOO_LONG", named, also)
                if where in LOOKED_UP:
                    yield Case(mutation, leaf.path, "x" * 5000, LOOKED_UP[where], named, also)
                    yield Case(mutation, leaf.path, "", LOOKED_UP[where], named, also)
                if where in BLANKS:
                    yield Case(mutation, leaf.path, "", "BLANK", named, also)
                    yield Case(mutation, leaf.path, " \t\n ", "BLANK", named, also)


# -------------------------------------------------------------------------------------------------- wrong by our rules
def of(mutation: str, *cases: tuple[Any, ...]) -> list[Case]:
    """(path within input, value, code[, field within input or NONE[, other arguments of input]])."""
    made = []
    for path, value, code, *more in cases:
        name = more[0] if more else SAME
        also = {f"input.{k}": v for k, v in (more[1] if len(more) > 1 else {}).items()}
        named = name if name in (SAME, NONE) else f"input.{name}"
        made.append(Case(mutation, f"input.{path}", value, code, named, also))
    return made


def request(name: str) -> Callable[[World], str]:
    return lambda w: str(w.requests[name]["id"])


def link(name: str) -> Callable[[World], str]:
    return lambda w: f"Pay here: {w.requests[name]['checkoutUrl']}"


def off(name: str) -> Callable[[World], str]:
    return lambda w: w.off[name]


def conversation(name: str) -> Callable[[World], str]:
    return lambda w: str(w.contacts[name]["conversation"]["id"])


def used_key(w: World) -> str:
    return w.used_key


def by_hand(w: World) -> str:
    return w.by_hand


def of_processor(w: World) -> str:
    return w.ids["payment"]


REQUESTS, TALKS = "list.paymentRequests.filter", "list.conversations.filter"
WRONG_FILTERS: list[tuple[Any, ...]] = [
    (REQUESTS, {"contactIds": ["rubbish"]}, "NOT_FOUND", f"{REQUESTS}.contactIds.0"),
    (REQUESTS, lambda w: {"contactIds": [w.other.ids["contact"]]}, "NOT_FOUND", f"{REQUESTS}.contactIds.0"),
    (
        REQUESTS,
        lambda w: {"not": {"assigneeIds": [None, w.other.ids["user"]]}},
        "NOT_FOUND",
        f"{REQUESTS}.not.assigneeIds.1",
    ),
    (REQUESTS, {"or": [{}, {"processorIds": [""]}]}, "NOT_FOUND", f"{REQUESTS}.or.1.processorIds.0"),
    (REQUESTS, {"search": "x" * 101}, "INVALID", f"{REQUESTS}.search"),
    (REQUESTS, {"tags": ["x" * 101]}, "INVALID", f"{REQUESTS}.tags"),
    (REQUESTS, {"amount": {"currency": "USD", "minimum": "2", "maximum": "1"}}, "INVALID", f"{REQUESTS}.amount"),
    (
        REQUESTS,
        {"dueAt": {"from": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}},
        "INVALID",
        f"{REQUESTS}.dueAt",
    ),
    (TALKS, lambda w: {"assigneeIds": [w.other.ids["user"]]}, "NOT_FOUND", f"{TALKS}.assigneeIds.0"),
    (TALKS, {"and": [{"search": "\x00"}]}, "INVALID", f"{TALKS}.and.search"),
]
BAD_ADDRESSES = [
    ("email", "maria", "INVALID"),
    ("email", "maria@", "INVALID"),
    ("email", "a b@example.com", "INVALID"),
    ("email", "a@example.com, b@example.com", "INVALID"),
    ("email", "a\n@example.com", "INVALID"),
    ("phone", "12", "INVALID"),
    ("phone", "call me", "INVALID"),
    ("phone", "+1415555260111111111", "INVALID"),
    ("phone", "+999 5550100", "INVALID"),
    ("email", "maria2@example.com", "ALREADY_USED"),
    ("phone", "(415) 555-2602", "ALREADY_USED"),
    ("addresses", [{"kind": "WEB_CHAT", "address": "visitor-2"}], "ALREADY_USED", "addresses.0.address"),
    ("addresses", [{"kind": "SMS", "address": "call me"}], "INVALID", "addresses.0.address"),
    ("addresses", [{"kind": "EMAIL", "address": "maria"}], "INVALID", "addresses.0.address"),
    ("addresses", [{"kind": "WEB_CHAT", "address": a} for a in ("one", "two")], "INVALID", "addresses.1.kind"),
]
AMOUNT, CURRENCY = "amount.amount", "amount.currency"
BAD_AMOUNTS = [
    ("amount", "", "INVALID"),
    ("amount", "0", "AMOUNT_TOO_SMALL"),
    ("amount", "0.00", "AMOUNT_TOO_SMALL"),
    ("amount", "-1", "AMOUNT_TOO_SMALL"),
    ("amount", "1.234", "INVALID"),
    ("amount", "1e1", "INVALID"),
    ("amount", "1,00", "INVALID"),
    ("amount", "1\x00", "INVALID"),
    ("amount", "NaN", "INVALID"),
]
ANOTHER = {"processorId": None}  # beside the world's Stripe

CASES = [
    *of(
        "recordLinkCopied",
        ("paymentRequestId", request("paid"), "ALREADY_PAID"),
        ("paymentRequestId", request("void"), "ALREADY_VOID"),
    ),
    *of(
        "createPaymentRequest",
        *(
            (f"for.newContact.{path}", value, code, f"for.newContact.{more[0]}" if more else SAME)
            for path, value, code, *more in BAD_ADDRESSES
        ),
        ("description", "turns\u202earound", "INVALID"),
        ("idempotencyKey", used_key, "IDEMPOTENCY_KEY_PARAMETER_MISMATCH"),
        (AMOUNT, "", "INVALID"),
        (AMOUNT, " ", "INVALID"),
        (AMOUNT, "0", "AMOUNT_TOO_SMALL"),
        (AMOUNT, "0.00", "AMOUNT_TOO_SMALL"),
        (AMOUNT, "-1", "AMOUNT_TOO_SMALL"),
        (AMOUNT, "-0.01", "AMOUNT_TOO_SMALL"),
        (AMOUNT, "999999999.999", "INVALID"),
        (AMOUNT, "1000000000", "AMOUNT_TOO_LARGE"),
        (AMOUNT, "999999999999999", "AMOUNT_TOO_LARGE"),
        (AMOUNT, "9" * 40, "INVALID"),
        (AMOUNT, "1.234", "INVALID"),
        (AMOUNT, "1.", "INVALID"),
        (AMOUNT, ".5", "INVALID"),
        (AMOUNT, "1e3", "INVALID"),
        (AMOUNT, "1E3", "INVALID"),
        (AMOUNT, "+1", "INVALID"),
        (AMOUNT, "1,000.00", "INVALID"),
        (AMOUNT, "1_000", "INVALID"),
        (AMOUNT, "0x10", "INVALID"),
        (AMOUNT, "NaN", "INVALID"),
        (AMOUNT, "Infinity", "INVALID"),
        (AMOUNT, "١٢", "INVALID"),
        (AMOUNT, "1\x00", "INVALID"),
        (AMOUNT, "12\n", "INVALID"),
        (AMOUNT, "500.5", "INVALID", SAME, {CURRENCY: "JPY"}),
        (AMOUNT, "1.2345", "INVALID", SAME, {CURRENCY: "KWD"}),
        (AMOUNT, "1.234", "INVALID", SAME, {CURRENCY: "KWD", "processorKind": "STRIPE"}),  # a step of ten at Stripe
        (AMOUNT, "0.49", "AMOUNT_TOO_SMALL", SAME, {"processorKind": "STRIPE"}),
        (AMOUNT, "1000000.00", "AMOUNT_TOO_LARGE", SAME, {"processorKind": "STRIPE"}),
        (CURRENCY, "XYZ", "CURRENCY_NOT_SUPPORTED"),
        (CURRENCY, "XAU", "CURRENCY_NOT_SUPPORTED"),
        (CURRENCY, "US", "CURRENCY_NOT_SUPPORTED"),
        (CURRENCY, "USD ", "CURRENCY_NOT_SUPPORTED"),
        (CURRENCY, "$", "CURRENCY_NOT_SUPPORTED"),
        (CURRENCY, "U\x00D", "CURRENCY_NOT_SUPPORTED"),
        (CURRENCY, "IRR", "CURRENCY_NOT_SUPPORTED", SAME, {"processorKind": "STRIPE"}),
        ("dueAt", "2020-01-01T00:00:00Z", "INVALID"),
        ("dueAt", "0001-01-01T00:00:00Z", "INVALID"),
        ("dueAt", "2199-01-01T00:00:00Z", "INVALID"),
        ("processorId", lambda w: w.stripe, "INVALID", "processorKind"),
        ("processorKind", "PAYPAL", "NO_PROCESSOR_CONFIGURED"),
        ("processorKind", "CUSTOM", "NO_PROCESSOR_CONFIGURED"),
    ),
    *of(
        "sendPaymentRequest",
        ("idempotencyKey", used_key, "IDEMPOTENCY_KEY_PARAMETER_MISMATCH"),
        ("paymentRequestId", request("paid"), "ALREADY_PAID"),
        ("paymentRequestId", request("void"), "ALREADY_VOID"),
        ("paymentRequestId", request("discarded"), "NOT_FOUND"),
        ("paymentRequestId", request("carl"), "CONTACT_OPTED_OUT", "channelId"),
        ("paymentRequestId", request("dora"), "CONTACT_HAS_NO_ADDRESS", "channelId"),
        ("channelId", off("disconnected"), "CHANNEL_NOT_CONNECTED"),
        ("channelId", off("WHATSAPP"), "MESSAGING_WINDOW_CLOSED"),
        ("body", link("ben"), "INVALID"),
        ("body", "x" * 1600, "TOO_LONG"),
        ("body", "é" * 490, "TOO_LONG", SAME, {"channelId": off("INSTAGRAM_DM")}),
        *TEMPLATE_CASES,
        *(
            ("template.variables", wrong, "INVALID", SAME, {"channelId": off("WHATSAPP"), "template": {"id": "HX1"}})
            for wrong in ([], None, variables("Pay {amount}", "{business}"))
        ),
    ),
    *of(
        "voidPaymentRequest",
        ("reason", "turns\u202earound", "INVALID"),
        ("paymentRequestId", request("paid"), "ALREADY_PAID", SAME, {"expectedVersion": None}),
        ("paymentRequestId", request("void"), "ALREADY_VOID", SAME, {"expectedVersion": None}),
        ("paymentRequestId", request("discarded"), "NOT_FOUND"),
        ("paymentRequestId", request("processing"), "PAYMENT_IN_PROGRESS", SAME, {"expectedVersion": None}),
        ("expectedVersion", 0, "VERSION_CONFLICT"),
        ("expectedVersion", -1, "VERSION_CONFLICT"),
        ("expectedVersion", 2**31 - 1, "VERSION_CONFLICT"),
        ("confirmPartiallyPaid", False, "CONFIRMATION_REQUIRED"),
    ),
    *of(
        "resendMessage",
        ("idempotencyKey", used_key, "IDEMPOTENCY_KEY_PARAMETER_MISMATCH"),
        ("messageId", lambda w: w.ids["message"], "INVALID"),
        ("confirmPossibleDuplicate", False, "CONFIRMATION_REQUIRED"),
        ("channelId", off("disconnected"), "CHANNEL_NOT_CONNECTED"),
        ("channelId", off("WHATSAPP"), "MESSAGING_WINDOW_CLOSED"),
    ),
    *of(
        "refundPayment",
        *BAD_AMOUNTS,
        ("idempotencyKey", used_key, "IDEMPOTENCY_KEY_PARAMETER_MISMATCH"),
        ("amount", "119.51", "REFUND_EXCEEDS_PAYMENT"),
        ("amount", "999999999999", "REFUND_EXCEEDS_PAYMENT"),
        ("paymentId", by_hand, "NOT_REFUNDABLE"),
        ("tellContactOn", off("disconnected"), "CHANNEL_NOT_CONNECTED"),
        ("tellContactOn", off("WHATSAPP"), "MESSAGING_WINDOW_CLOSED"),
    ),
    *of(
        "recordOutsidePayment",
        ("note", "turns\u202earound", "INVALID"),
        *BAD_AMOUNTS,
        ("idempotencyKey", used_key, "IDEMPOTENCY_KEY_PARAMETER_MISMATCH"),
        ("amount", "118.01", "AMOUNT_TOO_LARGE"),
        ("paymentRequestId", request("paid"), "ALREADY_PAID"),
        ("paymentRequestId", request("void"), "ALREADY_VOID"),
        ("paymentRequestId", request("discarded"), "NOT_FOUND"),
        ("paymentRequestId", request("processing"), "PAYMENT_IN_PROGRESS"),
        ("receivedAt", "2199-01-01T00:00:00Z", "INVALID"),
        ("receivedAt", "0001-01-01T00:00:00Z", "INVALID"),
    ),
    *of(
        "resolveMismatch",
        ("idempotencyKey", used_key, "IDEMPOTENCY_KEY_PARAMETER_MISMATCH"),
        ("paymentRequestId", request("void"), "ALREADY_VOID"),
        ("paymentRequestId", request("paid"), "NOTHING_TO_RESOLVE"),
        ("paymentRequestId", request("discarded"), "NOT_FOUND"),
        ("paymentRequestId", request("processing"), "PAYMENT_IN_PROGRESS"),
        ("resolution", "REFUND_DIFFERENCE", "RESOLUTION_NOT_POSSIBLE"),
    ),
    *of("undoOutsidePayment", ("paymentId", of_processor, "INVALID")),
    *of(
        "releasePaymentLink",
        ("idempotencyKey", used_key, "IDEMPOTENCY_KEY_PARAMETER_MISMATCH"),
        ("paymentRequestId", request("paid"), "ALREADY_PAID"),
        ("paymentRequestId", request("void"), "ALREADY_VOID"),
        ("paymentRequestId", request("discarded"), "NOT_FOUND"),
        ("paymentRequestId", request("sent"), "INVALID"),
        ("paymentRequestId", request("draft"), "INVALID"),
    ),
    *of(
        "runSandboxScenario",
        ("paymentRequestId", request("paid"), "ALREADY_PAID"),
        ("paymentRequestId", request("void"), "ALREADY_VOID"),
        ("paymentRequestId", request("discarded"), "NOT_FOUND"),
        ("paymentRequestId", request("processing"), "PAYMENT_IN_PROGRESS"),
    ),
    *of("recordLinkCopied", ("paymentRequestId", request("discarded"), "NOT_FOUND")),
    *of(
        "discardPaymentRequest",
        ("paymentRequestId", request("sent"), "ALREADY_SENT"),
        ("paymentRequestId", request("paid"), "ALREADY_SENT"),
        ("paymentRequestId", request("void"), "ALREADY_SENT"),
        ("paymentRequestId", request("copied"), "ALREADY_SENT"),
        ("paymentRequestId", request("discarded"), "NOT_FOUND"),
    ),
    *of(
        "sendMessage",
        ("idempotencyKey", used_key, "IDEMPOTENCY_KEY_PARAMETER_MISMATCH"),
        ("channelId", off("disconnected"), "CHANNEL_NOT_CONNECTED"),
        ("channelId", off("MESSENGER"), "MESSAGING_WINDOW_CLOSED"),
        ("conversationId", conversation("carl"), "CONTACT_OPTED_OUT", "channelId"),
        ("conversationId", conversation("dora"), "CONTACT_HAS_NO_ADDRESS", "channelId"),
        ("body", link("ben"), "INVALID"),
        ("body", "x" * 1601, "TOO_LONG"),
        ("body", "é" * 501, "TOO_LONG", SAME, {"channelId": off("INSTAGRAM_DM")}),
        ("body", "x" * 4001, "TOO_LONG", SAME, {"channelId": off("WEB_CHAT")}),
        ("subject", "one\r\nBcc: two@example.com", "INVALID"),
        *TEMPLATE_CASES,
    ),
    *of("createContact", *BAD_ADDRESSES, ("email", "maria1@example.com", "ALREADY_USED")),
    *of("updateContact", *BAD_ADDRESSES, ("name", None, "BLANK")),
    *of(
        "mergeContacts",
        ("idempotencyKey", used_key, "IDEMPOTENCY_KEY_PARAMETER_MISMATCH"),
        ("mergedContactId", lambda w: w.ids["contact"], "INVALID"),
        ("addresses", [{"kind": "SMS", "address": "+14155552602"}], "INVALID", "addresses.0.address"),  # Ben's
        ("addresses", [{"kind": "SMS", "address": "call me"}], "INVALID", "addresses.0.address"),
    ),
    *of(
        "updateAccount",
        ("name", None, "BLANK"),
        ("defaultCurrency", None, "BLANK"),
        ("defaultCurrency", "", "BLANK"),
        ("defaultCurrency", "XYZ", "CURRENCY_NOT_SUPPORTED"),
        ("defaultCurrency", "EURO", "TOO_LONG"),
        ("defaultCurrency", "E\x00R", "INVALID"),
        ("locale", "xx-YY", "INVALID"),
        ("locale", "english", "INVALID"),
        ("locale", "../en", "INVALID"),
        ("timeZone", "Mars/Olympus", "INVALID"),
        ("timeZone", "Europe", "INVALID"),
        ("timeZone", "../../etc/passwd", "INVALID"),
        ("timeZone", "/etc/passwd", "INVALID"),
        ("contactEmail", "desk", "INVALID"),
        ("contactPhone", "call us", "INVALID"),
        ("linkMessageTemplate", "Pay {amount}", "INVALID"),
        ("linkMessageTemplate", "{link} and {link}", "INVALID"),
        ("linkMessageTemplate", "{link} {secret}", "INVALID"),
        ("numberPrefix", "<b>", "INVALID"),
        ("numberPrefix", "A B", "INVALID"),
    ),
    *of(
        "configureProcessor",
        ("credentials", None, "INVALID", SAME, {"processorId": None}),
        ("credentials", {"sandbox": True}, "NOT_FOUND", "processorId", {"testMode": None}),
        ("credentials.sandbox", False, "INVALID", SAME, {"processorId": None, "testMode": None}),
        ("credentials.custom.provider", "stripe", "INVALID", SAME, ANOTHER),
        ("credentials.custom.provider", "../stripe", "INVALID", SAME, ANOTHER),
        ("credentials.custom.credentials", [], "INVALID", SAME, ANOTHER),
        (
            "credentials.custom.credentials",
            [{"name": "api_key", "value": v} for v in ("test_1", "test_2")],
            "INVALID",
            "credentials.custom.credentials.1.name",
            ANOTHER,
        ),
        ("credentials.paypal", {"clientId": "A"}, "INVALID", "credentials.paypal.clientSecret", ANOTHER),
        ("testMode", False, "INVALID"),
        ("testMode", False, "INVALID", SAME, {"credentials": None}),
        ("testMode", False, "INVALID", SAME, {"credentials": {"sandbox": True}, "processorId": None}),
        ("testMode", None, "INVALID", SAME, {"credentials": {"paypal": {}}, "processorId": None}),
        ("credentials.stripe.secretKey", "sk_test_not_this_one", "PROCESSOR_REJECTED"),
    ),
    *of(
        "connectChannel",
        ("kind", "EMAIL", "INVALID"),
        ("provider", "pigeon", "INVALID"),
        ("provider", "../simulated", "INVALID"),
        ("kind", "EMAIL", "NOT_FOUND", "channelId", {"provider": "simulated"}),
        ("kind", "CUSTOM", "INVALID", SAME, {"provider": "simulated"}),
        ("credentials", [], "INVALID", SAME, {"channelId": None}),
        (
            "credentials",
            [{"name": "secret", "value": "of my own"}],
            "INVALID",
            "credentials.0.name",
            {"provider": "simulated", "channelId": None},
        ),
        ("credentials", [{"name": "auth_token", "value": "0" * 32}], "INVALID"),
        ("credentials", [{"name": "auth_token", "value": ""}], "INVALID"),
        ("credentials", [{"name": "auth_token", "value": "a"}] * 2, "INVALID", "credentials.1.name"),
        ("allowedOrigins", ["https://shop.example"], "INVALID"),
    ),
    *of(
        "createApiKey",
        ("expiresAt", "2020-01-01T00:00:00Z", "INVALID"),
        ("expiresAt", "2999-01-01T00:00:00Z", "INVALID"),
        ("managesKeys", True, "INVALID"),  # the key is an agent's
    ),
    *of("rotateIdentitySecret", ("channelId", lambda w: w.ids["channel"], "INVALID")),
    *of(
        "signIn", ("email", "nobody@example.com", "SIGN_IN_FAILED", NONE), ("password", "wrong", "SIGN_IN_FAILED", NONE)
    ),
    *of(
        "markNotificationsRead",
        ("upTo", "", "INVALID"),
        ("upTo", "rubbish", "INVALID"),
        ("upTo", "x\x00", "INVALID"),
        ("upTo", lambda w: w.other.cursors["event"], "INVALID"),
        ("upTo", lambda w: w.cursors["contacts"], "INVALID"),
    ),
    *of("inviteUser", ("email", lambda w: w.email, "ALREADY_USED"), ("email", "nora", "INVALID")),
    *of("acceptInvitation", ("password", "x" * 257, "INVALID"), ("password", "too short", "INVALID")),
    *of("changePassword", ("newPassword", "too short", "INVALID")),
    *of("resetPassword", ("password", "too short", "INVALID")),
    *of("requestEmailChange", ("email", lambda w: w.email, "INVALID")),
    *of("updateProfile", ("locale", "xx-1", "INVALID"), ("timeZone", "Mars/Base", "INVALID")),
    *of("updateUser", ("role", "VIEWER", "LAST_OWNER", SAME, {"userId": lambda w: w.ids["user"]})),
    *of("createView", *WRONG_FILTERS),
    *of("updateView", *WRONG_FILTERS, ("list", {"conversations": {}}, "INVALID")),
    *of("disableUser", ("userId", lambda w: w.ids["user"], "LAST_OWNER")),
]

# A value of another type than the schema's, for each type: refused as a whole, before anything runs.
WRONG_TYPE: dict[str, tuple[Any, ...]] = {
    "String": (7, True, {"a": 1}, ["a", "b"]),
    "ID": (1.5, True, {"a": 1}),
    "Boolean": ("yes", 2),
    "Int": ("7", 1.5, 2**31, True),
    "DateTime": ("", "tomorrow", "2199-01-01", "2199-01-01T00:00:00", "2199-13-01T00:00:00Z", 7),
    "Decimal": (120, 1.5, True, "9" * 41),
    "CurrencyCode": (7, "X" * 11),
    "Cursor": (7, "x" * 401),
    **{kind: (7, "all", {"noSuchField": 1}) for kind in probes.LIST_PARTS},
}


def wrong_types(leaf: Leaf) -> tuple[Any, ...]:
    """Values that are not of the leaf's type."""
    kind = probes.schema().get_type(leaf.type)
    given = ("NO_SUCH_WORD", 7, {"a": 1}) if isinstance(kind, GraphQLEnumType) else WRONG_TYPE[leaf.type]
    if leaf.listed:
        given = (*(value for value in given if not isinstance(value, list)), [None])
    return given if leaf.nullable else (*given, None)


# ------------------------------------------------------------------------------------------------------------- fixtures
@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    probes.hash_quickly(monkeypatch)


@pytest.fixture
async def stripe() -> AsyncIterator[StripeServer]:
    async with StripeServer(derived_contract()) as server:
        yield server
        assert server.violations == []


@dataclass(frozen=True)
class PlugKeys:
    api_key: str = field(repr=False)


class Plug(Scripted):
    name = "plug"
    credentials = PlugKeys

    def __init__(self, credentials: PlugKeys, *, environment: Environment, webhook_url: str | None = None) -> None:
        super().__init__()


@pytest.fixture(autouse=True)
def plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor `plug`, as from an installed package."""
    load, cls = registry.load, registry.processor_class

    async def load_plug(room: str, name: str) -> Any:
        return Plug if name == "plug" else await load(room, name)

    monkeypatch.setattr(registry, "load", load_plug)
    monkeypatch.setattr(registry, "processor_class", lambda name: Plug if name == "plug" else cls(name))


@pytest.fixture
async def twilio() -> AsyncIterator[TwilioServer]:
    async with TwilioServer(twilio_contracts()[0]) as server:
        yield server


@pytest.fixture
async def product(database: str, events_url: str, stripe: StripeServer, twilio: TwilioServer) -> AsyncIterator[Product]:
    """The server without its job runner, so that nothing changes in the background."""
    more = {"RUN_JOBS": "false", **harness.MAIL, "STRIPE_API_BASE": stripe.url, "TWILIO_API_BASE": twilio.url}
    async with harness.in_process(database, events_url, **more) as running:
        yield running


@pytest.fixture
async def world(bare: Team) -> World:
    return await probes.world(bare)


# ---------------------------------------------------------------------------------------------------------------- tests
def test_every_mutation_and_every_input_field_has_a_case() -> None:
    tried = {f"{case.mutation}.{case.path}" for case in [*CASES, *by_type()]}
    wanted = {
        f"{name}.{leaf.path}" for name, one in probes.root("Mutation").items() for leaf in probes.leaves(one.args)
    }
    assert sorted(wanted - tried - set(HARMLESS)) == []
    # A list may also be wrong as a whole.
    lists = {ancestor for path in wanted for ancestor in itertools.accumulate(path.split("."), "{}.{}".format)}
    assert sorted(tried - wanted - lists) == []
    assert sorted(set(HARMLESS) & tried) == []
    for table in (LIMITS, LOOKED_UP, HARMLESS, NAMED, dict.fromkeys(BLANKS)):
        assert sorted(set(table) - wanted) == []


@pytest.mark.slow
async def test_each_wrong_argument_has_its_typed_error_and_changes_nothing(world: World, stripe: StripeServer) -> None:
    """One server serves all cases, because they change nothing."""
    wrong = [
        *await wrong_by_rule(world),
        *await wrong_by_type(world),
        *await wrong_together(world),
        *await lone_surrogates(world),
        *await a_silent_processor(world, stripe),
    ]
    assert not wrong, "\n".join(wrong)


async def wrong_by_rule(world: World) -> list[str]:
    """Each case gets exactly its code and field, and changes nothing."""
    wrong = []
    before = await probes.snapshot()
    for case in [*CASES, *by_type()]:
        arguments = probes.right(world)[case.mutation]
        for path, value in {**case.also, case.path: case.value}.items():
            given = value(world) if callable(value) else value
            arguments = probes.nested(path, given, arguments, probes.root("Mutation")[case.mutation].args)
        document = probes.mutation_document(case.mutation)
        answer = await probes.ask(world.product, document, arguments, world.team.owner)
        problem = _problem(case, answer)
        after = await probes.snapshot()
        if rows := probes.changed(before, after):
            problem = f"{problem or ''} CHANGED {rows}"
            before = after
        if problem:
            wrong.append(f"{case}: {problem}")
    return wrong


# Fields that can be judged only beside others: where one of these sets is wrong as well, the field is not named.
JUDGED_BESIDE: dict[str, list[set[str]]] = {
    "createPaymentRequest.input.processorKind": [{"input.processorId"}],  # processorId decides
    "sendPaymentRequest.input.template": [{"input.paymentRequestId"}, {"input.channelId"}],
    "sendMessage.input.template": [{"input.conversationId"}, {"input.channelId"}],
    "voidPaymentRequest.input.expectedVersion": [{"input.paymentRequestId"}],
    "voidPaymentRequest.input.confirmPartiallyPaid": [{"input.paymentRequestId"}],
    "resendMessage.input.confirmPossibleDuplicate": [{"input.messageId"}, {"input.channelId"}],
    "configureProcessor.input.testMode": [
        {"input.processorId", "input.credentials.stripe.secretKey"}
    ],  # both tell the mode
    "resolveMismatch.input.resolution": [{"input.paymentRequestId"}],
    "updateView.input.list": [{"input.viewId"}],
    "connectChannel.input.kind": [{"input.provider"}],
    "connectChannel.input.allowedOrigins": [{"input.provider"}],
    "mergeContacts.input.addresses": [{"input.contactId"}, {"input.mergedContactId"}],
    "connectChannel.input.credentials.name": [{"input.channelId"}, {"input.provider"}, {"input.kind"}],
}


async def wrong_together(world: World) -> list[str]:
    """Every two wrong fields of a mutation, and all of them: one error for each, in the order of the input, nothing changed."""
    wrong = []
    before = await probes.snapshot()
    for mutation, one in probes.root("Mutation").items():
        cases: dict[str, Case] = {}
        for case in [*by_type(), *(case for case in CASES if case.named == SAME)]:
            if case.mutation == mutation and not case.also and case.expected_field is not None:
                cases.setdefault(".".join(case.expected_field), case)
        order = [leaf.path for leaf in probes.leaves(one.args)]
        # A wrong list as a whole, or an item of it.
        single = [
            case
            for case in cases.values()
            if not any(other.path.startswith(f"{case.path}.") for other in cases.values())
        ]
        combined: dict[str, tuple[Case, ...]] = {}
        for paths in probes.one_of_each(one.args):
            chosen = sorted(
                (case for case in single if any(leaf.startswith(case.path) for leaf in paths)),
                key=lambda case: place(order, case.path),
            )
            for each in [*itertools.combinations(chosen, 2), tuple(chosen)]:
                combined[" + ".join(map(str, each))] = each
        for together in (each for each in combined.values() if len(each) > 1):
            arguments = probes.right(world)[mutation]
            for case in together:
                given = case.value(world) if callable(case.value) else case.value
                arguments = probes.nested(case.path, given, arguments, one.args)
            answer = await probes.ask(world.product, probes.mutation_document(mutation), arguments, world.team.owner)
            found = [(e["code"], e["field"]) for e in answer["data"][mutation]["userErrors"]]
            given_paths = {case.path for case in together}
            judged = [
                case
                for case in together
                if not any(others <= given_paths for others in JUDGED_BESIDE.get(f"{mutation}.{case.path}", []))
            ]
            if found != [(case.code, case.expected_field) for case in judged]:
                wrong.append(f"{' + '.join(map(str, together))}: answered {found}")
        after = await probes.snapshot()
        wrong += [f"{mutation} CHANGED {row}" for row in probes.changed(before, after)]
        before = after
    return wrong


def place(order: list[str], path: str) -> int:
    return next(n for n, known in enumerate(order) if known == path or known.startswith(path + "."))


def _problem(case: Case, answer: dict[str, Any]) -> str | None:
    if answer.get("errors"):
        return f"top-level {answer['errors']}"
    (payload,) = answer["data"].values()
    errors = payload.pop("userErrors")
    if any(payload.values()):
        return f"answered {payload}"
    found = [(e["code"], e["field"]) for e in errors]
    if found != [(case.code, case.expected_field)]:
        return f"answered {found}, not {case.expected_field}"
    wanted = TYPES.get(case.code, "FieldError")
    return None if errors[0]["__typename"] == wanted else f"answered {errors}, not as {wanted}"


async def wrong_by_type(world: World) -> list[str]:
    """Values of another type, missing, null or unknown: BAD_REQUEST before the mutation runs."""
    wrong = []
    before = await probes.snapshot()
    for mutation, one in probes.root("Mutation").items():
        document = probes.mutation_document(mutation)
        good = probes.right(world)[mutation]
        tried: dict[str, dict[str, Any]] = {}
        for leaf in probes.leaves(one.args):
            whole = {"input": {**good["input"], "template": A_TEMPLATE}} if ".template." in leaf.path else good
            for value in wrong_types(leaf):
                tried[f"{leaf.path}: {value!r}"] = probes.nested(leaf.path, value, whole, one.args)
            if leaf.required:
                tried[f"{leaf.path} left out"] = probes.without(
                    leaf.path, probes.nested(leaf.path, None, whole, one.args)
                )
        if "input" in one.args:
            tried["no input"] = {}
            tried["input: null"] = {"input": None}
            tried["an unknown field"] = {"input": {**good["input"], "accountId": world.other.ids["account"]}}
        for name, arguments in tried.items():
            answer = await probes.ask(world.product, document, arguments, world.team.owner)
            codes = [e["extensions"]["code"] for e in answer.get("errors", [])]
            if not codes or set(codes) != {"BAD_REQUEST"} or any((answer.get("data") or {}).values()):
                wrong.append(f"{mutation}({name}): {answer}")
        after = await probes.snapshot()
        wrong += [f"{mutation} CHANGED {row}" for row in probes.changed(before, after)]
        before = after
    return wrong


async def a_silent_processor(world: World, stripe: StripeServer) -> list[str]:
    """Credentials that cannot be tested are not stored."""
    before = await probes.snapshot()
    stripe.fail_next("before_500")
    arguments = probes.right(world)["configureProcessor"]
    document = probes.mutation_document("configureProcessor")
    payload = await world.product.one(document, arguments, token=world.team.owner)
    found = [(e["code"], e["field"]) for e in payload["userErrors"]]
    wrong = (
        []
        if found == [("PROCESSOR_UNAVAILABLE", ["input", "credentials", "stripe", "secretKey"])]
        else [f"silent processor: {found}"]
    )
    return wrong + probes.changed(before, await probes.snapshot())


async def lone_surrogates(world: World) -> list[str]:
    """Lone surrogates are refused before the mutation runs."""
    wrong = []
    before = await probes.snapshot()
    for mutation, one in probes.root("Mutation").items():
        for leaf in probes.leaves(one.args):
            if leaf.type in ("String", "ID"):
                arguments = probes.nested(leaf.path, "a\ud800b", probes.right(world)[mutation], one.args)
                document = probes.mutation_document(mutation)
                answer = await probes.ask(world.product, document, arguments, world.team.owner)
                if [e["extensions"]["code"] for e in answer.get("errors", [])] != ["BAD_REQUEST"]:
                    wrong.append(f"{mutation}.{leaf.path}: {answer}")
    return wrong + probes.changed(before, await probes.snapshot())


async def test_what_the_cases_start_from_is_right_and_without_a_processor_nothing_can_be_asked(world: World) -> None:
    wrong = [*await without_a_processor(world), *await right_arguments(world)]
    assert not wrong, "\n".join(wrong)


async def right_arguments(world: World) -> list[str]:
    """Each mutation succeeds with valid arguments, and the snapshot shows its change."""
    wrong = []
    before = await probes.snapshot()
    for mutation, arguments in probes.right(world).items():
        document = probes.mutation_document(mutation)
        answer = await probes.ask(world.product, document, arguments, world.team.owner)
        if answer.get("errors") or answer["data"][mutation]["userErrors"]:
            wrong.append(f"{mutation}: {answer}")
        after = await probes.snapshot()
        if not probes.changed(before, after):
            wrong.append(f"{mutation} changed nothing")
        before = after
    return wrong


async def without_a_processor(world: World) -> list[str]:
    """Without a processor nothing can be requested and no link can be sent."""
    team = world.team
    for processor in (world.stripe, world.ids["processor"]):
        await team.product.ok(d.DISCONNECT_PROCESSOR, {"processorId": processor}, token=team.owner)
    before = await probes.snapshot()
    wrong = []
    text = {"idempotencyKey": key(), "conversationId": world.ids["conversation"], "channelId": world.ids["channel"]}
    named = {**team.ask(world.contacts["maria"]), "processorKind": "SANDBOX"}
    certain = {**team.ask(world.contacts["maria"]), "processorId": world.ids["processor"]}
    tried: dict[str, tuple[Any, dict[str, Any]]] = {
        "createPaymentRequest": (None, {"input": team.ask(world.contacts["maria"])}),
        "createPaymentRequest, named": (["input", "processorKind"], {"input": named}),
        "createPaymentRequest, certain": (["input", "processorId"], {"input": certain}),
        "sendPaymentRequest": (None, {"input": probes.right(world)["sendPaymentRequest"]["input"]}),
        "sendMessage": (None, {"input": {**text, "body": world.requests["draft"]["checkoutUrl"]}}),
    }
    for name, (where, arguments) in tried.items():
        document = probes.mutation_document(name.partition(",")[0])
        (payload,) = (await team.product.gql(document, arguments, token=team.owner)).values()
        found = [(e["code"], e["field"]) for e in payload["userErrors"]]
        way = all("Settings → Payments (configureProcessor)" in e["message"] for e in payload["userErrors"])
        if found != [("NO_PROCESSOR_CONFIGURED", where)] or not way:
            wrong.append(f"{name}: {payload['userErrors']}")
    wrong += probes.changed(before, await probes.snapshot())
    for given in (
        {"credentials": {"sandbox": True}, "makeDefault": True},
        probes.right(world)["configureProcessor"]["input"],
    ):
        await team.product.ok(d.CONFIGURE_PROCESSOR, given, token=team.owner)
    return wrong
