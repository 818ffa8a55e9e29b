"""The upgrade finds who waits for an answer, and the channels of each conversation."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from models import migrate, tables
from models.database import open_database
from tests import factories

NAMES = [one.name for one in migrate.read(migrate.FOLDER, "sqlite")]
BEFORE = NAMES[next(n for n, name in enumerate(NAMES) if name.endswith("_lists")) - 1]
USER = "00000000-0000-0000-0000-000000000001"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'upgrade.db'}"
    make: Callable[[], str] = request.getfixturevalue("new_postgres_database")
    return make()


async def test_waiting_conversations_and_their_channels_are_the_same_after_an_upgrade(url: str) -> None:
    await migrate.migrate(url)
    now = factories.now()
    expected: dict[object, tuple[object, set[str]]] = {}
    async with open_database(url):
        account = await factories.account()
        for written, waits in (
            ([], None),
            ([("INBOUND", "SMS", 0, None)], 0),
            ([("INBOUND", "SMS", 0, None), ("INBOUND", "EMAIL", 1, None)], 0),
            ([("INBOUND", "SMS", 0, None), ("OUTBOUND", "SMS", 1, USER)], None),
            ([("INBOUND", "SMS", 0, None), ("OUTBOUND", "SMS", 1, None)], 0),  # automatic
            ([("INBOUND", "SMS", 0, None), ("OUTBOUND", "SMS", 1, USER), ("INBOUND", "WHATSAPP", 2, None)], 2),
        ):
            conversation = await factories.conversation(await factories.contact(account))
            for direction, kind, minutes, author in written:
                await factories.message(
                    conversation,
                    direction=direction,
                    kind=kind,
                    occurred_at=now + timedelta(minutes=minutes),
                    author_id=author,
                    author_name="System" if direction == "OUTBOUND" else None,
                )
            since = None if waits is None else now + timedelta(minutes=waits)
            expected[conversation.id] = since, {kind for _, kind, _, _ in written}
        merged = await factories.conversation(await factories.contact(account))
        kept = await factories.conversation(await factories.contact(account), merged_ids=[str(merged.id)])
        closed = await factories.conversation(await factories.contact(account), closed_at=now)
        await tables.Conversation.filter(id=merged.id).update(merged_into_id=kept.id)
        for conversation, kind in ((merged, "SMS"), (kept, "EMAIL"), (closed, "SMS")):
            await factories.message(conversation, direction="INBOUND", kind=kind, occurred_at=now)
        expected |= {kept.id: (now, {"SMS", "EMAIL"}), closed.id: (None, {"SMS"})}
    names = await migrate.rollback(url, BEFORE)
    assert await migrate.migrate(url) == list(reversed(names))
    async with open_database(url):
        for row in await tables.Conversation.filter(id__in=list(expected)):
            assert (row.waiting_since, {*row.channel_kinds.split()}) == expected[row.id]
            assert row.channel_kinds == f" {' '.join(row.channel_kinds.split())} ".replace("  ", " ")
