"""Accounts, users, sessions, API keys."""
