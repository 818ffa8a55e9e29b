"""Used by every service: the unit of work, the event hub, jobs, permissions, idempotency, configuration."""
