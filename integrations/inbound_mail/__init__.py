"""Reads untrusted email: `read` returns a `Mail` or raises `Unreadable`."""

from integrations.inbound_mail.quotes import reply_subject
from integrations.inbound_mail.reader import MAX_BYTES, Mail, Unreadable, read
from integrations.inbound_mail.reports import DeliveryReport

__all__ = ["MAX_BYTES", "DeliveryReport", "Mail", "Unreadable", "read", "reply_subject"]
