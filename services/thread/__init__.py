"""What a conversation shows beside messages, and what messages and payments share of requests: locks, links, totals, figures."""
