"""Shared by every service."""
