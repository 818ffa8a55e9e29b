"""Acme Chat passes Paythread's suite for channels."""

from contextlib import AsyncExitStack

import pytest
from acme_pay.chat import SIGNATURE_HEADER, STATES, AcmeChat
from fake_acme import BLOCKED, SIGNING_SECRET, TOKEN, FakeAcmeChat

from integrations.kit.channels import *  # noqa: F403 (the suite)
from integrations.kit.channels import Callback, ChannelHarness


class AcmeChatHarness(ChannelHarness):
    channel = AcmeChat
    public = frozenset({"bot"})
    signing = ("signing_secret",)
    signature_header = SIGNATURE_HEADER
    states = STATES
    delivered = "arrived"
    undelivered = "lost"
    credentials = {"bot": "acme_bot", "token": TOKEN, "signing_secret": SIGNING_SECRET}
    account = "acme_bot"
    refused = BLOCKED

    async def start(self, stack: AsyncExitStack) -> dict[str, str]:
        self.acme = await stack.enter_async_context(FakeAcmeChat())
        return {"acme_chat": self.acme.url}

    def lose_answer(self) -> None:
        self.acme.fail_next("drop")

    def texts(self) -> list[str]:
        return [message["text"] for message in self.acme.messages]

    def status(self, external_id: str, word: str) -> Callback:
        return (self.url, *self.acme.tells(type="state", id=external_id, state=word, reason="unreachable"))

    def inbound(self, sender: str, text: str) -> Callback:
        return (self.url, *self.acme.writes(sender, text))

    def garbage(self) -> Callback:
        return (self.url, *self.acme.tells(hello="world"))


@pytest.fixture
def harness() -> AcmeChatHarness:
    return AcmeChatHarness()
