"""The codes that each mutation's user errors can have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_TEXT: Final = "BLANK TOO_LONG INVALID"
_KEY: Final = "IDEMPOTENCY_CONCURRENT_REQUEST IDEMPOTENCY_KEY_PARAMETER_MISMATCH"
_OBJECT: Final = "FORBIDDEN NOT_FOUND"
_CHANNEL: Final = (
    "CHANNEL_NOT_CONNECTED CHANNEL_NOT_SUPPORTED CONTACT_HAS_NO_ADDRESS CONTACT_OPTED_OUT MESSAGING_WINDOW_CLOSED"
)
_CLOSED: Final = "ALREADY_PAID ALREADY_VOID"
_NEW_AMOUNT: Final = "AMOUNT_TOO_SMALL AMOUNT_TOO_LARGE"
_VENDOR: Final = "PROCESSOR_REJECTED PROCESSOR_UNAVAILABLE"
_TOKEN: Final = "LINK_INVALID RATE_LIMITED"  # noqa: S105 (codes)

_LISTED: Final[Mapping[str, str]] = {
    "signIn": "SIGN_IN_FAILED RATE_LIMITED",
    "refreshSession": "SIGN_IN_FAILED",
    "signOut": "",
    "createApiKey": f"FORBIDDEN {_TEXT} {_KEY}",
    "revokeApiKey": _OBJECT,
    "createPaymentRequest": (
        f"{_OBJECT} {_TEXT} {_NEW_AMOUNT} CURRENCY_NOT_SUPPORTED NO_PROCESSOR_CONFIGURED"
        f" PROCESSOR_UNAVAILABLE ALREADY_USED {_KEY}"
    ),
    "sendPaymentRequest": f"{_OBJECT} {_TEXT} {_CLOSED} {_CHANNEL} NO_PROCESSOR_CONFIGURED {_KEY}",
    "voidPaymentRequest": (
        f"{_OBJECT} TOO_LONG INVALID {_CLOSED} PAYMENT_IN_PROGRESS CONFIRMATION_REQUIRED VERSION_CONFLICT"
    ),
    "releasePaymentLink": f"{_OBJECT} INVALID {_CLOSED} PAYMENT_IN_PROGRESS PROCESSOR_UNAVAILABLE {_KEY}",
    "runSandboxScenario": f"{_OBJECT} INVALID {_CLOSED} PAYMENT_IN_PROGRESS PROCESSOR_UNAVAILABLE",
    "recordLinkCopied": f"{_OBJECT} {_CLOSED}",
    "discardPaymentRequest": f"{_OBJECT} ALREADY_SENT",
    "refundPayment": (
        f"{_OBJECT} INVALID AMOUNT_TOO_SMALL REFUND_EXCEEDS_PAYMENT NOT_REFUNDABLE {_CHANNEL} {_VENDOR} {_KEY}"
    ),
    "recordOutsidePayment": f"{_OBJECT} TOO_LONG INVALID {_NEW_AMOUNT} {_CLOSED} PAYMENT_IN_PROGRESS {_KEY}",
    "undoOutsidePayment": f"{_OBJECT} INVALID",
    "resolveMismatch": (
        f"{_OBJECT} INVALID ALREADY_VOID PAYMENT_IN_PROGRESS NOTHING_TO_RESOLVE RESOLUTION_NOT_POSSIBLE"
        f" PROCESSOR_UNAVAILABLE {_KEY}"
    ),
    "sendMessage": f"{_OBJECT} {_TEXT} {_CHANNEL} NO_PROCESSOR_CONFIGURED {_KEY}",
    "messagePreview": f"FORBIDDEN {_TEXT} {_CLOSED} {_CHANNEL} NO_PROCESSOR_CONFIGURED",
    "resendMessage": (
        f"{_OBJECT} TOO_LONG INVALID {_CLOSED} {_CHANNEL} NO_PROCESSOR_CONFIGURED CONFIRMATION_REQUIRED {_KEY}"
    ),
    "closeConversation": _OBJECT,
    "reopenConversation": _OBJECT,
    "markConversationRead": _OBJECT,
    "assignConversation": _OBJECT,
    "followConversation": _OBJECT,
    "saveDraft": f"{_OBJECT} TOO_LONG INVALID",
    "addNote": f"{_OBJECT} {_TEXT} {_KEY}",
    "updateConversationTags": f"{_OBJECT} {_TEXT}",
    "updateContactTags": f"{_OBJECT} {_TEXT}",
    "createContact": f"FORBIDDEN {_TEXT} ALREADY_USED {_KEY}",
    "updateContact": f"{_OBJECT} {_TEXT} ALREADY_USED",
    "mergeContacts": f"{_OBJECT} {_TEXT} {_KEY}",
    "updateAccount": f"FORBIDDEN {_TEXT} CURRENCY_NOT_SUPPORTED",
    "configureProcessor": f"{_OBJECT} TOO_LONG INVALID {_VENDOR}",
    "testProcessor": f"{_OBJECT} {_VENDOR}",
    "disconnectProcessor": _OBJECT,
    "connectChannel": f"{_OBJECT} TOO_LONG INVALID {_KEY}",
    "testChannel": f"{_OBJECT} INVALID",
    "disconnectChannel": _OBJECT,
    "rotateIdentitySecret": f"{_OBJECT} INVALID {_KEY}",
    "markNotificationsRead": "FORBIDDEN INVALID",
    "updateNotificationRules": "FORBIDDEN INVALID MAIL_NOT_CONFIGURED",
    "updateProfile": f"FORBIDDEN {_TEXT}",
    "revokeSession": _OBJECT,
    "createView": f"{_OBJECT} {_TEXT} LIMIT_REACHED {_KEY}",
    "updateView": f"{_OBJECT} {_TEXT}",
    "deleteView": _OBJECT,
    "inviteUser": f"FORBIDDEN {_TEXT} ALREADY_USED RATE_LIMITED {_KEY}",
    "resendInvitation": f"{_OBJECT} INVALID RATE_LIMITED",
    "revokeInvitation": f"{_OBJECT} INVALID",
    "acceptInvitation": f"{_TEXT} ALREADY_USED {_TOKEN}",
    "updateUser": f"{_OBJECT} {_TEXT} LAST_OWNER",
    "disableUser": f"{_OBJECT} LAST_OWNER",
    "enableUser": _OBJECT,
    "changePassword": "FORBIDDEN INVALID SIGN_IN_FAILED RATE_LIMITED",
    "requestPasswordReset": f"{_TEXT} MAIL_NOT_CONFIGURED RATE_LIMITED",
    "resetPassword": f"INVALID {_TOKEN}",
    "requestEmailChange": f"FORBIDDEN {_TEXT} SIGN_IN_FAILED MAIL_NOT_CONFIGURED RATE_LIMITED",
    "confirmEmailChange": f"ALREADY_USED {_TOKEN}",
}
CODES: Final[Mapping[str, frozenset[str]]] = {name: frozenset(codes.split()) for name, codes in _LISTED.items()}


def answer_of(field: str) -> str:
    """The description of a payload."""
    codes = _LISTED[field].split()
    return f"Answer of {field}. Codes: {', '.join(codes)}." if codes else f"Answer of {field}. It is never refused."
