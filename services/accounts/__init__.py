"""Accounts, users, sessions, API keys, key rotation."""
