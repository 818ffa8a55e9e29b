"""The text of a message: payment link, length, template."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from integrations import sms
from integrations.base import LengthUnit
from models import vault
from models.errors import Invalid, Refusals, TooLong
from models.money import Money
from models.tables import Account, ChannelConnection, PaymentRequest
from services.connections import availability
from services.core import validation
from services.thread import payment_links

UCS2_REASONS: Final = 5  # characters reported
TEMPLATE_ID_LIMIT: Final = 80  # characters
VARIABLES_LIMIT: Final = 20
VARIABLE_LIMIT: Final = 1000  # characters of a value
VARIABLE_NAME_LIMIT: Final = 40
_UNITS: Final[Mapping[LengthUnit, str]] = {
    LengthUnit.CHARACTERS: "characters",
    LengthUnit.UTF16_UNITS: "characters (most emoji count twice)",
    LengthUnit.BYTES: "bytes",
}
_VARIABLE_NAME: Final = re.compile(rf"[A-Za-z0-9_]{{1,{VARIABLE_NAME_LIMIT}}}")
_MARK: Final = re.compile(r"\{(business|amount|product|number|link)\}")
_TEMPLATE_MARK: Final = re.compile(r"\{(business|amount|product|number|link|token)\}")


# ---------------------------------------------------------------------------------------------------------- the text
def compose(account: Account, request: PaymentRequest, connection: ChannelConnection, body: str | None) -> str:
    """The text for this channel, with the link at {link} or at the end.

    Raises: VaultError.
    """
    values = _values(account, request, connection)
    text = account.link_message_template if body is None else body.rstrip()
    if "{link}" not in text and values["link"] not in text:
        text = f"{text}\n{{link}}".lstrip()
    return _fill_marks(_MARK, text, values)


def _values(account: Account, request: PaymentRequest, connection: ChannelConnection) -> dict[str, str]:
    link = payment_links.checkout_url(request)
    money = Money(request.amount_minor, request.currency)
    return {
        "business": account.name,
        "amount": money.sms_text(account.locale) if connection.kind == "SMS" else money.formatted(account.locale),
        "product": request.product_name,
        "number": request.number,
        "link": link,
        "token": link.rpartition("/")[2],
    }


def _fill_marks(mark: re.Pattern[str], text: str, values: Mapping[str, str]) -> str:
    return mark.sub(lambda found: values[found[1]], text)  # one pass: a product may be named "{link}"


# ------------------------------------------------------------------------------------------------------------ length
@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """The length of a text on a channel, in `unit`."""

    length: int
    max_length: int | None
    unit: LengthUnit
    encoding: str | None = None  # this and the rest: SMS only
    segments: int | None = None
    remaining: int | None = None  # in the last segment: septets (GSM_7) or UTF-16 units (UCS_2)
    ucs2_reasons: Sequence[str] = ()  # characters that force UCS_2

    @property
    def fits(self) -> bool:
        return self.max_length is None or self.length <= self.max_length


def measure(text: str, connection: ChannelConnection) -> Measure:
    limits = availability.limits_of(connection)
    found = Measure(
        length=limits.length_of(text),
        max_length=limits.max_length,
        unit=limits.length_unit,
    )
    if connection.kind != "SMS":
        return found
    cost = sms.segments(text)
    return replace(
        found,
        encoding=cost.encoding.replace("-", "_"),
        segments=cost.count,
        remaining=cost.remaining,
        ucs2_reasons=sms.outside_gsm7(text, limit=UCS2_REASONS),
    )


def refuse_long(text: str, connection: ChannelConnection, *, field: validation.Field) -> None:
    """Refuse a text that the channel would cut or split.

    Raises: TooLong.
    """
    found = measure(text, connection)
    if not found.fits:
        raise TooLong(
            f"This channel takes at most {found.max_length} {_UNITS[found.unit]}; the text has {found.length}.",
            field=field,
        )


# --------------------------------------------------------------------------------------------------------- templates
@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """An approved template: the vendor's id, and each variable's name and value."""

    id: str
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def values(self) -> list[str]:
        return [value for _, value in self.variables]


def checked(template: Template) -> Template:
    """The template as it may be stored.

    Raises: Blank, TooLong, Invalid.
    """
    refusals = Refusals()
    with refusals:
        template_id = validation.required(template.id, limit=TEMPLATE_ID_LIMIT, field=("template", "id"))
    with refusals:
        if len(template.variables) > VARIABLES_LIMIT:
            raise TooLong(f"A template takes at most {VARIABLES_LIMIT} variables.", field=("template", "variables"))
    variables: dict[str, str] = {}
    for n, (name, value) in enumerate(template.variables[:VARIABLES_LIMIT]):
        at = ("template", "variables", str(n))
        with refusals:
            if not _VARIABLE_NAME.fullmatch(name):
                raise Invalid("A variable's name is letters and digits, such as 1.", field=(*at, "name"))
            if any(name == earlier for earlier, _ in template.variables[:n]):
                raise Invalid("Each variable has one value.", field=(*at, "name"))
        with refusals:
            variables[name] = validation.required(value, limit=VARIABLE_LIMIT, field=(*at, "value"))
    refusals.raise_any()
    return Template(id=template_id, variables=tuple(variables.items()))


def compose_template(
    account: Account, request: PaymentRequest, connection: ChannelConnection, template: Template
) -> Template:
    """Fill the marks in the variables; {token} is the link's last part, for a URL button.

    Raises: VaultError.
    """
    values = _values(account, request, connection)
    return Template(
        id=template.id,
        variables=tuple((name, _fill_marks(_TEMPLATE_MARK, value, values)) for name, value in template.variables),
    )


def refuse_without_links(text: str, template: Template, carried: Sequence[PaymentRequest]) -> None:
    """Refuse a template that lacks a payment link that the thread shows.

    Raises: Invalid.
    """
    hashes = {request.token_hash for request in carried}
    sent = "\n".join(template.values)
    if any(token not in sent and vault.digest(token) in hashes for token in payment_links.tokens(text)):
        raise Invalid(
            "No variable of the template carries the payment link: give one the value {link}.",
            field=("template", "variables"),
        )
