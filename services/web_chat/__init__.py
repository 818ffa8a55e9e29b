"""The chat widget's visitors."""
