"""An account's connected channels and processors: settings, credentials, availability."""
