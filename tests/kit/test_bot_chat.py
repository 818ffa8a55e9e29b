"""A channel with few features and other ways than the sample's passes the suite: nothing is overridden, nothing is skipped."""

from __future__ import annotations

import pytest

from integrations.kit.channels import *  # noqa: F403 (the suite)
from tests.kit.bot_chat import BotChatHarness


@pytest.fixture
def harness() -> BotChatHarness:
    """A bot."""
    return BotChatHarness()
