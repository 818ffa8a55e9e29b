"""Connected channels and processors."""
