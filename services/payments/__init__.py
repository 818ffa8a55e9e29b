"""Payment requests, checkouts, and everything that money does afterwards."""
