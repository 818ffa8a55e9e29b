"""Permissions: every mutation by every role is done, or FORBIDDEN without a change; without a credential all are refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from graphql import get_named_type, is_composite_type, is_required_argument

from models.ids import public_id, uuid7
from services.accounts import authentication, users
from tests.contracts.stripe_contract import derived_contract
from tests.contracts.stripe_server import StripeServer
from tests.contracts.twilio_server import TwilioServer
from tests.contracts.twilio_server import contracts as twilio_contracts
from tests.flows import harness, probes
from tests.flows.conftest import Team, new_team
from tests.flows.harness import PASSWORD, GraphQLFailed, Product, key
from tests.flows.probes import ROLES, World

OPEN = {
    "signIn",
    "refreshSession",
    "acceptInvitation",
    "requestPasswordReset",
    "resetPassword",
    "confirmEmailChange",
}  # they make the credential
ALL, TEAM, ADMINS, OWNER = set(ROLES), {"OWNER", "ADMIN", "AGENT"}, {"OWNER", "ADMIN"}, {"OWNER"}
MAY: dict[str, set[str]] = {
    "signIn": ALL,
    "refreshSession": ALL,
    "signOut": ALL,
    "followConversation": ALL,
    "markNotificationsRead": ALL,
    "updateNotificationRules": ALL,
    "createPaymentRequest": TEAM,
    "sendPaymentRequest": TEAM,
    "voidPaymentRequest": TEAM,
    "refundPayment": ADMINS,
    "recordOutsidePayment": TEAM,
    "undoOutsidePayment": TEAM,
    "releasePaymentLink": TEAM,
    "resolveMismatch": TEAM,
    "runSandboxScenario": TEAM,
    "recordLinkCopied": TEAM,
    "discardPaymentRequest": TEAM,
    "sendMessage": TEAM,
    "resendMessage": TEAM,
    "closeConversation": TEAM,
    "reopenConversation": TEAM,
    "markConversationRead": TEAM,
    "assignConversation": TEAM,
    "saveDraft": TEAM,
    "addNote": TEAM,
    "updateConversationTags": TEAM,
    "updateContactTags": TEAM,
    "createContact": TEAM,
    "updateContact": TEAM,
    "mergeContacts": TEAM,
    "updateAccount": ADMINS,
    "configureProcessor": ADMINS,
    "testProcessor": ADMINS,
    "disconnectProcessor": ADMINS,
    "connectChannel": ADMINS,
    "testChannel": ADMINS,
    "disconnectChannel": ADMINS,
    "rotateIdentitySecret": ADMINS,
    "createApiKey": OWNER,
    "revokeApiKey": OWNER,
    "inviteUser": ADMINS,
    "resendInvitation": ADMINS,
    "revokeInvitation": ADMINS,
    "acceptInvitation": ALL,
    "changePassword": ALL,
    "requestPasswordReset": ALL,
    "resetPassword": ALL,
    "requestEmailChange": ALL,
    "confirmEmailChange": ALL,
    "createView": ADMINS,  # shared ones: tests/services/lists/test_views.py tries own ones
    "updateView": ADMINS,
    "deleteView": ADMINS,
    "updateProfile": ALL,
    "revokeSession": ALL,
    "updateUser": OWNER,
    "disableUser": OWNER,
    "enableUser": OWNER,
}
# What only a person can do: an API key has no notifications, whatever its role, and manages keys only where it was let.
PERSONAL = {"followConversation", "markNotificationsRead", "createApiKey", "revokeApiKey"}
PERSONAL |= {"changePassword", "requestEmailChange", "updateProfile", "revokeSession", "updateNotificationRules"}
PERSONAL |= {"updateUser", "disableUser", "enableUser", "inviteUser", "resendInvitation", "revokeInvitation"}


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    probes.hash_quickly(monkeypatch)


@pytest.fixture
async def product(database: str, events_url: str) -> AsyncIterator[Product]:
    """The server with fake vendors and without its job runner, so that nothing changes in the background."""
    async with StripeServer(derived_contract()) as stripe, TwilioServer(twilio_contracts()[0]) as twilio:
        more = {"RUN_JOBS": "false", **harness.MAIL, "STRIPE_API_BASE": stripe.url, "TWILIO_API_BASE": twilio.url}
        async with harness.in_process(database, events_url, **more) as running:
            yield running


@pytest.fixture
async def world(bare: Team) -> World:
    return await probes.world(bare)


async def people(world: World) -> dict[str, str]:
    """An access token of a user of each role."""
    owner = await authentication.authenticate(world.team.owner)
    assert owner is not None
    tokens = {"OWNER": world.team.owner}
    for role in ROLES[1:]:
        email = f"{role}-{key()}@example.com"
        await users.add(owner, email=email, name=role, role=role, password=PASSWORD)
        tokens[role] = await world.product.sign_in(email)
    return tokens


async def fresh(world: World, n: int) -> dict[str, dict[str, Any]]:
    """Valid arguments for one more round."""
    await probes.refill(world)
    arguments = probes.right(world)
    new = {"email": f"zoe{n}@example.com", "phone": f"+1415555{3000 + n}"}
    arguments["createContact"]["input"] |= {**new, "addresses": [{"kind": "WEB_CHAT", "address": f"zoe-{n}"}]}
    return arguments


def test_every_mutation_has_its_roles() -> None:
    assert sorted(MAY) == sorted(probes.root("Mutation"))


@pytest.mark.slow
async def test_every_mutation_is_done_or_forbidden_by_role_for_people_and_for_api_keys(world: World) -> None:
    await available_actions(world)
    persons, keys = await people(world), {**world.tokens, "OWNER": await probes.api_key(world.team, "OWNER")}
    wrong = []
    # From the lowest role up, so that a refused mutation's object is still unused.
    for n, (role, kind) in enumerate((role, kind) for role in reversed(ROLES) for kind in ("person", "key")):
        token = (persons if kind == "person" else keys)[role]
        for mutation, arguments in (await fresh(world, n)).items():
            allowed = role in MAY[mutation] and not (kind == "key" and mutation in PERSONAL)
            if mutation == "signOut" and role == "OWNER":
                continue  # the owner goes on in this test; the others' sign-outs are tried
            if mutation == "revokeSession" and kind == "person" and role != "OWNER":
                continue  # the session is the owner's
            before = await probes.snapshot()
            answer = await probes.ask(world.product, probes.mutation_document(mutation), arguments, token)
            codes = [e["code"] for e in ((answer.get("data") or {}).get(mutation) or {}).get("userErrors", ["none"])]
            if codes != ([] if allowed else ["FORBIDDEN"]):
                wrong.append(f"{role} {kind} {mutation}: {answer}")
            if not allowed and (rows := probes.changed(before, await probes.snapshot())):
                wrong.append(f"{role} {kind} {mutation} CHANGED {rows}")
    assert not wrong, "\n".join(wrong)


async def test_who_is_refused_learns_nothing_and_changes_nothing(world: World) -> None:
    before = await probes.snapshot()
    wrong = [*await forbidden_before_not_found(world), *await without_a_credential(world)]
    assert not wrong, "\n".join(wrong)
    assert probes.changed(before, await probes.snapshot()) == []


async def forbidden_before_not_found(world: World) -> list[str]:
    """FORBIDDEN comes before NOT_FOUND; otherwise a viewer could probe ids."""
    wrong = []
    for mutation, one in probes.root("Mutation").items():
        if "VIEWER" in MAY[mutation]:
            continue
        for leaf in probes.leaves(one.args):
            if leaf.type == "ID":
                kind = probes.ID_KINDS[leaf.name]
                unknown = probes.foreign_to(world.ids[kind])
                arguments = probes.nested(leaf.path, unknown, probes.right(world)[mutation], one.args)
                answer = await probes.ask(
                    world.product, probes.mutation_document(mutation), arguments, world.tokens["VIEWER"]
                )
                if [e["code"] for e in answer["data"][mutation]["userErrors"]] != ["FORBIDDEN"]:
                    wrong.append(f"{mutation}.{leaf.path}: {answer}")
    return wrong


async def test_without_the_sandbox_its_mutation_does_not_exist_for_any_role(database: str, events_url: str) -> None:
    async with harness.in_process(database, events_url, SANDBOX="false") as product:
        team = await new_team(product)
        document = probes.mutation_document("runSandboxScenario")
        given = {"input": {"paymentRequestId": public_id("pr", uuid7()), "scenario": "DECLINED"}}
        for token in (team.owner, team.agent, await probes.api_key(team, "ADMIN")):
            answer = await probes.ask(product, document, given, token)
            assert "data" not in answer
            assert {error["extensions"]["code"] for error in answer["errors"]} == {"BAD_REQUEST"}


BAD_TOKENS = (None, "rubbish", "ptk_" + "A" * 43, "a.b.c", "x" * 5000)


async def without_a_credential(world: World) -> list[str]:
    """UNAUTHENTICATED from all but signIn and refreshSession."""
    wrong = []
    arguments = probes.right(world)
    for token in BAD_TOKENS:
        documents = {n: (probes.mutation_document(n), arguments[n]) for n in probes.root("Mutation") if n not in OPEN}
        for name, one in probes.root("Query").items():
            given = {n: a for n, a in one.args.items() if is_required_argument(a)}
            some = " { __typename }" if is_composite_type(get_named_type(one.type)) else ""
            values: dict[str, Any] = {"id": world.ids["account"], "ids": [world.ids["account"]]}
            values |= {
                "number": "PR-0001",
                "search": "keys",
                "viewId": world.ids["view"],
                "url": world.requests["paid"]["checkoutUrl"],
            }
            values["input"] = {"conversationId": world.ids["conversation"], "channelId": world.ids["channel"]}
            document = f"query{probes.declared(given)} {{ {name}{probes.passed(given)}{some} }}"
            documents[name] = (document, {n: values[n] for n in given})
        for name, (document, variables) in documents.items():
            answer = await probes.ask(world.product, document, variables, token)
            codes = [e["extensions"]["code"] for e in answer.get("errors", [])]
            if codes != ["UNAUTHENTICATED"] or any((answer.get("data") or {}).values()):
                wrong.append(f"{token!r:.20} {name}: {answer}")
    for name, one in probes.root("Subscription").items():
        given = {n: a for n, a in one.args.items() if is_required_argument(a)}
        ids = {f"{kind}Id": world.ids[kind] for kind in ("conversation", "contact", "view")}
        document = f"subscription{probes.declared(given)} {{ {name}{probes.passed(given)} {{ __typename }} }}"
        code = await _refused_feed(world.product, document, {n: ids[n] for n in given})
        if code != "UNAUTHENTICATED":
            wrong.append(f"{name}: {code}")
    return wrong


async def _refused_feed(product: Product, document: str, variables: dict[str, Any]) -> str | None:
    """How a subscription over event streams is refused without a credential; sockets: test_sign_in."""
    headers = {"Accept": "text/event-stream"}
    body = {"query": document, "variables": variables}
    async with product.http.stream("POST", "/graphql", json=body, headers=headers) as answer:
        text = (await answer.aread()).decode()
    if answer.headers["content-type"].startswith("text/event-stream"):
        data = next(line for line in text.splitlines() if line.startswith("data:")).removeprefix("data:")
        return GraphQLFailed(json.loads(data)["errors"]).code
    return GraphQLFailed(json.loads(text)["errors"]).code


async def available_actions(world: World) -> None:
    """A request's available actions are those that the role may do."""
    document = "query($id: ID!) { paymentRequest(id: $id) { availableActions { action } } }"
    found = {}
    for role in ROLES:
        token = world.tokens[role]
        answer = await world.product.one(document, {"id": world.ids["draft"]}, token=token)
        found[role] = [a["action"] for a in answer["availableActions"]]
    everything = ["SEND", "COPY_LINK", "VOID", "RECORD_OUTSIDE_PAYMENT"]
    assert found == {"OWNER": everything, "ADMIN": everything, "AGENT": everything, "VIEWER": []}
    for role in ROLES:
        answer = await world.product.one(document, {"id": world.requests["paid"]["id"]}, token=world.tokens[role])
        found[role] = [a["action"] for a in answer["availableActions"]]
    assert found == {"OWNER": ["REFUND"], "ADMIN": ["REFUND"], "AGENT": [], "VIEWER": []}
