"""The chat widget: who a visitor is, and the conversation that it sees."""
