"""Sites that may show a chat widget (CSP frame-ancestors syntax)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from models.errors import Invalid, Refusals, TooLong

LIMIT: Final = 50
LONGEST: Final = 260  # characters: a host name has at most 253
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# A wildcard replaces the first labels only and leaves two: *.com would match every site.
_ORIGIN: Final = re.compile(rf"https?://(?:{_LABEL}(?:\.{_LABEL})*|\*\.{_LABEL}(?:\.{_LABEL})+)(?::[1-9][0-9]{{0,4}})?")


def checked(given: Sequence[str]) -> list[str]:
    """Lower case, without duplicates. Raises: Invalid, TooLong."""
    # They are copied into a header, so nothing else may pass.
    if len(given) > LIMIT:
        raise TooLong(f"At most {LIMIT} origins.", field="allowedOrigins")
    found = []
    refusals = Refusals()
    for n, typed in enumerate(given):
        field = ("allowedOrigins", str(n))
        with refusals:
            if len(typed) > LONGEST:
                raise TooLong(f"At most {LONGEST} characters.", field=field)
            origin = typed.strip().lower().removesuffix("/")
            if _ORIGIN.fullmatch(origin) is None:
                raise Invalid(
                    "An origin is scheme, host and perhaps a port, such as https://shop.example or https://*.example.com.",
                    field=field,
                )
            found.append(origin)
    refusals.raise_any()
    return list(dict.fromkeys(found))
