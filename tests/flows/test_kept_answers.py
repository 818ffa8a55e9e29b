"""Answers are kept while an account's log does not grow, and never reach another account."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Hashable, Iterator
from typing import Any
from unittest import mock

import pytest

from resolvers.plans.plans import Plan
from resolvers.plans.selections import Run
from resolvers.transport import executor
from resolvers.transport.answers import Answers
from resolvers.transport.executor import NotPlanned
from resolvers.transport.quick import QuickAnswers
from services.accounts import authentication, users
from tests.flows import harness
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


async def test_a_kept_thread_shows_its_authors_as_they_are_now(team: Team, hits: list[bool]) -> None:
    maria = await team.contact()
    variables = {"id": maria["conversation"]["id"]}
    await team.send(await team.request(maria))
    document = THREAD.replace("body", "body author { __typename ... on User { name role } ... on Contact { name } }")
    async with asyncio.timeout(20):  # the message's delivery is an event, too
        while hits[-1:] != [True]:
            await team.product.one(document, variables, token=team.agent)
    owner = await authentication.authenticate(team.owner)
    agent = await authentication.authenticate(team.agent)
    assert owner is not None and agent is not None and agent.user_id is not None  # noqa: PT018 (for mypy)
    await users.update(owner, agent.user_id, {"name": "Ana Newname"})
    changed = await team.product.one(document, variables, token=team.agent)
    assert {"__typename": "User", "name": "Ana Newname", "role": "AGENT"} in [
        item.get("author") for item in changed["thread"]["nodes"]
    ]


async def test_a_kept_answer_shows_its_cost_where_it_is_asked_for(team: Team, hits: list[bool]) -> None:
    maria = await team.contact()
    body = {"query": THREAD, "variables": {"id": maria["conversation"]["id"]}}
    signed = {"Authorization": f"Bearer {team.agent}", "Accept": "application/json"}
    plain = [(await team.product.http.post("/graphql", json=body, headers=signed)).json() for _ in range(4)]
    assert hits[-1] is True
    shown = (await team.product.http.post("/graphql", json=body, headers=signed | {"GraphQL-Cost": "1"})).json()
    cost = shown.pop("extensions")["cost"]
    assert (shown, cost["limit"]) == (plain[-1], 10_000)
    assert 0 < cost["requested"] < 10_000


@pytest.mark.parametrize(("environment", "shown"), [("development", True), ("test", False)])
async def test_in_development_every_answer_shows_its_cost(
    database: str, events_url: str, environment: str, *, shown: bool
) -> None:
    async with harness.in_process(database, events_url, ENVIRONMENT=environment, RUN_JOBS="false") as product:
        team = await new_team(product)
        for query in ("{ viewer { name } }", "{ conversations(first: 1) { nodes { id } } }"):
            for _ in range(3):
                answer = await product.raw(query, token=team.agent)
                assert ("cost" in answer.get("extensions", {})) is shown


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
        'query Search { contacts(filter: {search: "maria"}) { nodes { id } } }',
        "query Via { conversations(first: 2) { nodes { thread(first: 5) { nodes { ... on Message { channel { lastWebhookAt } } } } } } }",
    ):
        for _ in range(4):
            await team.product.one(document, token=team.agent)
    assert True not in hits


async def test_long_variables_and_unknown_names_are_not_kept(team: Team) -> None:
    signed = {"Authorization": f"Bearer {team.agent}"}
    keys: list[Any] = []
    views: list[QuickAnswers] = []
    asked_again, find = Answers.asked_again, QuickAnswers.find

    def asked(self: Answers, key: Hashable) -> bool:
        keys.append(key)
        return asked_again(self, key)

    def found(self: QuickAnswers, *arguments: Any) -> Any:
        views.append(self)
        return find(self, *arguments)

    with mock.patch.object(Answers, "asked_again", asked), mock.patch.object(QuickAnswers, "find", found):
        maria = await team.contact()
        variables = {"id": maria["conversation"]["id"]}
        expected = await team.product.one(THREAD, variables, token=team.agent)
        for letter in "ab":
            long = variables | {"unknown": letter * 50_000}
            assert await team.product.one(THREAD, long, token=team.agent) == expected
        for n in range(3):
            body = {"query": THREAD, "variables": variables, "operationName": f"None{n}"}
            answer = await team.product.http.post("/graphql", json=body, headers=signed)
            assert "errors" in answer.json()
    assert len(set(keys[-2:])) == 2
    assert max(sys.getsizeof(part) for key in keys for part in key) < 1_000
    assert {name for view in views for _, name in view._operations} <= {None, "Kept"}


async def test_a_plan_that_gives_no_answer_is_tried_once_within_the_time_of_one_operation(team: Team) -> None:
    maria = await team.contact()
    variables = {"id": maria["conversation"]["id"]}
    expected = await team.product.one(THREAD, variables, token=team.agent)
    tried: list[Plan] = []
    passed: list[float] = []
    within = executor._within

    async def fail(self: Plan, run: Run) -> dict[str, Any]:
        tried.append(self)
        await asyncio.sleep(0.2)
        raise NotPlanned

    def watched(result: Any, seconds: float, before: float) -> Any:
        passed.append(before)
        return within(result, seconds, before)

    with mock.patch.object(Plan, "run", fail), mock.patch.object(executor, "_within", watched):
        assert await team.product.one(THREAD, variables, token=team.agent) == expected
    assert len(tried) == 1
    assert 0.1 < passed[0] < 5
