"""Disabling a user frees the user's conversations, also those that are assigned at the same moment."""

from __future__ import annotations

import asyncio

import pytest

from models.errors import NotFound
from models.ids import public_id
from models.tables import AuditEntry, Conversation
from services.accounts import users
from services.messaging import conversations
from services.team import assignments
from tests import factories
from tests.services.conftest import Team, kinds_logged
from tests.services.team.conftest import run_jobs


async def test_every_conversation_is_freed_and_announced(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assignments, "BATCH", 2)
    user_id = team.agent.user_id
    assert user_id is not None
    rows = [await factories.conversation(await factories.contact(team.account)) for _ in range(5)]
    for row in rows:
        await conversations.assign(team.owner, row.id, user_id)
    await conversations.assign(team.owner, team.conversation.id, team.owner.user_id)
    await users.disable(team.owner, user_id)
    before = len(await kinds_logged(team.account.id))
    assert await run_jobs() == []
    assert {row.assignee_id for row in await Conversation.all()} == {None, team.owner.user_id}
    assert (await kinds_logged(team.account.id))[before:] == ["conversation.updated"] * 5
    freed = await AuditEntry.filter(action="conversation.unassigned")
    assert {entry.subject for entry in freed} == {public_id("cnv", row.id) for row in rows}


async def test_a_user_who_is_enabled_before_the_job_runs_keeps_the_conversations(team: Team) -> None:
    user_id = team.agent.user_id
    assert user_id is not None
    await conversations.assign(team.owner, team.conversation.id, user_id)
    await users.disable(team.owner, user_id)
    await users.enable(team.owner, user_id)
    assert await run_jobs() == []
    assert (await Conversation.get(id=team.conversation.id)).assignee_id == user_id


async def test_an_assignment_at_the_same_moment_is_refused_or_freed(team: Team) -> None:
    user_id = team.agent.user_id
    assert user_id is not None
    for _ in range(5):
        ended = await asyncio.gather(
            conversations.assign(team.owner, team.conversation.id, user_id),
            users.disable(team.owner, user_id),
            return_exceptions=True,
        )
        assert isinstance(ended[0], Conversation | NotFound), ended
        assert not isinstance(ended[1], BaseException), ended
        assert await run_jobs() == []
        assert (await Conversation.get(id=team.conversation.id)).assignee_id is None
        await users.enable(team.owner, user_id)
