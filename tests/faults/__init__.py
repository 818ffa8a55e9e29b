"""Seeded faults: each is patched into a copy of the tree, and the suite must notice. `./dev faults` runs them."""
