"""Answers are kept while an account's log does not grow, and never reach another account."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import pytest

from resolvers.transport.answers import Answers
from tests.flows.conftest import Team, new_team
from tests.flows.harness import GraphQLFailed, key

THREAD = """query Kept($id: ID!) { conversation(id: $id) { id preview contact { name }
  thread { nodes { __typename id ... on Message { body deliveryStatus }
    ... on ActivityCard { kind paymentRequest { id status isOverdue } } } } } }"""


@pytest.fixture
def hits() -> Iterator[list[bool]]:
    """Whether each look-up found an answer."""
    seen: list[bool] = []
    find = Answers.find

    def watched(self: Answers, *arguments: object) -> bytes | None:
        found = find(self, *arguments)
        seen.append(found is not None)
        return found

    with mock.patch.object(Answers, "find", watched):
        yield seen


async def test_an_unchanged_thread_is_answered_from_memory_and_a_changed_one_is_not(
    team: Team, hits: list[bool]
) -> None:
    maria = await team.contact()
    variables = {"id": maria["conversation"]["id"]}
    answers = [await team.product.one(THREAD, variables, token=team.agent) for _ in range(4)]
    assert answers == answers[:1] * 4
    assert hits[-1] is True
    request = await team.request(maria)
    await team.send(request)
    changed = await team.product.one(THREAD, variables, token=team.agent)
    assert [item["__typename"] for item in changed["thread"]["nodes"]] == ["Message", "ActivityCard"]
    assert hits[-1] is False


async def test_no_viewer_gets_what_was_kept_for_another(team: Team, hits: list[bool]) -> None:
    maria = await team.contact()
    variables = {"id": maria["conversation"]["id"]}
    for _ in range(4):
        assert await team.product.one(THREAD, variables, token=team.agent) is not None
    assert hits[-1] is True
    stranger = await new_team(team.product)
    for token in (stranger.agent, stranger.owner):
        for _ in range(3):
            assert await stranger.product.one(THREAD, variables, token=token) is None
    with pytest.raises(GraphQLFailed):
        await team.product.one(THREAD, variables, token="ptk_" + key())


async def test_an_answer_that_depends_on_more_than_the_log_is_not_kept(team: Team, hits: list[bool]) -> None:
    await team.contact()
    for document in (
        'query Search { contacts(search: "maria") { nodes { id } } }',
        "query Via { conversations(first: 2) { nodes { thread(first: 5) { nodes { ... on Message { via { lastWebhookAt } } } } } } }",
    ):
        for _ in range(4):
            await team.product.one(document, token=team.agent)
    assert True not in hits
