"""Files of inbound messages: stored once, refused, served and swept."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from integrations import media
from integrations.base import ChannelWebhook, InboundMessage, IntegrationError, WebhookRequest
from integrations.channels.simulated import Simulated
from models import vault
from models.tables import Attachment, Job, Message
from services.core import job_runner, jobs
from services.messaging import attachments, inbound
from tests.services.conftest import Team, kinds_logged

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
URL = "https://files.example.test/secret-token/1"
NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)


@pytest.fixture
def reported_files(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Files that the simulated SMS vendor reports with its next message."""
    files: list[dict[str, str]] = []

    def receive(self: Simulated, request: WebhookRequest) -> ChannelWebhook:
        sender = request.body.decode()
        message = InboundMessage(external_id="in_1", sender=sender, body="", attachments=tuple(files))
        return ChannelWebhook(messages=(message,))

    monkeypatch.setattr(Simulated, "receive", receive)
    return files


async def arrive(team: Team) -> list[Attachment]:
    request = WebhookRequest(
        method="POST", public_url="", headers={}, body=team.addresses["SMS"].address.encode(), now=datetime.now(UTC)
    )
    await inbound.receive("simulated", team.channels["SMS"].id, request)
    return await Attachment.all().order_by("n")


async def test_reported_files_are_stored_with_the_message_and_their_urls_sealed(
    team: Team, reported_files: list[dict[str, str]]
) -> None:
    reported_files += [
        {"url": URL, "content_type": "image/png", "name": "../../etc/pass\r\nwd", "size": "28"},
        {"url": URL + "2", "content_type": "image/jpeg\x00", "size": "-5"},
        {"content_type": ""},
        {"url": "https://x.test/" + "a" * 5000},
    ]
    rows = await arrive(team)
    message = await Message.get()
    assert [(row.message_id, row.n) for row in rows] == [(message.id, n) for n in (1, 2, 3, 4)]
    assert message.body == "[4 attachments]"
    assert [(row.name, row.content_type, row.size_bytes, row.status, row.reason) for row in rows] == [
        ("passwd", "image/png", 28, "PENDING", None),
        ("attachment-2", "image/jpeg", None, "PENDING", None),
        ("attachment-3", "application/octet-stream", None, "FAILED", "not_given"),
        ("attachment-4", "application/octet-stream", None, "FAILED", "not_given"),
    ]
    assert "secret-token" not in (rows[0].source_url or "")
    assert vault.unseal(team.account.id, rows[0].source_url or "") == URL
    assert await Job.filter(kind="attachment.fetch").count() == 2
    assert len(await arrive(team)) == 4  # the same callback again
    assert await Job.filter(kind="attachment.fetch").count() == 2


async def test_at_most_fifty_files_of_a_message_are_kept(team: Team, reported_files: list[dict[str, str]]) -> None:
    reported_files += [{"url": f"{URL}{n}"} for n in range(60)]
    assert len(await arrive(team)) == 50


async def test_a_file_in_the_message_is_classified_immediately(
    team: Team, reported_files: list[dict[str, str]]
) -> None:
    contents = (PNG, b"MZ\x90\x00", b"")
    reported_files += [{"content": base64.b64encode(one).decode(), "content_type": "image/png"} for one in contents]
    reported_files.append({"content": "no base64!"})
    rows = await arrive(team)
    assert [(row.status, row.reason, row.content and bytes(row.content)) for row in rows] == [
        ("STORED", None, PNG),
        ("REFUSED", "type_not_allowed", None),
        ("REFUSED", "empty", None),
        ("FAILED", "unreadable", None),
    ]
    assert await Job.filter(kind="attachment.fetch").count() == 0


async def test_a_fetched_file_is_announced_once_and_its_url_deleted(
    team: Team, reported_files: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def fetch(url: str, **_: Any) -> bytes:
        asked.append(url)
        return PNG

    monkeypatch.setattr(media, "fetch", fetch)
    reported_files.append({"url": URL, "content_type": "text/html"})
    (row,) = await arrive(team)
    before = await kinds_logged(team.account.id)
    await job_runner.Runner().run_due()
    await attachments.fetch(context(row))  # a lease that ended too early: the job runs again
    stored = await Attachment.get()
    assert (stored.status, stored.content_type, stored.size_bytes) == ("STORED", "image/png", len(PNG))
    assert stored.source_url is None
    assert asked == [URL]
    assert (await kinds_logged(team.account.id))[len(before) :] == ["message.updated"]


def context(row: Attachment, *, last: bool = False) -> jobs.JobContext:
    return jobs.JobContext(
        job_id=row.id,
        kind="attachment.fetch",
        payload={"attachment_id": str(row.id)},
        account_id=row.account_id,
        attempt=1,
        last_attempt=last,
    )


@pytest.mark.parametrize(
    ("retryable", "last", "status"), [(False, False, "REFUSED"), (True, False, "PENDING"), (True, True, "FAILED")]
)
async def test_a_failure_is_final_when_it_can_only_stay_one(
    team: Team,
    reported_files: list[dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    retryable: bool,
    last: bool,
    status: str,
) -> None:
    async def fetch(url: str, **_: Any) -> bytes:
        raise IntegrationError("media", "timeout", retryable=retryable)

    monkeypatch.setattr(media, "fetch", fetch)
    reported_files.append({"url": URL})
    (row,) = await arrive(team)
    if status == "PENDING":
        with pytest.raises(IntegrationError):
            await attachments.fetch(context(row, last=last))
    else:
        await attachments.fetch(context(row, last=last))
    found = await Attachment.get()
    assert (found.status, found.reason) == (status, None if status == "PENDING" else "timeout")
    assert (found.source_url is None) == (status != "PENDING")
    assert attachments.url_of(found) is None


async def test_an_address_lives_for_fifteen_minutes_and_through_a_change_of_keys(
    team: Team, reported_files: list[dict[str, str]]
) -> None:
    reported_files.append({"content": base64.b64encode(PNG).decode(), "name": "roof.png"})
    (row,) = await arrive(team)
    url = attachments.url_of(row, now=NOW)
    assert url is not None
    head, _, query = url.partition("?")
    name, ends, signature = head.rpartition("/")[2], query[2 : query.index("&")], query.rpartition("s=")[2]
    for after_s, there in ((0, True), (899, True), (901, False)):
        file = await attachments.opened(name, ends, signature, now=NOW + timedelta(seconds=after_s))
        assert (file is not None) == there
    file = await attachments.opened(name, ends, signature, now=NOW)
    assert file is not None
    assert (file.name, file.content_type, file.content, file.inline) == ("roof.png", "image/png", PNG, True)
    known = "an-older-key-of-sixteen-characters"
    vault.open_vault([known])
    assert await attachments.opened(name, ends, signature, now=NOW) is None
    vault.open_vault([known, "another-key-of-sixteen-characters"])
    url = attachments.url_of(row, now=NOW)
    vault.open_vault(["a-new-key-of-sixteen-characters", known])
    assert url is not None
    assert await attachments.opened(name, ends, url.rpartition("s=")[2], now=NOW) is not None


async def test_a_file_whose_job_is_gone_is_fetched_and_one_whose_job_died_is_failed(
    team: Team, reported_files: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    reported_files += [{"url": f"{URL}{n}", "content_type": "image/png"} for n in range(3)]
    gone, died, broken = await arrive(team)

    async def fetch(url: str, **_: Any) -> bytes:
        if url.endswith("2"):
            raise ValueError("a bug")
        return PNG

    monkeypatch.setattr(media, "fetch", fetch)
    await Job.filter(key=f"attachment.fetch:{gone.id}").delete()
    await Job.filter(key=f"attachment.fetch:{died.id}").update(status="dead")
    await Job.filter(key=f"attachment.fetch:{broken.id}").update(max_attempts=1)
    await job_runner.Runner().run_due()
    for _ in range(2):
        await attachments.sweep_stranded()
        await job_runner.Runner().run_due()
    rows = await Attachment.all().order_by("n")
    assert [(row.status, row.reason) for row in rows] == [
        ("STORED", None),
        ("FAILED", "not_fetched"),
        ("FAILED", "not_fetched"),
    ]
    assert [row.source_url for row in rows] == [None] * 3
