"""Encrypts secrets at rest with SECRET_KEYS."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

_fernet: MultiFernet | None = None
_keys: tuple[str, ...] = ()


class VaultError(Exception):
    """A stored secret is not readable with SECRET_KEYS, or belongs to another account."""


def open_vault(secret_keys: list[str]) -> None:
    """The first key encrypts, all decrypt."""
    global _fernet, _keys
    _fernet, _keys = None, tuple(secret_keys)


def seal(account_id: UUID, secret: str) -> str:
    return _cipher().encrypt(account_id.bytes + secret.encode()).decode()


def unseal(account_id: UUID, sealed: str) -> str:
    """Raises: VaultError."""
    from cryptography.fernet import InvalidToken  # as in `_cipher`

    try:
        raw = _cipher().decrypt(sealed.encode())
    except InvalidToken as error:
        raise VaultError("not readable with the configured SECRET_KEYS") from error
    if raw[:16] != account_id.bytes:
        raise VaultError("belongs to another account")
    return raw[16:].decode()


def mark(purpose: str, subject: bytes) -> bytes:
    """Sign with the first key: 16 bytes of HMAC-SHA-256."""
    return _marks_by_key(purpose, subject)[0]


def is_mark(purpose: str, subject: bytes, given: bytes) -> bool:
    """Whether any key signed it, in constant time."""
    return any(hmac.compare_digest(mark, given) for mark in _marks_by_key(purpose, subject))


def _marks_by_key(purpose: str, subject: bytes) -> list[bytes]:
    _require_keys()
    # A separate key per purpose: no key both signs and encrypts.
    derived = [hashlib.sha256(f"{purpose}:{key}".encode()).digest() for key in _keys]
    return [hmac.new(key, subject, hashlib.sha256).digest()[:16] for key in derived]


def digest(token: str) -> str:
    """SHA-256 in hex, for tokens of at least 128 random bits."""
    return hashlib.sha256(token.encode()).hexdigest()


def _cipher() -> MultiFernet:
    global _fernet
    _require_keys()
    if _fernet is None:
        from cryptography.fernet import Fernet, MultiFernet  # loads 8 MB: with the first secret

        keys = (base64.urlsafe_b64encode(hashlib.sha256(key.encode()).digest()) for key in _keys)
        _fernet = MultiFernet([Fernet(key) for key in keys])
    return _fernet


def _require_keys() -> None:
    if not _keys:
        raise VaultError("the vault is closed: call open_vault first")
