"""Contacts, conversations, and messages in both directions."""
