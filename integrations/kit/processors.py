"""The suite that every processor must pass, against a running fake of its vendor.

A test module imports everything from here and defines the fixture `harness`.
"""

from integrations.kit.processor_calls import *  # noqa: F403 (the suite)
from integrations.kit.processor_harness import *  # noqa: F403 (the suite)
from integrations.kit.processor_money import *  # noqa: F403 (the suite)
from integrations.kit.processor_webhooks import *  # noqa: F403 (the suite)
