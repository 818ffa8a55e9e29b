"""Limits of invitations and of attempts to use a link, counted like sign-ins."""

from __future__ import annotations

from typing import Final
from uuid import UUID

import limits

from models.errors import RateLimited
from models.vault import digest
from services.core.configuration import Derived, TeamLimits
from services.core.rate_limits import Limit, MovingWindows, network_of, site_of

SITE_TIMES: Final = 4  # an IPv6 /48 may try this many times what one network may


class _Limits:
    def __init__(self, settings: TeamLimits) -> None:
        self.tokens = limits.parse(settings.tokens_per_address)
        self.tokens_of_site = type(self.tokens)(
            self.tokens.amount * SITE_TIMES, self.tokens.multiples, self.tokens.namespace
        )
        self.invitations = limits.parse(settings.invitations)
        self.mails = limits.parse(settings.mails_per_address)
        self.counts = MovingWindows(settings.redis)


_limits = Derived(lambda c: c.team_limits, _Limits)


async def aclose() -> None:
    if (made := _limits.existing()) is not None:
        await made.counts.aclose()


async def admit_token(client_address: str | None) -> None:
    """Raises: RateLimited."""
    network, limited = network_of(client_address or ""), _limits.get()
    if not network:
        return
    used: list[Limit] = [(limited.tokens, ("token", network))]
    if (site := site_of(network)) is not None:
        used.append((limited.tokens_of_site, ("token", site)))
    await _admit(limited, used)


async def admit_invitation(account_id: UUID) -> None:
    """Raises: RateLimited."""
    limited = _limits.get()
    await _admit(limited, [(limited.invitations, ("invitation", str(account_id)))])


async def admits_mail_to(address: str) -> bool:
    limited = _limits.get()
    return await limited.counts.hit(limited.mails, "mail", digest(address))


async def admit_mail_to(address: str) -> None:
    """Raises: RateLimited."""
    limited = _limits.get()
    await _admit(limited, [(limited.mails, ("mail", digest(address)))])


async def _admit(limited: _Limits, used: list[Limit]) -> None:
    if not all([await limited.counts.hit(limit, *key) for limit, key in used]):
        raise RateLimited(retry_after_s=await limited.counts.retry_after_s(used))
