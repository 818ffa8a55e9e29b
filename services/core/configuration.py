"""The services' settings, set once when the process starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

from integrations.base import Environment
from integrations.operator_mail import MailServer
from settings import Settings

Part = TypeVar("Part")
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginLimits:
    per_name: str
    per_address: str
    per_name_everywhere: str
    redis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WidgetLimits:
    per_address: str
    per_visitor: str
    redis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamLimits:
    tokens_per_address: str
    invitations: str
    mails_per_address: str
    redis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    environment: Environment  # for channels and processors; its `public_url` is the base of our links
    sandbox_open: bool
    secret_keys: tuple[str, ...]  # the first signs, all are accepted
    access_token_life: timedelta
    refresh_token_life: timedelta
    login_limits: LoginLimits
    widget_limits: WidgetLimits
    team_limits: TeamLimits
    mail_server: MailServer | None  # of the installation
    inbox_url: str  # empty: unknown
    checkout_first_check: timedelta  # after a checkout is opened, or the contact returns
    checkout_read_every: timedelta  # between later reads of a checkout that is not final
    page_reads_every: timedelta = timedelta(seconds=2)  # a page reads a checkout again after this
    reads_per_s: float = 10.0  # of the sweeper, per connection
    group_commit: bool = True
    sandbox_delay: timedelta = timedelta(seconds=5)  # of the sandbox's delayed payments, and of its fees

    @classmethod
    def of(cls, settings: Settings) -> Configuration:
        return cls(
            environment=Environment(
                public_url=settings.base_url,
                sandbox_url=settings.sandbox_base_url,
                base_addresses=settings.base_addresses,
                private_hosts=settings.private_hosts,
            ),
            sandbox_open=settings.sandbox_open,
            secret_keys=tuple(settings.keys),
            access_token_life=timedelta(minutes=settings.access_token_minutes),
            refresh_token_life=timedelta(days=settings.refresh_token_days),
            login_limits=LoginLimits(
                per_name=settings.login_limit,
                per_address=settings.login_address_limit,
                per_name_everywhere=settings.login_name_limit,
                redis=settings.limits_redis,
            ),
            widget_limits=WidgetLimits(
                per_address=settings.widget_address_limit,
                per_visitor=settings.widget_visitor_limit,
                redis=settings.limits_redis,
            ),
            team_limits=TeamLimits(
                tokens_per_address=settings.token_limit,
                invitations=settings.invitation_limit,
                mails_per_address=settings.reset_limit,
                redis=settings.limits_redis,
            ),
            mail_server=_mail_server(settings),
            inbox_url=settings.inbox_url,
            checkout_first_check=timedelta(seconds=settings.sweeper_first_check_s),
            checkout_read_every=timedelta(seconds=settings.sweeper_every_s),
            group_commit=settings.group_commit,
        )


def _mail_server(settings: Settings) -> MailServer | None:
    if not settings.smtp_host:
        return None
    return MailServer(
        host=settings.smtp_host,
        port=settings.smtp_port,
        security=settings.smtp_security,
        username=settings.smtp_username,
        password=settings.smtp_password,
        sender=settings.smtp_from,
    )


_current: Configuration | None = None


def use(configuration: Configuration) -> None:
    global _current
    _current = configuration


def current() -> Configuration:
    if _current is None:
        raise RuntimeError("call configuration.use first")
    return _current


class Derived(Generic[Part, Made]):
    """A value computed from one configuration part, anew when that part is replaced."""

    def __init__(self, part: Callable[[Configuration], Part], make: Callable[[Part], Made]) -> None:
        self._part = part
        self._make = make
        self._state: tuple[Part, Made] | None = None

    def get(self) -> Made:
        part = self._part(current())
        if self._state is None or self._state[0] is not part:
            self._state = (part, self._make(part))
        return self._state[1]

    def existing(self) -> Made | None:
        return self._state[1] if self._state is not None else None
