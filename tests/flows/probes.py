"""For the tests of bad input: the schema's arguments as a list, an account with every kind of object, and database snapshots.

It asserts nothing about responses; the tests do.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any
from uuid import UUID

import pytest
from argon2 import PasswordHasher
from graphql import (
    GraphQLArgument,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    build_schema,
    get_named_type,
    is_abstract_type,
    is_composite_type,
    is_input_object_type,
    is_list_type,
    is_non_null_type,
    is_required_argument,
    is_required_input_field,
)

from models import database
from models.ids import PREFIXES, parse_public_id, public_id, uuid7
from models.tables import Account, Conversation, Message, MoneyFact, PaymentRequest, RefreshToken
from models.vault import digest
from resolvers.assemble import build_schema as build_our_schema
from services.accounts import accounts, authentication, login, users
from services.sandbox import channels
from tests import factories
from tests.contracts.stripe_server import SECRET_KEY, WEBHOOK_SECRET
from tests.contracts.twilio_server import ACCOUNT_SID, AUTH_TOKEN, FROM_NUMBER
from tests.flows import documents as d
from tests.flows import harness
from tests.flows.conftest import Team
from tests.flows.harness import PASSWORD, Product, key

# These words are in every text of the viewer's account, and of the other one.
OURS, THEIRS = "Quokka", "Xylofoon"
ROLES = ("OWNER", "ADMIN", "AGENT", "VIEWER")
DUE = f"{datetime.now(UTC).year + 2}-01-01T00:00:00Z"  # a due date that is taken: neither past nor too far away


# ------------------------------------------------------------------------------------------------------------ schema
@cache
def schema() -> GraphQLSchema:
    """The schema, as clients get it."""
    return build_schema(build_our_schema(production=False).as_str())


def root(kind: str) -> Mapping[str, GraphQLField]:
    """The fields of Query, Mutation or Subscription."""
    found = schema().get_type(kind)
    assert isinstance(found, GraphQLObjectType)
    fields: Mapping[str, GraphQLField] = found.fields
    return fields


@dataclass(frozen=True)
class Leaf:
    """One value in an argument: `path` starts at the argument, as in input.amount.currency; list items have no index."""

    path: str
    type: str
    nullable: bool
    required: bool
    listed: bool = False

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]


VIEW_LIST = "ViewListInput"
LIST_PARTS = {"PaymentRequestFilter", "ConversationFilter", "PaymentRequestOrder", "ConversationOrder"}


def leaves(arguments: Mapping[str, GraphQLArgument]) -> Iterator[Leaf]:
    """Every scalar or enum value in the arguments of a field."""
    for name, argument in arguments.items():
        yield from _leaves(name, argument)


def _leaves(path: str, given: GraphQLArgument | GraphQLInputField, inside: tuple[str, ...] = ()) -> Iterator[Leaf]:
    kind = given.type
    named = get_named_type(kind)
    if is_input_object_type(named):
        assert isinstance(named, GraphQLInputObjectType)
        if named.name in inside:  # a filter in a filter takes the same
            return
        if VIEW_LIST in inside and named.name in LIST_PARTS:
            # The parts of lists are tried with the lists; of a view as a whole.
            yield Leaf(path, named.name, True, False, False)
            return
        for name, inner in named.fields.items():
            yield from _leaves(f"{path}.{name}", inner, (*inside, named.name))
    else:
        required = is_required_argument(given) if isinstance(given, GraphQLArgument) else is_required_input_field(given)
        yield Leaf(path, named.name, not is_non_null_type(kind), required, is_listed(kind))


def one_of_each(arguments: Mapping[str, GraphQLArgument]) -> list[set[str]]:
    """The paths of all leaves, once for each member of a @oneOf input."""
    chosen = {leaf.path: dict(_members(leaf.path, arguments)) for leaf in leaves(arguments)}
    inputs = {where for members in chosen.values() for where in members}
    options = [
        [(where, member) for member in sorted({members[where] for members in chosen.values() if where in members})]
        for where in sorted(inputs)
    ]
    return [
        {path for path, members in chosen.items() if members.items() <= dict(choice).items()}
        for choice in itertools.product(*options)
    ]


def _members(path: str, arguments: Mapping[str, GraphQLArgument]) -> Iterator[tuple[str, str]]:
    # The @oneOf inputs on the way to a leaf, and their members.
    fields: Any = arguments
    names = path.split(".")
    for n, name in enumerate(names[:-1]):
        kind = get_named_type(fields[name].type)
        assert isinstance(kind, GraphQLInputObjectType)
        if kind.is_one_of:
            yield ".".join(names[: n + 1]), names[n + 1]
        fields = kind.fields


def declared(arguments: Mapping[str, GraphQLArgument]) -> str:
    """`($input: SignInInput!)` and the like; empty without arguments."""
    return f"({', '.join(f'${name}: {argument.type}' for name, argument in arguments.items())})" if arguments else ""


def passed(arguments: Mapping[str, GraphQLArgument]) -> str:
    """`(input: $input)` and the like; empty without arguments."""
    return f"({', '.join(f'{name}: ${name}' for name in arguments)})" if arguments else ""


@cache
def mutation_document(name: str) -> str:
    """The mutation with its user errors and, of every object in its payload, the type and (if it has one) the id."""
    one = root("Mutation")[name]
    payload = get_named_type(one.type)
    assert isinstance(payload, GraphQLObjectType)
    parts = [_brief(child, of.type) for child, of in payload.fields.items() if child != "userErrors"]
    selection = " ".join([*parts, d.ERROR_FACTS])
    return f"mutation{declared(one.args)} {{ {name}{passed(one.args)} {{ {selection} }} }}"


def _brief(name: str, kind: Any) -> str:
    named = get_named_type(kind)
    if not is_composite_type(named):
        return name
    has_id = isinstance(named, GraphQLObjectType) and "id" in named.fields
    return f"{name} {{ __typename {'id' if has_id else ''} }}"


def selection(
    kind: Any,
    depth: int,
    seen: Callable[[str, str], None],
    others: Mapping[str, GraphQLField] | None = None,
    fragments: dict[str, str] | None = None,
) -> str:
    """Every field of a type that needs no argument, `depth` levels down; nodes below the first level by their ids only.

    `seen(type, field)` is called for each selected field. `others`: fields of other members of the same union; one of
    the same name and another type cannot be selected beside them. `fragments`: takes the selections of objects, by name.
    """
    named = get_named_type(kind)
    if isinstance(named, GraphQLUnionType) and depth == 0:
        parts = [f"... on {member.name} {{ {'id ' * ('id' in member.fields)}name }}" for member in named.types]
        for member in named.types:
            seen(member.name, "name")
        return "__typename " + " ".join(parts)
    if is_abstract_type(named):
        taken: dict[str, GraphQLField] = {}
        parts = []
        for member in schema().get_possible_types(named):
            parts.append(f"... on {member.name} {{ {selection(member, depth, seen, taken, fragments)} }}")
            taken = member.fields | taken
        return "__typename " + " ".join(parts)
    assert isinstance(named, GraphQLObjectType)
    parts = ["__typename"]
    for name, one in named.fields.items():
        if any(is_required_argument(a) for a in one.args.values()):
            continue
        if others and name in others and str(others[name].type) != str(one.type):
            continue
        child = get_named_type(one.type)
        if not is_composite_type(child):
            seen(named.name, name)
            parts.append(name)
        elif depth > 0:
            seen(named.name, name)
            few = "(first: 5)" if "first" in one.args else ""
            below = depth if name == "edge" else depth - 1  # an event's edge only adds a cursor
            text = selection(child, below, seen, None, fragments)
            if fragments is not None and isinstance(child, GraphQLObjectType):
                fragments[f"{child.name}{below}"] = f"fragment {child.name}{below} on {child.name} {{ {text} }}"
                text = f"...{child.name}{below}"
            parts.append(f"{name}{few} {{ {text} }}")
        elif "id" in getattr(child, "fields", {}):
            seen(named.name, name)
            parts.append(f"{name} {{ __typename id }}")
    return " ".join(parts)


def nested(path: str, value: Any, into: Mapping[str, Any], kind: Mapping[str, GraphQLArgument]) -> dict[str, Any]:
    """A copy of the arguments `into` with `value` at the path, which uses the first item of each list."""
    head, _, rest = path.partition(".")
    copy = dict(into)
    if not rest:
        copy[head] = value
        return copy
    inner = _nullable(kind[head].type)
    child = get_named_type(inner)
    assert isinstance(child, GraphQLInputObjectType)
    fields: Any = child.fields
    if is_list_type(inner):
        first = (copy.get(head) or [{}])[0]
        copy[head] = [nested(rest, value, first, fields)]
    elif child.is_one_of:
        member = rest.partition(".")[0]
        kept = {member: (copy.get(head) or {}).get(member, MEMBERS[child.name].get(member))}
        copy[head] = nested(rest, value, kept, fields)
    else:
        copy[head] = nested(rest, value, copy.get(head) or {}, fields)
    return copy


# Right values of the members of a @oneOf input that `right` does not choose.
MEMBERS: dict[str, dict[str, Any]] = {
    "PaymentRequestRecipientInput": {
        "newContact": {"name": "Nora", "addresses": [{"kind": "WEB_CHAT", "address": "nora"}]}
    },
    "ProcessorCredentialsInput": {
        "paypal": {"clientId": "A", "clientSecret": "B"},
        "square": {"accessToken": "A", "locationId": "L"},
        "custom": {"provider": "plug", "credentials": [{"name": "api_key", "value": "test_dHar4XY7LxsDOtmnkVtj"}]},
    },
    VIEW_LIST: {"conversations": {}},
}


def without(path: str, of: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the arguments without the value at the path (first item of a list)."""
    head, _, rest = path.partition(".")
    copy = dict(of)
    if not rest:
        copy.pop(head, None)
    elif isinstance(copy[head], list):
        copy[head] = [without(rest, copy[head][0])]
    else:
        copy[head] = without(rest, copy[head])
    return copy


def _nullable(kind: Any) -> Any:
    return kind.of_type if isinstance(kind, GraphQLNonNull) else kind


def is_listed(kind: Any) -> bool:
    """Whether a type is a list, null or not."""
    return isinstance(_nullable(kind), GraphQLList)


# ---------------------------------------------------------------------------------------------------------- database
# These change without input: the runner's clock, and a key's claim (deleted on a refusal).
_NOT_DATA = frozenset({"schema_migration", "event_pruning", "tick", "idempotency_key"})


@cache
def _sqlite_columns() -> dict[str, list[str]]:
    """Table to columns, filled by the first snapshot: the tables of a run do not change."""
    return {}


async def snapshot() -> dict[str, list[str]]:
    """Every row of every table as text, except the runner's clock, idempotency keys, and when an API key was last used."""
    if database.dialect() == "postgres":
        tables = await database.rows("SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'")
        shown = {row["name"]: "(to_jsonb(x) - 'last_used_at')::text" for row in tables}
    else:
        known = _sqlite_columns()
        if not known:
            for row in await database.rows(
                "SELECT m.name AS name, c.name AS field FROM sqlite_master m, pragma_table_info(m.name) c"
                " WHERE m.type = 'table' AND c.name <> 'last_used_at' AND m.name NOT LIKE 'search_word%'"
            ):
                known.setdefault(row["name"], []).append(row["field"])
        shown = {n: " || ', ' || ".join(f"'{c} ' || quote(x.{c})" for c in columns) for n, columns in known.items()}
    found: dict[str, list[str]] = {}
    for raw in await database.rows(
        " UNION ALL ".join(
            f"SELECT '{name}' AS name, {row} AS row FROM {name} x"  # noqa: S608 (only constants are put in)
            for name, row in sorted(shown.items())
            if name not in _NOT_DATA
        )
    ):
        found.setdefault(raw["name"], []).append(raw["row"])
    return {name: sorted(rows) for name, rows in found.items()}


def changed(before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> list[str]:
    """The tables whose rows differ, with the new rows."""
    names = sorted({*before, *after})
    return [f"{n}: {set(after.get(n, [])) - set(before.get(n, []))}" for n in names if before.get(n) != after.get(n)]


# ----------------------------------------------------------------------------------------------------------- answers
async def ask(product: Product, document: str, variables: Mapping[str, Any], token: str | None) -> dict[str, Any]:
    """The response of one operation with exactly this credential; lone surrogates are sent as JSON escapes."""
    headers = {"Accept": "application/json", "Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    body = json.dumps({"query": document, "variables": variables}).encode("ascii")
    answer = await product.http.post("/graphql", content=body, headers=headers)
    found: dict[str, Any] = answer.json()
    return found


def foreign_to(known: str) -> str:
    """An id of the same type that does not exist."""
    prefix = known.rpartition("_")[0]
    if prefix.startswith("cch_"):
        return f"{public_id('cch', uuid7())}_{public_id('x', uuid7()).partition('_')[2]}"
    if prefix.startswith("dash_"):
        return f"{public_id('dash', uuid7())}_{known.split('_', 2)[2]}"
    return public_id(prefix, uuid7())


def other_type(known: str) -> str:
    """The same row number under the prefix of another type."""
    prefix = known.rpartition("_")[0]
    row = parse_public_id(known, prefix)
    assert row is not None
    return public_id("cnt" if prefix != "cnt" else "cnv", row)


# ------------------------------------------------------------------------------------------------------------- house
# Input field or argument that takes an id -> the kind of object it wants, by the names of House.ids.
ID_KINDS = {
    "contactId": "contact",
    "conversationId": "conversation",
    "channelId": "channel",
    "paymentRequestId": "draft",
    "processorId": "processor",
    "paymentId": "payment",
    "tellContactOn": "channel",
    "userId": "user",
    "invitationId": "invitation",
    "sessionId": "session",
    "apiKeyId": "apiKey",
    "messageId": "lost",
    "mentions": "user",
    "mergedContactId": "twin",
    "viewId": "view",
}
assert set(PREFIXES) >= {"Contact", "Conversation", "Channel", "PaymentRequest", "Processor", "User", "ApiKey"}


@dataclass
class House:
    """An account with at least one object of every type. `ids`: one id per kind; `tokens`: a credential per role."""

    team: Team
    ids: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    requests: dict[str, dict[str, Any]] = field(default_factory=dict)
    contacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    cursors: dict[str, str] = field(default_factory=dict)

    @property
    def product(self) -> Product:
        return self.team.product


async def _parts(house: House, mark: str) -> dict[str, str]:
    """A refund, a dispute, a file and a note."""
    charge = await MoneyFact.get(id=row_id(house.ids["payment"]))
    refund = await factories.refund(charge, status="FAILED", failure_reason=f"Because of {mark}")
    copied = await PaymentRequest.get(id=row_id(house.requests["copied"]["id"]))
    dispute = await factories.money_fact(
        copied, kind="DISPUTE", external_id=f"dp_{mark}", outcome="PENDING", dispute_reason=f"{mark}", inquiry=True
    )
    file = await factories.attachment(await Message.get(id=row_id(house.ids["message"])), name=f"{mark}.pdf")
    note = await factories.note(await Conversation.get(id=row_id(house.ids["conversation"])), body=f"Note of {mark}")
    return {
        "note": public_id("note", note.id),
        "refund": public_id("rfd", refund.id),
        "dispute": public_id("dsp", dispute.id),
        "attachment": public_id("att", file.id),
    }


async def newcomer(product: Product, name: str) -> Team:
    """Another account on the same server: its owner is signed in, its agent is an API key."""
    email = f"owner-{harness.key()}@example.com"
    account, user = await accounts.create_account(
        name=name, currency="USD", email=email, password=PASSWORD, user_name=f"{name} owner"
    )
    owner = await product.sign_in(email)
    team = Team(product=product, account_id=str(account.id), owner=owner, agent="", agent_id=str(user.id))
    team.agent = await api_key(team, "AGENT")
    return team


async def api_key(team: Team, role: str) -> str:
    """The secret of a new API key."""
    return str((await new_key(team, role))["secret"])


async def new_key(team: Team, role: str) -> Any:
    """createApiKey's payload."""
    return await team.product.ok(
        "mutation($input: CreateApiKeyInput!) { createApiKey(input: $input) { secret apiKey { id } "
        f"{d.ERRORS} }} }}",
        {"name": f"for {role}", "role": role},
        token=team.owner,
    )


async def view(team: Team, name: str, kind: str = "paymentRequests") -> str:
    """The id of a new shared view."""
    payload = await team.product.ok(
        f"mutation($input: CreateViewInput!) {{ createView(input: $input) {{ view {{ id }} {d.ERRORS} }} }}",
        {"name": name, "list": {kind: {}}, "shared": True},
        token=team.owner,
    )
    return str(payload["view"]["id"])


async def furnish(team: Team, *, mark: str) -> House:
    """Sandbox, channels, two contacts, requests in several states, a paid one with card and notification. `mark` is in every text."""
    house = House(team)
    house.tokens = {"OWNER": team.owner, **{role: await api_key(team, role) for role in ROLES[1:]}}
    await team.connect_sandbox()
    await team.connect_channels()
    maria, ben = await team.contact(f"Maria {mark}"), await team.contact(f"Ben {mark}", 2)
    house.contacts = {"maria": maria, "ben": ben}
    names = {"productName": f"Clean {mark}", "description": f"About {mark}"}
    for name in ("draft", "draft2", "draft3", "sent", "paid", "void", "copied"):
        house.requests[name] = await team.request(maria, **names)
    for name in ("sent", "paid", "void"):
        await team.send(house.requests[name])
    follow = f"mutation($input: FollowConversationInput!) {{ followConversation(input: $input) {{ {d.ERRORS} }} }}"
    told = {"conversationId": maria["conversation"]["id"], "following": True}
    await team.product.ok(follow, told, token=team.owner)
    await team.pay(house.requests["paid"])
    await team.product.ok(d.VOID, {"paymentRequestId": house.requests["void"]["id"], "reason": mark}, token=team.agent)
    await team.product.ok(d.COPIED, {"paymentRequestId": house.requests["copied"]["id"]}, token=team.agent)
    house.requests["ben"] = await team.request(ben, **names)
    await writes(team, "SMS", "+14155552601", f"Hello from {mark}")

    lost = await lose(team, maria)
    key = await new_key(team, "VIEWER")
    seen = await team.product.gql(
        """query($c: ID!, $p: ID!, $maria: ID!) {
          viewer { id user { id } } dashboard { id }
          account { id users(first: 1) { edges { cursor } } apiKeys(first: 1) { edges { cursor } } }
          conversation(id: $c) { channels { id } eventCursor thread(first: 100) { edges { cursor } nodes { __typename id } } }
          paymentRequest(id: $p) { payments { id } }
          contacts(first: 1) { edges { cursor } }
          contact(id: $maria) { payments(first: 1) { edges { cursor } } }
          conversations(first: 1) { edges { cursor } }
          paymentRequests(first: 1) { edges { cursor } }
          notifications(first: 1) { edges { cursor node { id } } }
          messages(search: "a", first: 1) { edges { cursor } }
        }""",
        {"c": maria["conversation"]["id"], "p": house.requests["paid"]["id"], "maria": maria["id"]},
        token=team.owner,
    )
    owner = await authentication.authenticate(team.owner)
    assert owner is not None
    mate = await users.add(
        owner, email=f"{harness.key()}@example.com", name=f"Mate {mark}", role="AGENT", password=PASSWORD
    )
    invitation, _ = await invite(team, f"Nora {mark}")
    views = {
        "view": await view(team, f"Requests {mark}"),
        "conversationView": await view(team, f"Conversations {mark}", "conversations"),
    }
    listed = await team.product.gql(
        "{ account { invitations(first: 1) { edges { cursor } } } views(first: 1) { edges { cursor } } }",
        token=team.owner,
    )
    session = (await team.product.one("{ viewer { sessions { id } } }", token=team.owner))["sessions"][0]["id"]
    thread = seen["conversation"]["thread"]
    by_type = {item["__typename"]: item["id"] for item in thread["nodes"] if item["id"] != lost}
    house.ids = {
        "account": seen["account"]["id"],
        "user": seen["viewer"]["user"]["id"],
        "viewer": seen["viewer"]["id"],
        "dashboard": seen["dashboard"]["id"],
        "mate": public_id("usr", mate.id),
        "invitation": invitation,
        **views,
        "session": session,
        "apiKey": key["apiKey"]["id"],
        "contact": maria["id"],
        "twin": ben["id"],
        "conversation": maria["conversation"]["id"],
        "conversationChannel": seen["conversation"]["channels"][0]["id"],
        "channel": team.channels["SMS"],
        "processor": team.processor["id"],
        "draft": house.requests["draft"]["id"],
        "payment": seen["paymentRequest"]["payments"][0]["id"],
        "message": by_type["Message"],
        "lost": lost,
        "card": by_type["ActivityCard"],
        "notification": seen["notifications"]["edges"][0]["node"]["id"],
    }
    house.ids |= await _parts(house, mark)
    house.cursors = {
        "event": seen["conversation"]["eventCursor"],
        "thread": thread["edges"][0]["cursor"],
        "contacts": seen["contacts"]["edges"][0]["cursor"],
        "users": seen["account"]["users"]["edges"][0]["cursor"],
        "apiKeys": seen["account"]["apiKeys"]["edges"][0]["cursor"],
        "payments": seen["contact"]["payments"]["edges"][0]["cursor"],
        "conversations": seen["conversations"]["edges"][0]["cursor"],
        "paymentRequests": seen["paymentRequests"]["edges"][0]["cursor"],
        "notifications": seen["notifications"]["edges"][0]["cursor"],
        "messages": seen["messages"]["edges"][0]["cursor"],
        "invitations": listed["account"]["invitations"]["edges"][0]["cursor"],
        "views": listed["views"]["edges"][0]["cursor"],
    }
    return house


async def invite(team: Team, name: str) -> tuple[str, str]:
    """The id and the token of a new invitation."""
    token = f"invitation {harness.key()}"
    account = await Account.get(id=team.account_id)
    row = await factories.invitation(account, name=name, email=f"{harness.key()}@example.com", token_hash=digest(token))
    return public_id("inv", row.id), token


async def link(team: Team, purpose: str) -> str:
    """The token of an emailed link of a new user."""
    token, email = f"link {harness.key()}", f"{harness.key()}@example.com"
    user = await factories.user(await Account.get(id=team.account_id), email=f"{harness.key()}@example.com")
    await factories.user_token(user, purpose, token_hash=digest(token), email=email)
    return token


async def lose(team: Team, contact: dict[str, Any]) -> str:
    """The id of a message whose send got no answer from the vendor."""
    given = {"conversationId": contact["conversation"]["id"], "channelId": team.channels["SMS"], "body": "Lost?"}
    sent = await team.product.ok(d.SEND_MESSAGE, {"idempotencyKey": harness.key(), **given}, token=team.agent)
    lost = str(sent["message"]["id"])
    await Message.filter(id=row_id(lost)).update(delivery_status="UNKNOWN", sending_at=datetime.now(UTC))
    return lost


def row_id(public: str) -> UUID:
    """The row behind a public id."""
    found = parse_public_id(public, public.rpartition("_")[0])
    assert found is not None
    return found


async def writes(team: Team, kind: str, sender: str, body: str) -> None:
    """Receive a contact's message on the simulated channel of this kind."""
    await channels.contact_writes(row_id(team.channels[kind]), sender, body)


# ------------------------------------------------------------------------------------------------------------- world
def hash_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash with the cheapest parameters: a world signs in seven times."""
    monkeypatch.setattr(login, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@dataclass
class World(House):
    """A furnished account, a second account, and the objects that mutations consume or refuse."""

    other: House = field(kw_only=True)
    email: str = ""
    refresh_token: str = ""
    stripe: str = ""
    off: dict[str, str] = field(default_factory=dict)  # channels: disconnected, outside their window …
    used_key: str = ""
    by_hand: str = ""  # a payment that was recorded by hand
    invitation_token: str = ""
    reset_token: str = ""
    email_token: str = ""
    twin: str = ""  # the name of the contact that `right` merges


def right(w: World) -> dict[str, dict[str, Any]]:
    """Valid arguments for each mutation, in an order in which all of them can run."""
    request = {name: row["id"] for name, row in w.requests.items()}
    maria = w.ids["conversation"]
    found: dict[str, dict[str, Any]] = {
        "createApiKey": {"name": "Till", "role": "AGENT"},
        "createPaymentRequest": {
            "idempotencyKey": key(),
            "for": {"contactId": w.ids["contact"]},
            "channelId": w.ids["channel"],
            "productName": "Deep clean",
            "amount": {"amount": "120.00", "currency": "USD"},
            "description": "All rooms",
            "dueAt": DUE,
            "processorKind": "SANDBOX",
        },
        "sendPaymentRequest": {
            "idempotencyKey": key(),
            "paymentRequestId": request["draft"],
            "channelId": w.ids["channel"],
            "body": "Please: {link}",
        },
        "sendMessage": {
            "idempotencyKey": key(),
            "conversationId": maria,
            "channelId": w.ids["channel"],
            "body": "Hello",
            "subject": "About",
        },
        "resendMessage": {
            "idempotencyKey": key(),
            "messageId": w.ids["lost"],
            "channelId": w.ids["channel"],
            "confirmPossibleDuplicate": True,
        },
        "refundPayment": {
            "idempotencyKey": key(),
            "paymentId": w.ids["payment"],
            "amount": "1.00",
            "reason": "SERVICE_PROBLEM",
            "tellContactOn": w.ids["channel"],
        },
        "recordOutsidePayment": {
            "idempotencyKey": key(),
            "paymentRequestId": request["outside"],
            "method": "CHEQUE",
            "amount": "1.00",
            "note": "At the door",
            "receivedAt": "2026-01-02T03:04:05Z",
        },
        "undoOutsidePayment": {"paymentId": w.by_hand},
        "releasePaymentLink": {"idempotencyKey": key(), "paymentRequestId": request["held"]},
        "resolveMismatch": {
            "idempotencyKey": key(),
            "paymentRequestId": request["mismatched"],
            "resolution": "ACCEPT_AS_PAID",
        },
        "runSandboxScenario": {"paymentRequestId": request["draft2"], "scenario": "DECLINED", "seed": 7},
        "recordLinkCopied": {"paymentRequestId": request["draft2"]},
        "discardPaymentRequest": {"paymentRequestId": request["draft3"]},
        "voidPaymentRequest": {
            "paymentRequestId": request["partly"],
            "reason": "Cancelled",
            "expectedVersion": w.requests["partly"]["version"],
            "confirmPartiallyPaid": True,
        },
        "markConversationRead": {"conversationId": maria},
        "closeConversation": {"conversationId": maria},
        "reopenConversation": {"conversationId": maria},
        "assignConversation": {"conversationId": maria, "userId": w.ids["user"]},
        "followConversation": {"conversationId": maria, "following": False},
        "saveDraft": {"conversationId": maria, "text": "Hi"},
        "addNote": {"idempotencyKey": key(), "conversationId": maria, "body": "Ask Ben", "mentions": [w.ids["user"]]},
        "updateConversationTags": {"conversationId": maria, "add": ["VIP"], "remove": ["new"]},
        "updateContactTags": {"contactId": w.ids["contact"], "add": ["VIP"], "remove": ["new"]},
        "createContact": {
            "name": "Zoe",
            "email": "zoe@example.com",
            "phone": "+14155550177",
            "addresses": [{"kind": "WEB_CHAT", "address": "zoe"}],
        },
        "updateContact": {
            "contactId": w.ids["contact"],
            "name": "Maria",
            "email": "maria@example.com",
            "phone": "+14155550178",
            "addresses": [{"kind": "WEB_CHAT", "address": "maria"}],
        },
        "mergeContacts": {
            "idempotencyKey": key(),
            "contactId": w.ids["contact"],
            "mergedContactId": w.ids["twin"],
            "addresses": [{"kind": "EMAIL", "address": f"{w.twin}@example.com"}],
        },
        "updateAccount": {
            "name": "Acme",
            "defaultCurrency": "EUR",
            "locale": "de-DE",
            "timeZone": "Europe/Berlin",
            "contactEmail": "desk@example.com",
            "contactPhone": "+14155550179",
            "linkMessageTemplate": "Pay {amount}: {link}",
            "numberPrefix": "A-",
        },
        "configureProcessor": {
            "processorId": w.stripe,
            "credentials": {"stripe": {"secretKey": SECRET_KEY, "webhookSecret": WEBHOOK_SECRET, "account": ""}},
            "displayName": "Cards",
            "testMode": True,
            "makeDefault": False,
        },
        "connectChannel": {
            "kind": "SMS",
            "provider": "twilio_sms",
            "channelId": w.off["twilio"],
            "displayName": "Texts",
            "sender": FROM_NUMBER,
            "credentials": [{"name": "auth_token", "value": AUTH_TOKEN}],
            "allowedOrigins": [],
        },
        "testProcessor": {"processorId": w.stripe},
        "testChannel": {"channelId": w.off["twilio"]},
        "rotateIdentitySecret": {"channelId": w.off["widget"]},
        "disconnectProcessor": {"processorId": w.stripe},
        "disconnectChannel": {"channelId": w.off["twilio"]},
        "revokeApiKey": {"apiKeyId": w.ids["apiKey"]},
        "inviteUser": {"idempotencyKey": key(), "email": f"{key()}@example.com", "name": "Nora", "role": "AGENT"},
        "resendInvitation": {"invitationId": w.ids["invitation"]},
        "revokeInvitation": {"invitationId": w.ids["invitation"]},
        "acceptInvitation": {"token": w.invitation_token, "name": "Nora", "password": PASSWORD},
        "createView": {
            "idempotencyKey": key(),
            "name": "Paid",
            "list": {"paymentRequests": {"filter": {"contactIds": [w.ids["contact"]]}}},
            "shared": True,
        },
        "updateView": {
            "viewId": w.ids["view"],
            "name": key(),
            "list": {"paymentRequests": {"filter": {"overdue": True}}},
        },
        "deleteView": {"viewId": w.ids["view"]},
        "updateUser": {"userId": w.ids["mate"], "name": "Mate", "role": "VIEWER"},
        "disableUser": {"userId": w.ids["mate"]},
        "enableUser": {"userId": w.ids["mate"]},
        "signIn": {"email": w.email, "password": PASSWORD},
        "markNotificationsRead": {"upTo": w.cursors["event"]},
        "updateNotificationRules": {
            "rules": [{"topic": "PAYMENTS", "scope": "ALL", "byEmail": False}],
            "digest": "OFF",
            "quietHours": {"from": "20:00", "until": "07:30"},
        },
        "refreshSession": {"refreshToken": w.refresh_token},
        "revokeSession": {"sessionId": w.ids["session"]},
        "changePassword": {"currentPassword": PASSWORD, "newPassword": PASSWORD},
        "updateProfile": {"name": "Olga", "locale": "de-DE", "timeZone": "Europe/Berlin"},
        "requestPasswordReset": {"email": w.email},
        "resetPassword": {"token": w.reset_token, "password": PASSWORD},
        "requestEmailChange": {"email": f"{key()}@example.com", "password": PASSWORD},
        "confirmEmailChange": {"token": w.email_token},
        "signOut": {"refreshToken": w.refresh_token, "everywhere": False},
    }
    last = found.pop("signOut")
    arguments = {name: {"input": value} for name, value in found.items()}
    return {**arguments, "signOut": {"input": last}}


async def world(bare: Team) -> World:
    """Two furnished accounts, and one object for each refusal.

    The server's STRIPE_API_BASE and TWILIO_API_BASE must point at contract servers; its job runner must be off.
    """
    product = bare.product
    house = await furnish(bare, mark=OURS)
    other = await furnish(await newcomer(product, THEIRS), mark=THEIRS)
    w = World(bare, house.ids, house.tokens, house.requests, house.contacts, house.cursors, other=other)
    w.contacts["carl"] = await _contact(bare, "Carl", "+14155552603")
    w.contacts["dora"] = await _contact(bare, "Dora", None)
    await writes(bare, "SMS", "+14155552603", "STOP")
    for name in ("carl", "dora", "discarded", "processing", "outside"):
        w.requests[name] = await bare.request(w.contacts.get(name, w.contacts["maria"]))
    await product.ok(d.DISCARD, {"paymentRequestId": w.requests["discarded"]["id"]}, token=bare.agent)
    await bare.send(w.requests["processing"])
    await bare.pay(w.requests["processing"], "Pay later (succeeds)")
    assert (await bare.read(w.requests["processing"]))["status"] == "PROCESSING"

    w.off = {kind: bare.channels[kind] for kind in ("WHATSAPP", "MESSENGER", "WEB_CHAT")}
    # Instagram's window is open, so that its limit in bytes is what refuses.
    await writes(bare, "INSTAGRAM_DM", "ig-1", "Hi")
    w.off["INSTAGRAM_DM"] = bare.channels["INSTAGRAM_DM"]
    w.off["disconnected"] = await _channel(bare, {"kind": "SMS", "provider": "simulated"})
    await product.ok(d.DISCONNECT_CHANNEL, {"channelId": w.off["disconnected"]}, token=bare.owner)
    named = {"account_sid": ACCOUNT_SID, "auth_token": AUTH_TOKEN, "from_number": FROM_NUMBER}
    credentials = [{"name": name, "value": value} for name, value in named.items()]
    w.off["widget"] = await _channel(bare, {"kind": "WEB_CHAT", "provider": "web_chat"})
    w.off["twilio"] = await _channel(bare, {"kind": "SMS", "provider": "twilio_sms", "credentials": credentials})
    keys = {"stripe": {"secretKey": SECRET_KEY, "webhookSecret": WEBHOOK_SECRET}}
    connected = await product.ok(d.CONFIGURE_PROCESSOR, {"credentials": keys}, token=bare.owner)
    w.stripe = connected["processor"]["id"]

    w.used_key = key()
    await bare.request(w.contacts["ben"], idempotencyKey=w.used_key)
    await bare.send(w.requests["ben"], "EMAIL", idempotencyKey=w.used_key)
    said = {"conversationId": w.ids["conversation"], "channelId": w.ids["channel"], "body": "Other"}
    await product.ok(d.SEND_MESSAGE, {"idempotencyKey": w.used_key, **said}, token=bare.agent)
    again: dict[str, Any] = {"idempotencyKey": w.used_key, "messageId": await lose(bare, w.contacts["maria"])}
    again |= {"channelId": w.ids["channel"], "confirmPossibleDuplicate": True}
    await product.ok(d.RESEND, again, token=bare.agent)
    back = {"idempotencyKey": w.used_key, "paymentId": w.ids["payment"], "amount": "0.50", "reason": "OTHER"}
    await product.ok(d.REFUND, back, token=bare.owner)
    cash = {"idempotencyKey": w.used_key, "paymentRequestId": w.requests["outside"]["id"], "method": "CASH"}
    recorded = await product.ok(d.RECORD_OUTSIDE, {**cash, "amount": "2.00"}, token=bare.agent)
    w.by_hand = recorded["payment"]["id"]
    decided = await mismatched(bare, w.contacts["maria"])
    resolved = {"idempotencyKey": w.used_key, "paymentRequestId": decided["id"], "resolution": "ACCEPT_AS_PART"}
    await product.ok(d.RESOLVE, resolved, token=bare.agent)
    pair = [(await _contact(bare, name, None))["id"] for name in ("Eve", "Eva")]
    await product.ok(
        f"mutation($input: MergeContactsInput!) {{ mergeContacts(input: $input) {{ {d.ERRORS} }} }}",
        {"idempotencyKey": w.used_key, "contactId": pair[0], "mergedContactId": pair[1]},
        token=bare.agent,
    )

    held = {"idempotencyKey": w.used_key, "paymentRequestId": (await _held(w))["id"]}
    await product.ok(d.RELEASE, held, token=bare.agent)

    w.email = (await product.one("{ viewer { user { email } } }", token=bare.owner))["user"]["email"]
    await refill(w)
    return w


async def refill(w: World) -> None:
    """Replace what `right` consumes: a session, a draft to discard, requests to void and to release, a lost message, a key."""
    session = await w.product.ok(
        f"mutation($input: SignInInput!) {{ signIn(input: $input) {{ refreshToken {d.ERRORS} }} }}",
        {"email": w.email, "password": PASSWORD},
    )
    w.refresh_token = session["refreshToken"]
    signed_in = await RefreshToken.get(token_hash=digest(w.refresh_token))
    w.ids["session"] = public_id("ses", signed_in.family_id)
    for name in ("draft3", "partly"):
        w.requests[name] = await w.team.request(w.contacts["maria"])
    w.requests["held"] = await _held(w)
    # No processor of this release pays in parts: only the status matters here.
    partly = PaymentRequest.filter(id=row_id(w.requests["partly"]["id"]))
    await partly.update(status="PARTIALLY_PAID")
    w.requests["mismatched"] = await mismatched(w.team, w.contacts["maria"])
    w.ids["lost"] = await lose(w.team, w.contacts["maria"])
    w.twin = f"twin-{key()[:8]}"
    twin = await w.product.ok(d.CREATE_CONTACT, {"name": w.twin, "email": f"{w.twin}@example.com"}, token=w.team.agent)
    w.ids["twin"] = twin["contact"]["id"]
    w.ids["apiKey"] = (await new_key(w.team, "VIEWER"))["apiKey"]["id"]
    w.ids["view"] = await view(w.team, "Refilled")
    w.ids["invitation"], _ = await invite(w.team, "Nora")
    _, w.invitation_token = await invite(w.team, "Nora")
    w.reset_token, w.email_token = await link(w.team, "PASSWORD_RESET"), await link(w.team, "EMAIL_CHANGE")


async def _held(w: World) -> dict[str, Any]:
    """A request whose link a voucher holds."""
    request = await w.team.request(w.contacts["maria"])
    await w.team.pay(request, "Take a voucher")
    return request


async def mismatched(team: Team, contact: dict[str, Any]) -> dict[str, Any]:
    """A request of 120.00 for which 1.00 came."""
    request = await team.request(contact)
    await team.send(request)
    row = await PaymentRequest.get(id=row_id(request["id"]))
    await factories.money_fact(row, amount_minor=100, counted=False)
    await PaymentRequest.filter(id=row.id).update(unresolved=True)
    return request


async def _contact(team: Team, name: str, phone: str | None) -> dict[str, Any]:
    payload = await team.product.ok(d.CREATE_CONTACT, {"name": name, "phone": phone}, token=team.agent)
    contact: dict[str, Any] = payload["contact"]
    return contact


async def _channel(team: Team, given: dict[str, Any]) -> str:
    return str((await team.product.ok(d.CONNECT_CHANNEL, given, token=team.owner))["channel"]["id"])
