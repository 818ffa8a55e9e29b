"""Content negotiation of GraphQL answers. Source: RFC 9110, 12.5.1; graphql.github.io/graphql-over-http/draft."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

JSON: Final = "application/json"
GRAPHQL_JSON: Final = "application/graphql-response+json"
# The draft's previous name of its type; some older clients accept nothing else.
OLD_GRAPHQL_JSON: Final = "application/graphql+json"
EVENTS: Final = "text/event-stream"

# In the order of preference between types that the client likes equally.
JSON_TYPES: Final = (JSON, GRAPHQL_JSON, OLD_GRAPHQL_JSON)

_RANGES: Final = frozenset({*JSON_TYPES, EVENTS, "application/*", "text/*", "*/*"})
# Quoted values may contain commas and semicolons. Their parameters do not matter here.
_QUOTED: Final = re.compile(r'"[^"]*"?')
# Java's default header has `*; q=.2`: the digit before the point is not required.
_WEIGHT: Final = re.compile(r"0?\.[0-9]+|0\.?|1(?:\.0*)?", re.ASCII)


class Accepted(NamedTuple):
    """The acceptable JSON type, if any, and whether events are acceptable."""

    json: str | None
    events: bool


class _Range(NamedTuple):
    weight: float
    place: int


def accepted(headers: Sequence[str]) -> Accepted:
    """Evaluates all Accept headers of a request; without any, everything is acceptable."""
    return _accepted(tuple(headers))


@lru_cache(maxsize=256)
def _accepted(headers: tuple[str, ...]) -> Accepted:
    ranges = _ranges(headers)

    def rank(media_type: str) -> tuple[float, bool, bool, int]:
        # By weight, then named before wildcard, current before old name, first in the header.
        found = _match(media_type, ranges)
        return found.weight, media_type in ranges, media_type != OLD_GRAPHQL_JSON, -found.place

    best = max(JSON_TYPES, key=rank)
    return Accepted(best if rank(best)[0] > 0 else None, _match(EVENTS, ranges).weight > 0)


def _ranges(headers: Sequence[str]) -> dict[str, _Range]:
    found: dict[str, _Range] = {}
    parts = [part for part in _QUOTED.sub("", ",".join(headers)).split(",") if part.strip()]
    for place, part in enumerate(parts or ["*/*"]):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        name = "*/*" if name == "*" else name
        if name not in _RANGES:
            continue
        weight = _weight(parameters)
        if weight is not None and (name not in found or weight > found[name].weight):
            found[name] = _Range(weight, place)
    return found


def _weight(parameters: Sequence[str]) -> float | None:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            value = value.strip()
            return float(value) if _WEIGHT.fullmatch(value) else None
    return 1.0


def _match(media_type: str, ranges: dict[str, _Range]) -> _Range:
    group = media_type.partition("/")[0]
    for name in (media_type, f"{group}/*", "*/*"):
        if name in ranges:
            return ranges[name]
    return _Range(0.0, 0)
