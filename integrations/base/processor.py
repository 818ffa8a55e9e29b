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
    """The mode that keys tell by their text (`sk_test_…`, `live_…`); None: they tell none.

    Raises IntegrationError (`modes_differ`) for keys of both modes.
    """
    words = {
        word
        for key in credentials.values()
        for word in re.findall(rf"(?:^|(?<=[_.:-]))({'|'.join(_MODES)})(?=[_.:-])", key.lower())
    }
    modes = {_MODES[word] for word in words}
    if len(modes) > 1:
        raise IntegrationError("keys", "modes_differ", "some of these keys are of test mode, others of live mode")
    return modes.pop() if modes else None


class Processor(ABC):
    """One connected payment processor. One instance per connection; safe to share between tasks.

    Every vendor exception is wrapped into IntegrationError at the edge. No method touches the database.
    """

    name: ClassVar[str]  # file name and URL part
    display_name: ClassVar[str]
    credentials: ClassVar[type[Any]]  # a frozen dataclass of strings
    checkout_origins: ClassVar[tuple[str, ...]] = ()  # for the pay page's CSP form-action
    session_life_s: ClassVar[int] = 23 * 3600
    capabilities: ClassVar[Capabilities] = Capabilities()
    # A reason of `check` to refuse -> the credential that it is about, and a sentence on what to do, with {name}, {mode} and {url}.
    advice: ClassVar[Mapping[str, tuple[str, str]]] = {}

    @classmethod
    def mode_of(cls, credentials: Mapping[str, str]) -> Mode | None:
        """The mode that these credentials, by name, are of; None: they do not tell, so that the owner has to say it.

        Some may be missing. By default the secrets' text decides, but for those of webhooks.
        Raises IntegrationError (`modes_differ`).
        """
        fields = dataclasses.fields(cls.credentials)
        secrets = [f.name for f in fields if not f.repr and not f.name.startswith("webhook")]
        return mode_of_keys({name: credentials[name] for name in secrets if credentials.get(name)})

    @abstractmethod
    def amount_limits(self, currency: str) -> AmountLimits | None:
        """Bounds for a charge in this currency, or None: the processor does not take it."""

    @abstractmethod
    async def check(self) -> str | None:
        """Call the vendor with the credentials; return the vendor's account id. Raises IntegrationError."""

    @abstractmethod
    async def create_checkout(self, order: CheckoutOrder) -> Checkout:
        """Open a session. The same key gives the same session, within `key_life_s`. Raises IntegrationError."""

    @abstractmethod
    async def read_checkout(self, external_id: str) -> Checkout:
        """The session as it stands, with its money. Raises IntegrationError."""

    @abstractmethod
    async def expire_checkout(self, external_id: str) -> Checkout:
        """Close an open session and return what it is afterwards: EXPIRED, or what won the race (COMPLETED, PROCESSING).

        Without `cancels_checkouts`: return it as it stands, OPEN until it ends by itself. Raises IntegrationError.
        """

    async def cancel_delayed(self, external_id: str) -> Checkout:
        """Make a delayed payment that was begun on a PROCESSING checkout impossible, where the vendor can; what it is afterwards.

        Still PROCESSING: it can't be canceled, and may yet be paid. Others are only read. Raises IntegrationError.
        """
        return await self.read_checkout(external_id)

    async def complete_checkout(self, external_id: str, *, idempotency_key: str) -> Checkout:
        """Take the money of a checkout that `awaits_completion`; return what it is afterwards. Others are only read.

        The only call that moves a payer's money, so its caller commits a mark on the checkout first, under the request's
        lock and never while a void is pending. An ambiguous answer is repeated with the same key. Raises IntegrationError.
        """
        return await self.read_checkout(external_id)

    async def refund(self, order: RefundOrder) -> MoneyStatement:
        """Give back a charge or a part of it. The same key gives the same refund, within `key_life_s`. Raises IntegrationError.

        Ambiguous: repeat with the same key within its life, later only read the checkout, whose money has its refunds.
        """
        raise IntegrationError(self.name, "unsupported", "this processor makes no refunds from here")

    async def read_refund(self, external_id: str, *, charge_external_id: str | None = None) -> MoneyStatement:
        """The refund as it stands. Some vendors find it by its charge, which is given where it is known. Raises IntegrationError."""
        raise IntegrationError(self.name, "unsupported", "this processor makes no refunds from here")

    async def verify_webhook(
        self, body: bytes, headers: Mapping[str, str], *, now: datetime, query: Mapping[str, str] | None = None
    ) -> ProcessorWebhook | Sequence[ProcessorWebhook]:
        """What a door calls: as `receive`. Override it to ask the vendor about the signature, or where `query` matters.

        With `webhook_batches` a body may tell several events: return each with its own `raw`. An event of a batch that can't be
        read is left out, or given by its type alone: it must not refuse the others.
        `query` has the parameters of the address that was called. `parse` sees none of them: what it needs goes into `raw`.
        Without a `webhook_proof` nothing may be fetched here, since anybody can call.
        Raises SignatureInvalid (`no_webhook_secret`, whatever came: this connection takes none), PayloadInvalid;
        IntegrationError if the vendor can't be asked now: nothing is known of the body, so answer 503 and the vendor sends it again.
        """
        return self.receive(body, headers, now=now)

    @abstractmethod
    def receive(self, body: bytes, headers: Mapping[str, str], *, now: datetime) -> ProcessorWebhook:
        """Verify the signature over the raw body, then parse. `headers` has lower-case names.

        Refuses what is over 300 s old or ahead. Where the vendor signs no time, or resends under the old one, what is
        older than that only never `decides`. Raises SignatureInvalid, PayloadInvalid.
        """

    @abstractmethod
    def parse(self, body: bytes) -> ProcessorWebhook:
        """Parse a stored body whose signature was verified when it came in. Raises PayloadInvalid."""

    async def list_checkouts(self, since: datetime) -> Sequence[Checkout]:
        """Checkouts made since then under these credentials, oldest first: some of them we may not know. Raises IntegrationError.

        Only what carries a `request_reference`; empty where the vendor keeps no list.
        """
        return ()

    async def read_charge(self, external_id: str) -> MoneyStatement | None:
        """A charge as it stands, with its checkout where the vendor knows it; None: these credentials see no such charge.

        Confirms money that names our request and none of its known checkouts. Raises IntegrationError (`unsupported`: can't be read).
        """
        raise IntegrationError(self.name, "unsupported", "this processor reads no single charge")

    async def register_webhook(self) -> Mapping[str, str] | None:
        """Have the vendor deliver its webhooks to this connection's address; the credentials that come of it, to be stored.

        None: this vendor or this key does not allow it, so that a person pastes the address. Raises IntegrationError.
        """
        return None

    async def unregister_webhook(self) -> None:  # noqa: B027 (optional to override)
        """Delete the webhook that these credentials name, if `register_webhook` made it, and no newer one. Raises IntegrationError."""

    async def list_events(self, since: datetime) -> Sequence[ProcessorWebhook]:
        """Events that the vendor could not deliver since then, oldest first; empty where the vendor keeps no list."""
        return ()

    async def aclose(self) -> None:  # noqa: B027 (optional to override)
        """Release HTTP clients."""
