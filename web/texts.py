"""Texts of the pages by language, and formats of amounts and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from babel.dates import format_date, format_skeleton, format_time, get_timezone_name

from models import locales, time_zones
from models.money import Money

DEFAULT: Final = "en"

TEXTS: Final[Mapping[str, Mapping[str, str]]] = {
    "en": {
        "amount": "Amount",
        "amount_due": "Amount due",
        "amount_paid": "Amount paid",
        "already_paid": "{paid} of {amount} is already paid.",
        "number": "Number",
        "due": "Due",
        "overdue": "This payment was due on {date}.",
        "pay": "Pay {amount}",
        "secured_by": "You pay on the page of {processor}. {business} never sees your card.",
        "test_mode": "Test mode: no real money moves.",
        "declined_title": "Your payment did not go through",
        "declined": "Nothing was charged. You can try again, or use another way to pay.",
        "unavailable_title": "The payment page can't be opened at the moment",
        "unavailable": "Nothing was charged. Please try again in a minute.",
        "refused_title": "This payment cannot be taken right now",
        "refused": "Nothing was charged. {business} has been notified.",
        "processing_title": "Your payment is being processed",
        "processing": "This can take a little while. This page shows the result as soon as it is known; you don't need to pay again.",
        "begun": "You started a payment by {method} on {date}.",
        "begun_unnamed": "You started a payment on {date}.",
        "begun_until": "It can take until {date}.",
        "begun_days": "It can take several days.",
        "begun_result": "This page shows the result as soon as it is known.",
        "another_way": "Pay another way",
        "another_way_warning": (
            "If you pay another way, do not complete the first payment. If both go through, contact {business} about a"
            " refund."
        ),
        "another_way_confirm": "I will not complete the first payment, and want to pay another way.",
        "another_way_unconfirmed": "Please confirm first that you want to pay another way.",
        "released": "If you pay here, do not complete that payment. If both go through, contact {business} about a refund.",
        "closing_title": "This request is being checked",
        "closing": "It can't be paid at the moment. This page shows the result as soon as it is known.",
        "review_title": "{business} is checking this payment",
        "review": "{business} asked for {asked} and received {received}. {business} is checking this payment; you don't need to pay again.",
        "paid_title": "Paid",
        "paid": "Thank you. {business} has received your payment.",
        "receipt": "Receipt",
        "paid_at": "Paid on",
        "method": "Paid with",
        "reference": "Reference",
        "refunded": "Refunded",
        "print": "Print this page to keep your receipt.",
        "void_title": "This payment request was cancelled",
        "void": "There is nothing to pay. If you have a question, ask {business}.",
        "questions": "Questions? Contact {business}",
        "reload": "Show the result",
        "og_open": "Payment request {number} from {business}",
        "og_paid": "Paid: payment request {number} from {business}",
        "og_void": "Cancelled: payment request {number} from {business}",
        "og_paid_title": "{product}: paid",
        "og_void_title": "{product}: cancelled",
        "powered": "Payment page by Paythread",
        "error_400": "That request was not understood",
        "error_400_text": "Go back and try again.",
        "error_403": "That is not allowed here",
        "error_403_text": "Open the page again from its own link.",
        "error_404": "There is nothing here",
        "error_404_text": "The link may be incomplete or no longer valid. Copy all of it, or ask the person who sent it.",
        "error_405": "That does not work here",
        "error_405_text": "Open the page again from its own link.",
        "error_408": "That took too long",
        "error_408_text": "Check your connection and try again.",
        "error_413": "That is too large",
        "error_413_text": "Send less at once.",
        "error_429": "Too many tries",
        "error_429_text": "Wait a minute, then open the link again.",
        "error_500": "Something went wrong on our side",
        "error_500_text": "Try again in a minute. Nothing was charged by this page.",
        "error_503": "Not available at the moment",
        "error_503_text": "Try again in a minute. Nothing was charged by this page.",
    },
}


def error_texts(status: int) -> tuple[str, str]:
    """Title and advice of an HTTP status."""
    texts = TEXTS[DEFAULT]
    key = f"error_{status}"
    if key not in texts:
        key = "error_400" if status < 500 else "error_500"
    return texts[key], texts[f"{key}_text"]


@dataclass(frozen=True, slots=True)
class Words:
    """The texts of one page, and the account's formats of amounts and times."""

    language: str  # of the texts, for `lang`
    locale: str  # for amounts and times
    time_zone: str

    @classmethod
    def of(cls, locale: str, time_zone: str) -> Words:
        """Texts fall back to English, amounts and times do not."""
        found = locales.of(locale)
        language = str(found).replace("_", "-") if found.language in TEXTS else DEFAULT
        return cls(language, str(found), time_zone)

    def __call__(self, key: str, **values: str) -> str:
        texts = TEXTS.get(self.language.partition("-")[0], TEXTS[DEFAULT])
        text = texts.get(key) or TEXTS[DEFAULT][key]
        # Values are inserted unescaped: the template escapes the result.
        return text.format_map(values) if values else text

    @property
    def direction(self) -> str:
        return locales.of(self.language).text_direction

    def money(self, amount: Money) -> str:
        return amount.formatted(self.locale)

    def money_with_code(self, amount: Money) -> str:
        """`money`, with the currency's code where the symbol is ambiguous."""
        text = self.money(amount)
        return text if amount.currency in text else f"{text} {amount.currency}"

    def sum(self, amounts: Sequence[Money], *, code: bool = False) -> str:
        """Amounts of several currencies in one line."""
        return " + ".join(self.money_with_code(one) if code else self.money(one) for one in amounts)

    def time(self, moment: datetime) -> str:
        local = moment.astimezone(self._zone())
        name = get_timezone_name(local, width="short", locale=self.locale)
        return f"{format_date(local, 'long', locale=self.locale)}, {format_time(local, 'short', locale=self.locale)} {name}"

    def last_day(self, due_at: datetime) -> str:
        """The last day in the account's zone before the due time: midnight ends the day before."""
        return format_date((due_at - timedelta(microseconds=1)).astimezone(self._zone()), "long", locale=self.locale)

    def day(self, moment: datetime) -> str:
        return format_skeleton("MMMd", moment.astimezone(self._zone()), locale=self.locale)

    def _zone(self) -> ZoneInfo:
        return time_zones.zone(self.time_zone)
