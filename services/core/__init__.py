"""What every use-case is built on: the unit of work, the log and its readers, jobs, permissions, idempotency, limits."""
