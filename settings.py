"""Environment variables, typed, with default and unit."""

from __future__ import annotations

import re
from email.utils import parseaddr
from functools import cached_property
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

DEMO_KEY = "demo-key-not-for-production"


class Settings(BaseSettings):
    """In development also from `.env`."""

    model_config = SettingsConfigDict(env_file=".env", env_file_encoding="utf-8", extra="ignore")

    environment: Literal["development", "test", "production"] = Field(
        default="development",
        description="`production` closes GraphiQL, introspection, demo pages and the sandbox unless each is named.",
    )
    database_url: str = Field(
        default="sqlite:///var/paythread.db",
        description="`sqlite:///path` (embedded) or `postgres://user:password@host:port/name`.",
    )
    database_pool_size: int = Field(
        default=10,
        ge=2,
        le=500,
        description="PostgreSQL: connections of each process; about a third of them serve reads only.",
    )
    database_lock_timeout_s: float = Field(
        default=4,
        gt=0,
        le=60,
        description="Seconds that a statement waits for a row (SQLite: for the file) that another session holds.",
    )
    events_url: str = Field(
        default="memory://",
        description="`memory://` (one process), `redis://host:port/0`, or `postgres://…` (LISTEN/NOTIFY).",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=1, le=65535, description="Port to listen on.")
    worker_port: int = Field(
        default=8001, ge=0, le=65535, description="Port of the worker's /healthz, /readyz and /metrics. 0: none."
    )
    public_url: str = Field(
        default="", description="Absolute base of links and webhook addresses. Default: http://localhost:PORT."
    )
    sandbox_url: str = Field(
        default="",
        description="Where the sandbox's own server is reached from this process. Default: http://127.0.0.1:PORT.",
    )
    secret_keys: str = Field(
        default=DEMO_KEY,
        description="Comma-separated keys for secrets at rest and tokens; the first encrypts and signs, all decrypt.",
    )
    allowed_origins: str = Field(
        default="",
        description="Comma-separated origins that may use /graphql beside PUBLIC_URL's own"
        " (http://localhost on any port may, too, but not in production).",
    )
    allowed_private_hosts: str = Field(
        default="",
        description="Comma-separated hosts in private networks that accounts may name as their mail server, written as there:"
        " host, host:port (another than 25, 465, 587, 2525) or host:*. Every account may then connect to them.",
    )
    compile_operations: bool = Field(
        default=True,
        description="Compile hot queries and events to plans; off: the stock executor, with the same answers.",
    )
    group_commit: bool = Field(
        default=True,
        description="SQLite: webhooks that wait share one transaction, each answered after its commit; off: each alone.",
    )
    answer_cache_mb: int = Field(
        default=16,
        ge=0,
        le=4096,
        description="Memory for answers of queries, each kept until its account's next event; 0: none is kept.",
    )
    share_subscriptions: bool = Field(
        default=True, description="Execute equal subscriptions once per event and share the bytes; off: each alone."
    )
    run_jobs: bool = Field(default=True, description="Run the job runner inside the server process.")
    shutdown_drain_s: float = Field(
        default=0,
        ge=0,
        le=60,
        description="Seconds that a server serves on after SIGTERM with /readyz at 503, until load balancers send it nothing new.",
    )
    shutdown_spread_s: float = Field(
        default=5,
        ge=0,
        le=10,
        description="Longest time over which a stopping server closes its sockets (200 a second, more if they are many), seconds.",
    )
    graphiql: bool | None = Field(
        default=None, description="Serve /graphiql and introspection. Default: not in production."
    )
    demo: bool | None = Field(default=None, description="Serve /demo pages. Default: not in production.")
    sandbox: bool | None = Field(default=None, description="Allow the sandbox processor. Default: not in production.")
    trust_proxy: bool = Field(
        default=False, description="Take the client address from X-Forwarded-For (only behind a proxy of yours)."
    )
    access_token_minutes: int = Field(default=15, ge=1, le=15, description="Life of an access token, minutes.")
    refresh_token_days: int = Field(default=30, ge=1, le=90, description="Life of a refresh token, days.")
    sweeper_first_check_s: float = Field(
        default=60, gt=0, description="Seconds after opening or return until a checkout is read."
    )
    sweeper_every_s: float = Field(
        default=300, gt=0, description="Seconds between later reads of a checkout that is not final."
    )
    limits_url: str = Field(
        default="",
        description="`redis://…` that counts the limits of sign-in, emailed links and web chat for all processes. Default: EVENTS_URL if"
        " it is Redis, else each process counts alone.",
    )
    login_limit: str = Field(
        default="5/minute",
        description="Sign-in attempts per email address and network (IPv6: /64; a /48 has four times as many).",
    )
    login_address_limit: str = Field(
        default="20/minute",
        description="Sign-in attempts per network, on addresses that have not signed in from it in 30 days (a /48: four times as many).",
    )
    login_name_limit: str = Field(
        default="20/minute",
        description="Sign-in attempts per email address from all networks that it has not signed in from; more wait 5 s.",
    )
    graphql_limit: int = Field(
        default=50,
        ge=1,
        description="GraphQL operations per second of one user or key, and of one network without (burst twice that).",
    )
    widget_address_limit: str = Field(
        default="120/minute", description="Web chat: visits begun and messages written per client address."
    )
    widget_visitor_limit: str = Field(default="30/minute", description="Web chat: messages written per visitor.")
    token_limit: str = Field(
        default="20/minute",
        description="Uses of links of invitations, password resets and new addresses per client network.",
    )
    invitation_limit: str = Field(
        default="100/day", description="Invitations of one account, repeated ones included: each sends an email."
    )
    reset_limit: str = Field(
        default="3/hour",
        description="Emails with a link to reset a password, or to confirm a new address, per address.",
    )
    smtp_host: str = Field(
        default="",
        description="Mail server of this installation, for invitations and password resets. Without one, inviteUser returns the link"
        " and no password can be reset by email.",
    )
    smtp_port: int = Field(
        default=0, ge=0, le=65535, description="Its port. 0: 587, for SMTP_SECURITY=tls 465, for none 25."
    )
    smtp_security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="`starttls`, `tls` from the start, or `none`."
    )
    smtp_username: str = Field(default="", description="Name to log in with. Empty: no login.")
    smtp_password: str = Field(default="", description="Password to log in with.")
    smtp_from: str = Field(
        default="",
        description="Sender of these emails: `paythread@example.com` or `Paythread <paythread@example.com>`.",
    )
    inbox_url: str = Field(
        default="", description="Address of your inbox: pages of invitations and password resets lead there."
    )
    monitor_token: str = Field(
        default="",
        description="Bearer token for /metrics and the details of /readyz. Without one they are open, and closed in production.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Smallest level that is logged."
    )
    stripe_api_base: str = Field(default="", description="Address instead of Stripe's own (contract server in tests).")
    paypal_api_base: str = Field(default="", description="Address instead of PayPal's own (contract server in tests).")
    square_api_base: str = Field(default="", description="Address instead of Square's own (contract server in tests).")
    twilio_api_base: str = Field(default="", description="Address instead of Twilio's own (contract server in tests).")
    meta_api_base: str = Field(default="", description="Address instead of Meta's own (contract server in tests).")
    provider_api_bases: str = Field(
        default="", description="The same for providers of installed packages: name=address, comma-separated."
    )

    @cached_property
    def base_url(self) -> str:
        return (self.public_url or f"http://localhost:{self.port}").rstrip("/")

    @cached_property
    def sandbox_base_url(self) -> str:
        return (self.sandbox_url or f"http://127.0.0.1:{self.port}").rstrip("/")

    @cached_property
    def keys(self) -> list[str]:
        return [key.strip() for key in self.secret_keys.split(",") if key.strip()]

    @cached_property
    def origins(self) -> list[str]:
        own = urlsplit(self.base_url)
        listed = [origin.strip().rstrip("/") for origin in self.allowed_origins.split(",") if origin.strip()]
        return [f"{own.scheme}://{own.netloc}", *listed]

    @cached_property
    def private_hosts(self) -> frozenset[str]:
        return frozenset(entry.strip().lower() for entry in self.allowed_private_hosts.split(",") if entry.strip())

    @property
    def limits_redis(self) -> str:
        shared = self.limits_url or self.events_url
        return shared if shared.startswith(("redis://", "rediss://")) else ""

    @property
    def production(self) -> bool:
        return self.environment == "production"

    @property
    def graphiql_open(self) -> bool:
        return self.graphiql if self.graphiql is not None else not self.production

    @property
    def demo_open(self) -> bool:
        return self.demo if self.demo is not None else not self.production

    @property
    def sandbox_open(self) -> bool:
        return self.sandbox if self.sandbox is not None else not self.production

    @property
    def base_addresses(self) -> dict[str, str]:
        named = {
            "stripe": self.stripe_api_base,
            "paypal": self.paypal_api_base,
            "square": self.square_api_base,
            "twilio": self.twilio_api_base,
            "meta": self.meta_api_base,
        }
        packaged = (pair.strip().partition("=") for pair in self.provider_api_bases.split(","))
        return {name: url for name, url in (*named.items(), *((name, url) for name, _, url in packaged)) if url}

    @model_validator(mode="after")
    def refuse_unsafe(self) -> Settings:
        if not self.keys or any(len(key) < 16 for key in self.keys):
            raise ValueError(
                "SECRET_KEYS: one key or more, each of 16 characters or more (try: openssl rand -base64 32)."
            )
        if not self.database_url.startswith(("sqlite:///", "postgres://", "postgresql://")):
            raise ValueError("DATABASE_URL: use sqlite:///path or postgres://user:password@host:port/name.")
        if not self.events_url.startswith(("memory://", "redis://", "rediss://", "postgres://", "postgresql://")):
            raise ValueError("EVENTS_URL: use memory://, redis://host:port/0 or postgres://….")
        if self.limits_url and not self.limits_redis:
            raise ValueError("LIMITS_URL: use redis://host:port/0.")
        for origin in self.origins[1:]:
            if origin != "*" and re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+", origin, re.IGNORECASE) is None:
                raise ValueError(
                    f"ALLOWED_ORIGINS: {origin!r} is no origin; use scheme://host or scheme://host:port, without a path."
                )
        if self.smtp_host and re.fullmatch(r"[^@\s<>]+@[^@\s<>]+", parseaddr(self.smtp_from)[1]) is None:
            raise ValueError("SMTP_FROM: the mail server of SMTP_HOST needs a sender, such as paythread@example.com.")
        if self.smtp_host and self.smtp_security == "none" and self.smtp_password:
            raise ValueError("SMTP_SECURITY: a password is sent only with starttls or tls.")
        if self.inbox_url and not self.inbox_url.startswith(("https://", "http://")):
            raise ValueError("INBOX_URL: use an absolute https:// address.")
        for entry in self.private_hosts:
            # A host without a final dot, IPv6 in brackets; then a port or all ports.
            if re.fullmatch(r"(\[[0-9a-f:.]+\]|[^\s/:@?#*\[\]]*[^\s/:@?#*\[\].])(:(\d{1,5}|\*))?", entry) is None:
                raise ValueError(
                    f"ALLOWED_PRIVATE_HOSTS: {entry!r} is no host; use mail.internal, 10.0.0.5:1025, mail.internal:* or [fd00::5]:25."
                )
        if self.monitor_token and (len(self.monitor_token) < 16 or not self.monitor_token.isascii()):
            raise ValueError("MONITOR_TOKEN: 16 ASCII characters or more (try: openssl rand -base64 32).")
        if self.production:
            if DEMO_KEY in self.keys:
                raise ValueError("SECRET_KEYS: the demo key is public; set your own before ENVIRONMENT=production.")
            if not self.public_url.startswith("https://"):
                raise ValueError("PUBLIC_URL: production needs an https:// address; contacts pay on it.")
            if self.base_addresses:
                given = (name for name in type(self).model_fields if "_api_base" in name and getattr(self, name))
                names = " and ".join(name.upper() for name in given)
                raise ValueError(f"{names}: an address instead of the vendor's is for tests; unset it in production.")
        return self
