"""Test suites that every processor and channel must pass. See docs/howto/add-a-processor.md and docs/howto/add-a-channel.md."""

import pytest

# Must run before the suites are imported, so that a failed assertion shows its values.
pytest.register_assert_rewrite(
    "integrations.kit.channel_bench",
    "integrations.kit.channel_callbacks",
    "integrations.kit.channel_sending",
    "integrations.kit.channels",
    "integrations.kit.processor_calls",
    "integrations.kit.processor_harness",
    "integrations.kit.processor_money",
    "integrations.kit.processor_webhooks",
)
