"""Inputs that change the account's settings."""

from __future__ import annotations

import strawberry

from schema.describe import limited
from schema.scalars import (
    CurrencyCode,
)
from services.accounts import accounts
from services.core import validation


@strawberry.input(description="What to change of the account. Fields left out stay.")
class UpdateAccountInput:
    name: str | None = strawberry.field(
        default=strawberry.UNSET, description=limited("The business's name.", accounts.NAME_LIMIT)
    )
    default_currency: CurrencyCode | None = strawberry.field(
        default=strawberry.UNSET, description="Currency of new payment requests."
    )
    locale: str | None = strawberry.field(
        default=strawberry.UNSET,
        description=limited(
            "Language and region, e.g. en-US: how messages, cards and pages write amounts and dates.",
            accounts.LOCALE_LIMIT,
        ),
    )
    time_zone: str | None = strawberry.field(
        default=strawberry.UNSET,
        description=limited("Name of an IANA zone or link, e.g. Europe/Berlin.", accounts.TIME_ZONE_LIMIT),
    )
    contact_email: str | None = strawberry.field(
        default=strawberry.UNSET, description=limited("Shown on checkout pages; null: none.", validation.EMAIL_LIMIT)
    )
    contact_phone: str | None = strawberry.field(
        default=strawberry.UNSET, description=limited("Shown on checkout pages; null: none.", validation.PHONE_LIMIT)
    )
    link_message_template: str | None = strawberry.field(
        default=strawberry.UNSET,
        description=limited("Text that goes with a link; it needs {link} exactly once.", accounts.LINK_MESSAGE_LIMIT),
    )
    number_prefix: str | None = strawberry.field(
        default=strawberry.UNSET, description=limited("The prefix of new numbers.", accounts.PREFIX_LIMIT)
    )
