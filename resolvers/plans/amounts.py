"""Money objects, built once for each amount."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Final

from graphql import FieldNode

from resolvers.plans.selections import Built
from resolvers.transport.executor import NotPlanned
from schema import scalars

_MONEY: Final[dict[str, Callable[[scalars.Money], Any]]] = {
    "__typename": lambda money: "Money",
    "amount": lambda money: money.amount,
    "currency": lambda money: money.currency,
    "minorUnits": lambda money: money.minor_units,
}


def money_builder(selected: Mapping[str, list[FieldNode]]) -> Callable[[int, str], Built]:
    """Raises: NotPlanned."""
    parts: list[tuple[str, Callable[[scalars.Money], Any]]] = []
    for response_name, found in selected.items():
        name = found[0].name.value
        if name == "formatted":
            if any(node.arguments for node in found):
                raise NotPlanned
            parts.append((response_name, scalars.Money.formatted))
        else:
            parts.append((response_name, _MONEY[name]))
    return partial(_amount, _MoneySelection(tuple(parts)))


@dataclass(frozen=True, slots=True, eq=False)  # by identity: a quick key
class _MoneySelection:
    parts: tuple[tuple[str, Callable[[scalars.Money], Any]], ...]


# One cache for all plans: with one per selection, clients could fill any number of them.
@lru_cache(maxsize=8192)
def _amount(selection: _MoneySelection, minor: int, currency: str) -> Built:
    amount = scalars.money(int(minor), currency)
    return {name: read(amount) for name, read in selection.parts}
