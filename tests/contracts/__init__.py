"""Fake vendors that validate every request against the vendor's contract."""
