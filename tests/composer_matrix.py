"""The factors that decide whether a message can be sent, as rows of one account, for the availability tests.

One channel for each variant and connection state, one contact for each address state; processor and role are set per cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import combinations, product
from typing import Any

import pytest

from models import tables
from models.ids import public_id
from services.connections import availability
from services.core import unit_of_work
from services.messaging import messages
from tests import factories
from tests.configured import change

AT = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)  # the clock stands still: an edge has no width
DAY, WEEK, LEAST = timedelta(hours=24), timedelta(hours=168), timedelta(microseconds=1)

TWILIO = {"account_sid": "AC" + "0" * 32, "auth_token": "t" * 32, "from_number": "+14155550100"}
META = {"account_id": "1", "access_token": "a", "app_secret": "s", "verify_token": "v", "page_id": "2"}
SMTP = {"host": "127.0.0.1", "from_address": "desk@example.test"}


@dataclass(frozen=True, slots=True)
class Variant:
    """One kind of channel by one provider, with credentials to connect it."""

    kind: str
    provider: str
    credentials: tuple[tuple[str, str], ...]

    @property
    def for_people(self) -> bool:
        """Whether people have a longer window than API keys."""
        return dict(self.credentials).get("human_agent") == "yes"

    def __str__(self) -> str:
        return f"{self.kind} by {self.provider}{' for people' if self.for_people else ''}"


def _variant(kind: str, provider: str, credentials: dict[str, str]) -> Variant:
    return Variant(kind, provider, tuple(credentials.items()))


VARIANTS = (
    *(_variant(kind, "simulated", {"secret": "s" * 16}) for kind in ("SMS", "EMAIL", "WHATSAPP")),
    *(_variant(kind, "simulated", {"secret": "s" * 16}) for kind in ("INSTAGRAM_DM", "MESSENGER", "WEB_CHAT")),
    _variant("SMS", "twilio_sms", TWILIO),
    _variant("EMAIL", "smtp_email", SMTP),
    _variant("WHATSAPP", "twilio_whatsapp", TWILIO),
    _variant("INSTAGRAM_DM", "meta_messenger", META),
    _variant("MESSENGER", "meta_messenger", META),
    _variant("MESSENGER", "meta_messenger", META | {"human_agent": "yes"}),
    _variant("WEB_CHAT", "web_chat", {"identity_secret": "i" * 32}),
)
CONNECTIONS = ("connected", "disconnected", "unreadable credentials", "plug-in gone")
# None: never written; the windows are of 24 hours, and of 168 for people where Meta has granted it.
WINDOWS = (None, DAY - LEAST, DAY, WEEK)
Address = tuple[bool, timedelta | None] | None
ADDRESSES: tuple[Address, ...] = (None, *product((False, True), WINDOWS))
PROCESSORS = ("none", "connected", "disconnected", "sandbox closed", "real, sandbox closed")
ROLES = ("OWNER", "ADMIN", "AGENT", "VIEWER", "AGENT by key")


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination. `address`: None, or whether the contact opted out and how long ago it wrote."""

    variant: Variant
    connection: str
    address: Address
    processor: str
    role: str

    def __str__(self) -> str:
        if self.address is None:
            address = "no address"
        else:
            opted_out, heard = self.address
            address = f"{'opted out, ' if opted_out else ''}{'never wrote' if heard is None else f'wrote {heard} ago'}"
        return f"{self.variant}, {self.connection}, {address}, processor {self.processor}, {self.role}"


def cover() -> list[Cell]:
    """A small set of cells that contains every pair of values of two factors (pairwise cover, greedy)."""
    factors: Sequence[Sequence[Any]] = (VARIANTS, CONNECTIONS, ADDRESSES, PROCESSORS, ROLES)
    missing = {
        (i, a, j, b)
        for i, j in combinations(range(len(factors)), 2)
        for a, b in product(range(len(factors[i])), range(len(factors[j])))
    }
    every = list(product(*(range(len(values)) for values in factors)))
    chosen = []
    while missing:
        i, a, j, b = min(missing)
        best = max(
            (one for one in every if one[i] == a and one[j] == b),
            key=lambda one: sum((x, one[x], y, one[y]) in missing for x, y in combinations(range(len(factors)), 2)),
        )
        missing -= {(x, best[x], y, best[y]) for x, y in combinations(range(len(factors)), 2)}
        chosen.append(Cell(*(factors[n][value] for n, value in enumerate(best))))
    return chosen


def _is_widget(variant: Variant) -> bool:
    return variant.provider == "web_chat"


class _Stopped(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Any:
        return AT.astimezone(tz)


def stop_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the availability code see the time AT."""
    for module in (availability, unit_of_work, messages):
        monkeypatch.setattr(module, "datetime", _Stopped)


@dataclass
class Matrix:
    """The rows: channels by variant and state; one contact, with an open payment request, per state of its address."""

    account: tables.Account
    elsewhere: tables.Account
    sandbox: tables.ProcessorConnection
    real: tables.ProcessorConnection
    channels: dict[tuple[Variant, str], tables.ChannelConnection] = field(default_factory=dict)
    _threads: dict[tuple[bool, Address], tuple[tables.Conversation, tables.PaymentRequest]] = field(
        default_factory=dict
    )

    @classmethod
    async def make(cls, account: tables.Account) -> Matrix:
        """Create all rows that the cells need, in an account without channels and processors."""
        # A request needs a processor row even if its account has none; then it uses another account's row.
        elsewhere = await factories.account()
        made = cls(
            account,
            elsewhere,
            sandbox=await factories.processor_connection(elsewhere),
            real=await factories.processor_connection(elsewhere, processor="stripe"),
        )
        for variant, state in product(VARIANTS, CONNECTIONS):
            row = await factories.channel_connection(
                account,
                variant.kind,
                credentials=dict(variant.credentials),
                provider="carrier_pigeon" if state == "plug-in gone" else variant.provider,
                connected=state != "disconnected",
            )
            if state == "unreadable credentials":
                row.credentials = "unreadable"
                await row.save()
            made.channels[variant, state] = row
        for of_widget, address in product((False, True), ADDRESSES):
            contact = await factories.contact(account)
            if address is not None:
                opted_out, heard = address
                for kind in sorted({variant.kind for variant in VARIANTS}):
                    named = (
                        {"address": f"visitor-{len(made._threads)}@{made._widget}"}
                        if of_widget and kind == "WEB_CHAT"
                        else {}
                    )
                    await factories.contact_address(
                        contact,
                        kind,
                        opted_out_at=AT if opted_out else None,
                        last_inbound_at=None if heard is None else AT - heard,
                        **named,
                    )
            made._threads[of_widget, address] = (
                await factories.conversation(contact),
                await factories.payment_request(contact, processor_connection_id=made.sandbox.id),
            )
        return made

    @property
    def _widget(self) -> str:
        (row,) = [
            row for (variant, state), row in self.channels.items() if _is_widget(variant) and state == "connected"
        ]
        return public_id("chn", row.id)

    def thread(self, variant: Variant, address: Address) -> tuple[tables.Conversation, tables.PaymentRequest]:
        """The conversation with a contact of this address, and its request."""
        return self._threads[_is_widget(variant), address]

    async def set_processor(self, state: str) -> None:
        change(sandbox_open="sandbox closed" not in state)
        for row, here in ((self.sandbox, state in PROCESSORS[1:4]), (self.real, state == PROCESSORS[4])):
            owner = self.account if here else self.elsewhere
            await tables.ProcessorConnection.filter(id=row.id).update(
                account_id=owner.id, connected=state != "disconnected", is_default=False
            )
