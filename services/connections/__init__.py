"""Channels and processors that an account has connected: settings, credentials, what is available and why not."""
