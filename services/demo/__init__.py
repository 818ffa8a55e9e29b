"""The demo account, and scenarios for developers."""
