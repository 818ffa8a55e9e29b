"""Lists: filters, orders, and their SQL."""
