"""Acme Pay (a processor) and Acme Chat (a channel) for Paythread: the sample of docs/howto/add-a-processor.md and add-a-channel.md."""
