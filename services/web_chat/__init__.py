"""The chat widget's visitors and their conversation."""
