"""The suite for processors: import everything from here and define the fixture `harness`."""

from integrations.kit.processor_calls import *  # noqa: F403 (the suite)
from integrations.kit.processor_harness import *  # noqa: F403 (the suite)
from integrations.kit.processor_money import *  # noqa: F403 (the suite)
from integrations.kit.processor_webhooks import *  # noqa: F403 (the suite)
