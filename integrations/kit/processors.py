"""The suite that every processor must pass: the promises of `integrations.base.Processor`, against a running fake of its vendor.

An author's test module says `from integrations.kit.processors import *` and gives the fixture `harness`. What the class declares
in `capabilities` is tested; what it does not, and what the harness does not supply, is listed at the end of pytest's output.
"""

from integrations.kit.processor_calls import *  # noqa: F403 (the suite)
from integrations.kit.processor_harness import *  # noqa: F403 (the suite)
from integrations.kit.processor_money import *  # noqa: F403 (the suite)
from integrations.kit.processor_webhooks import *  # noqa: F403 (the suite)
