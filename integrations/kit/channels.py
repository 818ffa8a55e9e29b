"""The suite for channels: import everything from here and define the fixture `harness`, once per kind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest_asyncio

from integrations.kit import channel_callbacks, channel_sending
from integrations.kit.channel_bench import Bench, ChannelHarness, connected
from integrations.kit.channel_callbacks import *  # noqa: F403 (the suite)
from integrations.kit.channel_sending import *  # noqa: F403 (the suite)


@asynccontextmanager
async def running(harness: ChannelHarness) -> AsyncIterator[Bench]:
    """The running vendor and a connected channel."""
    async with AsyncExitStack() as stack:
        addresses = await harness.start(stack)
        channel = connected(harness.channel, harness.kind, harness.credentials, addresses)
        stack.push_async_callback(channel.aclose)
        yield Bench(harness, channel, addresses, stack)


@pytest_asyncio.fixture
async def bench(harness: ChannelHarness) -> AsyncIterator[Bench]:
    async with running(harness) as made:
        yield made


# An author imports all of it beside names of their own.
__all__ = ["bench", *channel_callbacks.__all__, *channel_sending.__all__]
