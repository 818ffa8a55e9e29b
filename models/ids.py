"""UUIDv7 and public ids with a type prefix."""

import secrets
import threading
import time
from uuid import UUID

PREFIXES: dict[str, str] = {
    "Account": "acc",
    "User": "usr",
    "Contact": "cnt",
    "Conversation": "cnv",
    "ConversationChannel": "cch",
    "Message": "msg",
    "ActivityCard": "card",
    "Note": "note",
    "PaymentRequest": "pr",
    "Payment": "pay",
    "Processor": "prc",
    "Channel": "chn",
    "Notification": "ntf",
    "ApiKey": "key",
    "Invitation": "inv",
    "Session": "ses",
    "Refund": "rfd",
    "Dispute": "dsp",
    "Attachment": "att",
    "Viewer": "vwr",
    "DashboardFigures": "dash",
    "PaymentRequestView": "prv",
    "ConversationView": "cvv",
}

# Crockford's alphabet: no i, l, o, u; in ASCII order, so that texts sort like the numbers.
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
LENGTH = 26
_VALUE_OF = {character: value for value, character in enumerate(ALPHABET)}
_PAIRS = tuple(first + second for first in ALPHABET for second in ALPHABET)
_PAIR_SHIFTS = range(5 * (LENGTH - 2), -1, -10)

_TAIL_BITS = 74  # besides 48 bits of time, 4 of version and 2 of variant (RFC 9562)
_lock = threading.Lock()
_last_ms = 0
_tail = 0


def uuid7() -> UUID:
    """A UUIDv7 greater than every earlier one of this process. Source: RFC 9562, 5.7 and 6.2 (method 2)."""
    global _last_ms, _tail
    now_ms = time.time_ns() // 1_000_000
    with _lock:
        if now_ms > _last_ms:
            _last_ms = now_ms
            _tail = secrets.randbits(_TAIL_BITS - 1)  # the top bit stays free: room to count
        else:
            _tail += 1 + secrets.randbits(32)
            if _tail >> _TAIL_BITS:
                _last_ms += 1
                _tail = secrets.randbits(_TAIL_BITS - 1)
        ms, tail = _last_ms, _tail
    rand_a, rand_b = tail >> 62, tail & ((1 << 62) - 1)
    return UUID(int=(ms & ((1 << 48) - 1)) << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b)


def public_id(prefix: str, value: UUID) -> str:
    """The prefix, "_" and 26 sortable characters."""
    number = value.int
    return prefix + "_" + "".join([_PAIRS[number >> shift & 1023] for shift in _PAIR_SHIFTS])


def parse_public_id(text: str, prefix: str) -> UUID | None:
    """None if it is not a public id with this prefix."""
    head, separator, tail = text.rpartition("_")
    # 26 characters hold 130 bits: a first character above "7" would not fit into 128.
    if head != prefix or not separator or len(tail) != LENGTH or tail[0] > "7":
        return None
    number = 0
    for character in tail:
        value = _VALUE_OF.get(character)
        if value is None:
            return None
        number = number << 5 | value
    return UUID(int=number)
