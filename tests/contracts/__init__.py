"""Contract servers: vendors in tests, validating every request against the vendor's own contract. No test in here."""
