"""The suite that every channel must pass: the promises of `integrations.base.Channel`, against a running fake of its vendor.

An author's test module says `from integrations.kit.channels import *` and gives the fixture `harness`, once per kind that it serves:
a `integrations.kit.channel_bench.ChannelHarness`. What the channel declares in `features` is tested; of the rest the harness must say
that its vendor does not offer it.
"""

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
    """The vendor, running, and a channel connected to it."""
    async with AsyncExitStack() as stack:
        addresses = await harness.start(stack)
        channel = connected(harness.channel, harness.kind, harness.credentials, addresses)
        stack.push_async_callback(channel.aclose)
        yield Bench(harness, channel, addresses, stack)


@pytest_asyncio.fixture
async def bench(harness: ChannelHarness) -> AsyncIterator[Bench]:
    """The vendor, running, and a channel connected to it."""
    async with running(harness) as made:
        yield made


# An author imports all of it beside names of their own.
__all__ = ["bench", *channel_callbacks.__all__, *channel_sending.__all__]
