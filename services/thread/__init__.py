"""What a conversation shows beside messages: activity cards, notifications, payment links, a contact's totals."""
