"""The interface of a payment processor."""

from __future__ import annotations

import dataclasses
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Literal

from integrations.base.capabilities import Capabilities
from integrations.base.checkouts import Checkout, CheckoutOrder
from integrations.base.errors import IntegrationError
from integrations.base.money import AmountLimits, MoneyStatement
from integrations.base.processor_webhooks import ProcessorWebhook
from integrations.base.refunds import RefundOrder

Mode = Literal["test", "live"]
_MODES: Mapping[str, Mode] = {
    "test": "test",
    "sandbox": "test",
    "live": "live",
    "prod": "live",
    "production": "live",
}


def mode_of_keys(credentials: Mapping[str, str]) -> Mode | None:
    """The mode that the keys' text shows (`sk_test_…`). Raises: IntegrationError (`modes_differ`)."""
    markers = {
        marker
        for key in credentials.values()
        for marker in re.findall(rf"(?:^|(?<=[_.:-]))({'|'.join(_MODES)})(?=[_.:-])", key.lower())
    }
    modes = {_MODES[marker] for marker in markers}
    if len(modes) > 1:
        raise IntegrationError("keys", "modes_differ", "some of these keys are for test mode, others for live mode")
    return modes.pop() if modes else None


class Processor(ABC):
    """A connected processor. One instance serves concurrent tasks; methods raise only IntegrationError."""

    name: ClassVar[str]  # the module's name, part of webhook addresses
    display_name: ClassVar[str]
    credentials: ClassVar[type[Any]]  # a frozen dataclass of strings
    checkout_origins: ClassVar[tuple[str, ...]] = ()  # for the checkout page's CSP form-action
    session_life_s: ClassVar[int] = 23 * 3600
    capabilities: ClassVar[Capabilities] = Capabilities()
    # Reason of an error of `check` -> the credential to blame, and advice with {name}, {mode} and {url}.
    advice: ClassVar[Mapping[str, tuple[str, str]]] = {}

    @classmethod
    def mode_of(cls, credentials: Mapping[str, str]) -> Mode | None:
        """None: the owner must state it. Raises: IntegrationError (`modes_differ`)."""
        fields = dataclasses.fields(cls.credentials)
        secrets = [f.name for f in fields if not f.repr and not f.name.startswith("webhook")]
        return mode_of_keys({name: credentials[name] for name in secrets if credentials.get(name)})

    @abstractmethod
    def amount_limits(self, currency: str) -> AmountLimits | None:
        """Bounds of a charge; None if the currency is not accepted."""

    @abstractmethod
    async def check(self) -> str | None:
        """Verify the credentials; return the vendor's account id."""

    @abstractmethod
    async def create_checkout(self, order: CheckoutOrder) -> Checkout:
        """Within `key_life_s`, the same key returns the same checkout."""

    @abstractmethod
    async def read_checkout(self, external_id: str) -> Checkout: ...

    @abstractmethod
    async def expire_checkout(self, external_id: str) -> Checkout:
        """Close an open checkout, unless a payment came first. Without `cancels_checkouts`, only read it."""

    async def cancel_delayed(self, external_id: str) -> Checkout:
        """Cancel the delayed payment of a PROCESSING checkout, if possible; only read others."""
        # PROCESSING as the result means that it can still be paid.
        return await self.read_checkout(external_id)

    async def complete_checkout(self, external_id: str, *, idempotency_key: str) -> Checkout:
        """Capture the money of a checkout that `awaits_completion`; only read others."""
        # The caller repeats an ambiguous call with the same key, after it has committed a claim. No other call moves a payer's money.
        return await self.read_checkout(external_id)

    async def refund(self, order: RefundOrder) -> MoneyStatement:
        """Within `key_life_s`, the same key returns the same refund."""
        raise IntegrationError(self.name, "unsupported", "this processor does not support refunds by API")

    async def read_refund(self, external_id: str, *, charge_external_id: str | None = None) -> MoneyStatement:
        raise IntegrationError(self.name, "unsupported", "this processor does not support refunds by API")

    async def verify_webhook(
        self, body: bytes, headers: Mapping[str, str], *, now: datetime, query: Mapping[str, str] | None = None
    ) -> ProcessorWebhook | Sequence[ProcessorWebhook]:
        """Override this to verify by a call, to read `query`, or to return a batch.

        Each event of a batch needs its own `raw`. Without a `webhook_proof`, make no call.
        Raises: SignatureInvalid (`no_webhook_secret`: not configured), PayloadInvalid, IntegrationError (the route answers 503).
        """
        # `parse` does not receive `query`: put what it needs into `raw`.
        return self.receive(body, headers, now=now)

    @abstractmethod
    def receive(self, body: bytes, headers: Mapping[str, str], *, now: datetime) -> ProcessorWebhook:
        """Verify the signature, then parse; header names are lower-case.

        Refuse times more than 300 s away from `now`; an older event that must be accepted never `decides`.
        Raises: SignatureInvalid, PayloadInvalid.
        """

    @abstractmethod
    def parse(self, body: bytes) -> ProcessorWebhook:
        """Parse a stored, verified body. Raises: PayloadInvalid."""

    async def list_checkouts(self, since: datetime) -> Sequence[Checkout]:
        """Checkouts with a `request_reference` created since then, oldest first."""
        return ()

    async def read_charge(self, external_id: str) -> MoneyStatement | None:
        """A charge and, if known, its checkout; None if it does not exist. Raises: IntegrationError (`unsupported`)."""
        raise IntegrationError(self.name, "unsupported", "this processor does not read single charges")

    async def register_webhook(self) -> Mapping[str, str] | None:
        """Register this connection's address; return credentials to store, or None if a person must enter it."""
        return None

    async def unregister_webhook(self) -> None:  # noqa: B027 (optional to override)
        """Delete the webhook of these credentials, no newer one."""

    async def list_events(self, since: datetime) -> Sequence[ProcessorWebhook]:
        """Events since then that the vendor could not deliver, oldest first."""
        return ()

    async def aclose(self) -> None:  # noqa: B027 (optional to override)
        ...
