"""The facts and their rules. Tortoise's tables are in models.tables; the event log is written and read raw in models.event_log."""
