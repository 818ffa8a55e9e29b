"""The fake vendors behind the sandbox processor and the simulated channels."""
