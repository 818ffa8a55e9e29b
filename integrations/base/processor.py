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
    """The mode that the keys' text shows (`sk_test_…`, `live_…`); None if it shows none.

    Raises: IntegrationError (`modes_differ`) for keys of both modes.
    """
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
    """A connected payment processor. One instance serves one connection, and many tasks at the same time.

    Methods raise only IntegrationError and never touch the database.
    """

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
        """The mode of these credentials, some of which may be missing. None: the owner has to state it.

        By default, the text of the secrets decides, except those for webhooks. Raises: IntegrationError (`modes_differ`).
        """
        fields = dataclasses.fields(cls.credentials)
        secrets = [f.name for f in fields if not f.repr and not f.name.startswith("webhook")]
        return mode_of_keys({name: credentials[name] for name in secrets if credentials.get(name)})

    @abstractmethod
    def amount_limits(self, currency: str) -> AmountLimits | None:
        """Bounds of a charge in this currency; None if the processor does not accept the currency."""

    @abstractmethod
    async def check(self) -> str | None:
        """Verify the credentials at the vendor; return the vendor's account id."""

    @abstractmethod
    async def create_checkout(self, order: CheckoutOrder) -> Checkout:
        """Open a checkout. Within `key_life_s`, the same key returns the same checkout."""

    @abstractmethod
    async def read_checkout(self, external_id: str) -> Checkout:
        """The checkout's current state, with all its money."""

    @abstractmethod
    async def expire_checkout(self, external_id: str) -> Checkout:
        """Close an open checkout; return its new state: EXPIRED, or COMPLETED or PROCESSING if a payment came first.

        Without `cancels_checkouts`, only read it.
        """

    async def cancel_delayed(self, external_id: str) -> Checkout:
        """Cancel the delayed payment of a PROCESSING checkout if the vendor can; return the checkout's new state.

        PROCESSING means that it can still be paid. A checkout in another state is only read.
        """
        return await self.read_checkout(external_id)

    async def complete_checkout(self, external_id: str, *, idempotency_key: str) -> Checkout:
        """Capture the money of a checkout that `awaits_completion`; return its new state. Others are only read.

        No other call moves a payer's money. The caller first commits a claim under the request's lock, never while a void is
        pending, and repeats an ambiguous call with the same key.
        """
        return await self.read_checkout(external_id)

    async def refund(self, order: RefundOrder) -> MoneyStatement:
        """Refund a charge in full or in part. Within `key_life_s`, the same key returns the same refund.

        The caller repeats an ambiguous call with the same key within the key's life. Later it only reads the checkout.
        """
        raise IntegrationError(self.name, "unsupported", "this processor does not support refunds by API")

    async def read_refund(self, external_id: str, *, charge_external_id: str | None = None) -> MoneyStatement:
        """The refund's current state. Some vendors need the refund's charge, which is passed if it is known."""
        raise IntegrationError(self.name, "unsupported", "this processor does not support refunds by API")

    async def verify_webhook(
        self, body: bytes, headers: Mapping[str, str], *, now: datetime, query: Mapping[str, str] | None = None
    ) -> ProcessorWebhook | Sequence[ProcessorWebhook]:
        """The webhook route's entry point. Override it to verify by a call to the vendor, for batches, or to use `query`.

        Return each event of a batch with its own `raw`; omit an unreadable one, or return only its type, so that the others are
        kept. `parse` does not receive `query`: put what it needs into `raw`. Without a `webhook_proof`, make no call here, because
        anyone can send the webhook.
        Raises: SignatureInvalid (`no_webhook_secret`: the connection accepts no webhooks), PayloadInvalid; IntegrationError if the
        vendor cannot be reached: the route answers 503 and the vendor retries.
        """
        return self.receive(body, headers, now=now)

    @abstractmethod
    def receive(self, body: bytes, headers: Mapping[str, str], *, now: datetime) -> ProcessorWebhook:
        """Verify the signature over the raw body, then parse. Header names are lower-case.

        Refuse times more than 300 s away from `now`. If the vendor signs no time or retries under the old one, older events are
        accepted and never `decides`. Raises: SignatureInvalid, PayloadInvalid.
        """

    @abstractmethod
    def parse(self, body: bytes) -> ProcessorWebhook:
        """Parse a stored body that was verified on arrival. Raises: PayloadInvalid."""

    async def list_checkouts(self, since: datetime) -> Sequence[Checkout]:
        """Checkouts with a `request_reference` created since then, oldest first. Paythread may not know some of them.

        Empty if the vendor keeps no list.
        """
        return ()

    async def read_charge(self, external_id: str) -> MoneyStatement | None:
        """A charge, with its checkout if the vendor knows it. None: these credentials see no such charge.

        Confirms money that names a request but none of its known checkouts. Raises: IntegrationError (`unsupported`).
        """
        raise IntegrationError(self.name, "unsupported", "this processor does not read single charges")

    async def register_webhook(self) -> Mapping[str, str] | None:
        """Register this connection's webhook address at the vendor; return the resulting credentials to store.

        None: the vendor or the key does not allow it, so a person enters the address there.
        """
        return None

    async def unregister_webhook(self) -> None:  # noqa: B027 (optional to override)
        """Delete the webhook that `register_webhook` created with these credentials, and no newer one."""

    async def list_events(self, since: datetime) -> Sequence[ProcessorWebhook]:
        """Events since then that the vendor could not deliver, oldest first. Empty if it keeps no list."""
        return ()

    async def aclose(self) -> None:  # noqa: B027 (optional to override)
        """Close HTTP clients."""
