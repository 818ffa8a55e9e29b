"""Arguments of mutations as services take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import strawberry

from models.errors import Invalid, Refusal, Refusals
from models.ids import parse_public_id
from schema.inputs.contacts import ContactAddressInput
from schema.inputs.credentials import CredentialInput
from schema.inputs.messages import MessageTemplateInput
from services.messaging.composer import Template

NO_ROW: Final = UUID(int=0)  # no row has this id


def row_id(value: str, prefix: str) -> UUID:
    """The row's id; NO_ROW for malformed text."""
    return parse_public_id(value, prefix) or NO_ROW


def optional_row_id(value: str | None, prefix: str) -> UUID | None:
    return row_id(value, prefix) if value is not None else None


def given_fields(input: object, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(input, name)) is not strawberry.UNSET}


def addresses(given: Sequence[ContactAddressInput] | None) -> list[tuple[str, str]]:
    return [(address.kind.name, address.address) for address in given or ()]


def template(given: MessageTemplateInput | None) -> Template | None:
    return given.to_template() if given is not None else None


def credentials(given: Sequence[CredentialInput] | None) -> dict[str, str]:
    return {credential.name: credential.value for credential in given or ()}


def refuse_repeated_credentials(given: Sequence[CredentialInput] | None) -> None:
    """Raises: Invalid."""
    names = [credential.name for credential in given or ()]
    refusals = Refusals()
    for name in {name for name in names if names.count(name) > 1}:
        with refusals:
            raise Invalid("Give each credential once.", field=("credentials", name, "name"))
    refusals.raise_any()


def place_credentials(
    refusal: Refusal, given: Sequence[CredentialInput] | None, at: tuple[str, ...] = ("credentials",)
) -> None:
    """Replace the credentials' names by their places in the list `at`; one that is not given is the whole list's error."""
    places = {credential.name: str(n) for n, credential in enumerate(given or ())}
    for each in refusal.all:
        if each.field is not None and each.field[0] == "credentials":
            name, *part = each.field[1:] or ("",)
            each.field = (*at, places[name], *(part or ("value",))) if name in places else at
