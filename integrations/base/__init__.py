"""The plug-in interface: processors, channels, their data and their errors. Plug-ins import every name from here."""

from integrations.base.capabilities import Capabilities, WebhookProof
from integrations.base.channel import Channel
from integrations.base.channel_features import ChannelKind, ChannelLimits, Feature, LengthUnit
from integrations.base.channel_webhooks import Blocking, ChannelWebhook, StatusUpdate, WebhookRequest
from integrations.base.checkouts import OPTIONAL_FIELDS, Checkout, CheckoutOrder, CheckoutStatus, Delay
from integrations.base.environment import Environment
from integrations.base.errors import IntegrationError, PayloadInvalid, SignatureInvalid, retry_after
from integrations.base.messages import (
    EXTERNAL_ID_LIMIT,
    Author,
    DeliveryStatus,
    InboundMessage,
    MessageChange,
    OutboundMessage,
    SendResult,
    WrittenElsewhere,
    external_id,
)
from integrations.base.money import AmountLimits, MoneyKind, MoneyOutcome, MoneyStatement
from integrations.base.processor import Mode, Processor, mode_of_keys
from integrations.base.processor_webhooks import ProcessorWebhook
from integrations.base.refunds import RefundOrder, RefundReason

__all__ = [
    "EXTERNAL_ID_LIMIT",
    "OPTIONAL_FIELDS",
    "AmountLimits",
    "Author",
    "Blocking",
    "Capabilities",
    "Channel",
    "ChannelKind",
    "ChannelLimits",
    "ChannelWebhook",
    "Checkout",
    "CheckoutOrder",
    "CheckoutStatus",
    "Delay",
    "DeliveryStatus",
    "Environment",
    "Feature",
    "InboundMessage",
    "IntegrationError",
    "LengthUnit",
    "MessageChange",
    "Mode",
    "MoneyKind",
    "MoneyOutcome",
    "MoneyStatement",
    "OutboundMessage",
    "PayloadInvalid",
    "Processor",
    "ProcessorWebhook",
    "RefundOrder",
    "RefundReason",
    "SendResult",
    "SignatureInvalid",
    "StatusUpdate",
    "WebhookProof",
    "WebhookRequest",
    "WrittenElsewhere",
    "external_id",
    "mode_of_keys",
    "retry_after",
]
