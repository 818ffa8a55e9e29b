"""What a conversation shows beside messages."""
