"""Acme Chat passes Paythread's suite for channels."""

from contextlib import AsyncExitStack
from typing import Any

import pytest
from acme_pay.chat import AcmeChat
from fake_acme import BLOCKED, BOT, SIGNING_SECRET, TOKEN, FakeAcmeChat

from integrations.base import ChannelLimits, DeliveryStatus, LengthUnit
from integrations.kit import channel_bench as kit
from integrations.kit.channels import *  # noqa: F403 (the suite)
from integrations.kit.vendor import FailureMode


class AcmeChatHarness(kit.ChannelHarness):
    channel = AcmeChat
    public = frozenset({"bot"})
    signing = ("signing_secret",)
    signature_header = "acme-signature"
    documented = ChannelLimits(
        max_length=500,
        length_unit=LengthUnit.UTF16_UNITS,
        window_hours=48,
        messages_per_s=20,
        recipient_messages_per_s=1,
    )
    words = {
        "taken": DeliveryStatus.SENT,
        "arrived": DeliveryStatus.DELIVERED,
        "seen": DeliveryStatus.READ,
        "lost": DeliveryStatus.FAILED,
    }
    credentials = {"bot": BOT, "token": TOKEN, "signing_secret": SIGNING_SECRET}
    account = BOT
    address = "visitor-7"
    spellings = ("Visitor-7", "VISITOR-7")
    refused = BLOCKED

    async def start(self, stack: AsyncExitStack) -> dict[str, str]:
        self.acme = await stack.enter_async_context(FakeAcmeChat())
        return {"acme_chat": self.acme.url}

    def fail_next(self, mode: FailureMode) -> None:
        self.acme.fail_next(mode)

    def texts(self) -> list[str]:
        return [message["text"] for message in self.acme.messages]

    def registered(self) -> str:
        return self.acme.webhook["url"]

    def signed(self, body: bytes) -> kit.Callback:
        return (self.url, *self.acme.signed(body))

    def tell(self, *events: kit.Event) -> kit.Callback:
        bot = "another_bot" if any(isinstance(event, kit.WroteToAnother) for event in events) else BOT
        return (self.url, *self.acme.callback(*(self.event(event) for event in events), bot=bot))

    def event(self, event: kit.Event) -> dict[str, Any]:
        at = event.at.isoformat()
        match event:
            case kit.SentFile(sender=chat, number=number, text=text, name=name, content_type=mime, content=content):
                self.acme.files[event.id] = content
                file = {"id": event.id, "name": name, "mime": mime}
                return {"type": "file", "chat": chat, "number": number, "text": text, "file": file, "at": at}
            case kit.SentOther(sender=chat, number=number, what=what):
                return {"type": what, "chat": chat, "number": number, "spot": [52.5, 13.4], "at": at}
            case kit.OpenedLink(sender=chat, number=number, token=token):
                return {"type": "text", "chat": chat, "number": number, "text": "/start", "start": token, "at": at}
            case kit.Edited(sender=chat, number=number, text=text):
                return {"type": "edit", "chat": chat, "number": number, "text": text, "at": at}
            case kit.Wrote(sender=chat, number=number, text=text):
                return {"type": "text", "chat": chat, "number": number, "text": text, "at": at, "again": event.again}
            case kit.Answered(sender=chat, number=number, text=text, external_id=id):
                return {"type": "text", "chat": chat, "number": number, "text": text, "answers": id, "at": at}
            case kit.WroteInGroup(sender=chat, number=number, text=text):
                return {"type": "text", "group": "g1", "chat": chat, "number": number, "text": text, "at": at}
            case kit.TookBack(sender=chat, number=number):
                return {"type": "unsend", "chat": chat, "number": number, "at": at}
            case kit.Blocked(sender=chat, blocked=blocked):
                return {"type": "block" if blocked else "unblock", "chat": chat, "at": at}
            case kit.Became(external_id=id, word=word):
                return {"type": "state", "id": id, "state": word, "reason": "unreachable", "at": at}
            case kit.Echo(external_id=id, recipient=chat, text=text):
                return {"type": "sent", "id": id, "chat": chat, "text": text, "at": at}
            case kit.Odd():
                return {"type": "poll", "chat": self.address, "at": at}
            case kit.Broken():
                return {"type": "text", "number": 9, "text": "Hello", "at": at}
        raise kit.NotOffered(event)


@pytest.fixture
def harness() -> AcmeChatHarness:
    return AcmeChatHarness()
