"""Secrets at rest: MultiFernet with the keys of SECRET_KEYS; the account's id stands inside the plaintext. Nothing here is logged."""

from __future__ import annotations

import base64
import hashlib
from uuid import UUID

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

_fernet: MultiFernet | None = None


class VaultError(Exception):
    """A stored secret can't be read with the configured SECRET_KEYS, or belongs to another account."""


def open_vault(secret_keys: list[str]) -> None:
    """Set the keys: the first encrypts, all decrypt. A key is any text of at least 16 characters."""
    global _fernet
    _fernet = MultiFernet([Fernet(base64.urlsafe_b64encode(hashlib.sha256(k.encode()).digest())) for k in secret_keys])


def seal(account_id: UUID, secret: str) -> str:
    """Encrypt a secret of this account."""
    return _open().encrypt(account_id.bytes + secret.encode()).decode()


def unseal(account_id: UUID, sealed: str) -> str:
    """Decrypt a secret of this account. Raises VaultError."""
    try:
        raw = _open().decrypt(sealed.encode())
    except InvalidToken as error:
        raise VaultError("not readable with the configured SECRET_KEYS") from error
    if raw[:16] != account_id.bytes:
        raise VaultError("belongs to another account")
    return raw[16:].decode()


def digest(token: str) -> str:
    """SHA-256 in hex: how tokens with 128 random bits or more are looked up."""
    return hashlib.sha256(token.encode()).hexdigest()


def _open() -> MultiFernet:
    if _fernet is None:
        raise VaultError("the vault is closed: call open_vault first")
    return _fernet
