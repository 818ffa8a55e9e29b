"""The suites that every processor and every channel must pass, for authors of providers to run on their own. The product never imports it.

A provider's tests say `from integrations.kit.processors import *` (or `.channels`) and give a fixture `harness`:
docs/howto/add-a-processor.md, docs/howto/add-a-channel.md. It needs pytest and pytest-asyncio, which the product does not.
"""

import pytest

# Before the suites are imported: a failed assertion then shows its values, as in any test.
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
