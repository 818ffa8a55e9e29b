"""Plans: generated operations have the stock executor's answers, byte for byte; statements do not grow with the page."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from unittest import mock

import orjson
import pytest
from graphql import (
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLUnionType,
    get_named_type,
    is_leaf_type,
    is_required_argument,
)

from models import database, tables
from models.ids import public_id, uuid7
from resolvers.plans.objects import OBJECTS
from resolvers.plans.plans import VARIANTS
from resolvers.plans.types import TYPES
from resolvers.transport.documents import LONGEST_CACHED
from services.core.actors import ActorRef
from tests import factories
from tests.schema.conftest import EXECUTOR, SCHEMA, Api
from tests.services.conftest import Team

ROUNDS = 250
FIELDS: dict[str, Any] = {**{name: found.fields for name, found in TYPES.items()}, **OBJECTS}
PLANNED_TYPES = {*FIELDS, "SystemActor", "Money", "PageInfo", "PaymentAttempt", "ThreadItem", "Node"}


FILTERS = {
    "paymentRequests": (
        "{status: [DRAFT, PAID]}",
        "{overdue: true}",
        "{status: []}",
        '{or: [{search: "ada"}, {amount: {currency: "USD", minimum: "1"}}]}',
        '{not: {tags: ["customer"], dueAt: {}}, assigneeIds: [null]}',
    ),
    "conversations": (
        "{closed: true}",
        "{closed: null}",
        '{search: "ada"}',
        "{or: [{unread: true}, {assigneeIds: [null]}], not: {channelKinds: [EMAIL]}}",
        '{waitingSince: {until: "2100-01-01T00:00:00Z"}}',
        "{hasOpenRequest: true}",
    ),
    "contacts": ('{search: "ada"}', '{search: "x"}', '{tags: ["customer"]}', "{not: {hasOpenRequest: true}}"),
}
ORDERS = {
    "paymentRequests": ("CREATED_AT", "UPDATED_AT", "DUE_AT", "PAID_AT", "AMOUNT_DUE"),
    "conversations": ("LAST_ACTIVITY_AT", "CREATED_AT", "WAITING_SINCE"),
    "contacts": ("CREATED_AT", "UPDATED_AT", "NAME"),
}


@dataclass
class Generated:
    """A random query. Most of its fields have readers; some have none, and then the stock executor answers."""

    chance: random.Random
    ids: dict[str, list[str]]
    variables: dict[str, tuple[str, Any]] = field(default_factory=dict)
    fragments: list[str] = field(default_factory=list)

    def document(self) -> tuple[str, dict[str, Any]]:
        roots = self.chance.choices(
            ["conversation", "contact", "paymentRequest", "conversations", "contacts", "paymentRequests"],
            k=self.chance.choice((1, 1, 1, 2)),
        )
        query = SCHEMA._schema.query_type
        assert query is not None
        body = " ".join(f"r{n}: {self._field(query, name, 0)}" for n, name in enumerate(roots))
        declared = ", ".join(f"${name}: {kind}" for name, (kind, _) in self.variables.items())
        head = f"query Generated({declared})" if declared else "query Generated"
        values = {name: value for name, (_, value) in self.variables.items()}
        return " ".join([f"{head} {{ {body} }}", *self.fragments]), values

    def _variable(self, kind: str, value: Any) -> str:
        name = f"v{len(self.variables)}"
        self.variables[name] = (kind, value)
        return f"${name}"

    def _arguments(self, name: str, takes: set[str]) -> str:
        given = []
        if name in self.ids and "id" in takes:
            id = self.chance.choice(self.ids[name])
            given.append(
                f"id: {self._variable('ID!', id) if self.chance.random() < 0.7 else orjson.dumps(id).decode()}"
            )
        if "first" in takes and self.chance.random() < 0.6:
            count = self.chance.choice((1, 2, 5, 100))
            which = self.chance.choice(("first", "last"))
            given.append(f"{which}: {self._variable('Int', count) if self.chance.random() < 0.5 else count}")
        if "filter" in takes and self.chance.random() < 0.4:
            given.append(f"filter: {self.chance.choice(FILTERS[name])}")
        if "orderBy" in takes and self.chance.random() < 0.4:
            direction = self.chance.choice(("ASC", "DESC"))
            given.append(f"orderBy: {{field: {self.chance.choice(ORDERS[name])}, direction: {direction}}}")
        return f"({', '.join(given)})" if given else ""

    def _condition(self) -> str:
        if self.chance.random() > 0.1:
            return ""
        kind = self.chance.choice(("skip", "include"))
        value = self.chance.random() < 0.5
        given = self._variable("Boolean!", value) if self.chance.random() < 0.5 else str(value).lower()
        return f" @{kind}(if: {given})"

    def _field(self, parent: GraphQLObjectType | GraphQLInterfaceType, name: str, depth: int) -> str:
        definition = parent.fields[name]
        named = get_named_type(definition.type)
        text = name + self._arguments(name, set(definition.args)) + self._condition()
        return text if is_leaf_type(named) else f"{text} {{ {self._selection(named, depth + 1)} }}"

    def _selection(self, named: Any, depth: int) -> str:
        if isinstance(named, GraphQLUnionType):
            members = [member for member in named.types if self.chance.random() < 0.7]
            taken: dict[str, Any] = {}
            parts = ["__typename"]
            for member in members:
                # Fields of one name and different types exclude each other.
                own = {name: one for name, one in member.fields.items() if taken.get(name, one.type) == one.type}
                name = self.chance.choice(["id", *(n for n in own if self._may(member, n, own[n], depth))])
                name = name if name in own else "name"
                taken[name] = member.fields[name].type
                parts.append(f"... on {member.name} {{ {self._field(member, name, depth)} }}")
            return " ".join(parts)
        fields = [name for name, found in named.fields.items() if self._may(named, name, found, depth)]
        chosen = self.chance.sample(fields, k=min(len(fields), self.chance.randint(1, 8)))
        parts = ["__typename"] if self.chance.random() < 0.3 or not chosen else []
        for number, name in enumerate(chosen):
            alias = f"a{number}: " if self.chance.random() < 0.2 else ""
            parts.append(alias + self._field(named, name, depth))
        if isinstance(named, GraphQLInterfaceType):
            for concrete in SCHEMA._schema.get_possible_types(named):
                if named.name == "ThreadItem" and self.chance.random() < 0.8:
                    parts.append(f"... on {concrete.name} {{ {self._selection(concrete, depth)} }}")
        text = " ".join(parts)
        if self.chance.random() < 0.15:
            name = f"F{len(self.fragments)}"
            self.fragments.append(f"fragment {name} on {named.name} {{ {text} }}")
            return f"...{name}"
        return text

    def _may(self, parent: Any, name: str, found: Any, depth: int) -> bool:
        if any(is_required_argument(argument) for argument in found.args.values()):
            return False
        if depth > 5 and not is_leaf_type(get_named_type(found.type)):
            return False
        known = parent.name.endswith(("Connection", "Edge")) or parent.name in PLANNED_TYPES
        return known and (parent.name not in FIELDS or name in FIELDS[parent.name] or self.chance.random() < 0.02)


@pytest.fixture
async def ids(team: Team) -> dict[str, list[str]]:
    """An account with a bit of everything."""
    chance = random.Random(7)
    now = factories.now()
    key = await factories.api_key(team.account, "ptk_some_key_that_is_long")
    actors = [
        None,
        team.agent.ref.stored(),
        ActorRef("API_KEY", key.id).stored(),
        ActorRef("CONTACT", team.contact.id).stored(),
        ActorRef("USER", uuid7()).stored(),
        "processor:Stripe",
        "system:Paythread",
    ]
    contacts, conversations, requests = [team.contact], [team.conversation], []
    for n in range(4):
        contact = await factories.contact(team.account, name=f"Ada {n}", tags=["customer"], phone="+14155550101")
        await factories.contact_address(contact, last_inbound_at=now)
        contacts.append(contact)
        conversations.append(
            await factories.conversation(
                contact,
                assignee_id=team.owner.user_id if n % 2 else None,
                closed_at=now if n == 3 else None,
                draft="Hi" if n else None,
            )
        )
    for n in range(24):
        contact, conversation = chance.choice(list(zip(contacts, conversations, strict=True)))
        request = await factories.payment_request(
            contact,
            conversation_id=conversation.id,
            processor_connection_id=team.processor.id,
            status=chance.choice(["DRAFT", "SENT", "PAID", "VOID"]),
            currency=chance.choice(["USD", "JPY", "KWD"]),
            amount_minor=chance.randint(1, 10**9),
            due_at=chance.choice([None, now - timedelta(days=1), now + timedelta(days=1)]),
            sent_via=chance.choice([None, "MESSAGE"]),
            last_attempt_status=chance.choice([None, "FAILED"]),
            last_attempt_at=now,
            discarded_at=now if n == 5 else None,
            created_by=chance.choice(actors),
            created_by_id=chance.choice([None, team.owner.user_id]),
            void_requested_by=chance.choice(actors),
            void_requested_at=chance.choice([None, now]),
        )
        requests.append(request)
        message = await factories.message(
            conversation,
            direction=chance.choice(["INBOUND", "OUTBOUND"]),
            delivery_status=chance.choice(["SENDING", "DELIVERED", "FAILED"]),
            body=chance.choice(['Say "hi"', "Grüße 👋\n", "plain"]),
            cc=chance.choice([None, ["b@example.test"]]),
            author=chance.choice(actors),
            author_id=chance.choice([None, team.owner.user_id]),
            author_name=chance.choice([None, "Meta inbox"]),
        )
        fact = None
        if n % 3 == 0:
            fact = await factories.money_fact(
                request,
                outcome=chance.choice(["SUCCEEDED", "FAILED", "PENDING"]),
                fee_minor=chance.choice([None, 7]),
                recorded_by=chance.choice(actors),
                processor_connection_id=chance.choice([None, team.processor.id]),
            )
            await factories.attachment(message, n=1, name=f"{n}.pdf")
            if fact.processor_connection_id is not None:
                await factories.refund(fact, requested_by=chance.choice(actors))
                for kind in ("REFUND", "DISPUTE"):
                    of_charge = {"charge_external_id": fact.external_id, "dispute_reason": "fraudulent"}
                    await factories.money_fact(request, kind=kind, outcome="PENDING", **of_charge)
        if n % 2:
            await tables.MessagePaymentRequest.create(
                account_id=team.account.id, message_id=message.id, payment_request_id=request.id
            )
        if n % 2:
            agent = await tables.User.get(id=team.agent.user_id)
            mentions = chance.choice([[], [agent]])
            await factories.note(
                conversation, author=chance.choice([actor for actor in actors if actor]), mentions=mentions
            )
        await factories.activity_card(
            request,
            actor_id=chance.choice([None, team.agent.user_id]),
            actor=chance.choice(actors),
            message_id=chance.choice([None, message.id]),
            money_fact_id=fact.id if fact is not None else None,
        )
    for contact in contacts[:3]:
        for currency, test_mode in (("USD", False), ("USD", True), ("JPY", False)):
            await tables.ContactSummary.create(
                account_id=team.account.id, contact_id=contact.id, currency=currency, test_mode=test_mode, paid_minor=5
            )
    return {
        "conversation": [*(public_id("cnv", row.id) for row in conversations), "cnv_nonsense", ""],
        "contact": [*(public_id("cnt", row.id) for row in contacts), public_id("cnt", requests[0].id)],
        "paymentRequest": [public_id("pr", row.id) for row in requests],
    }


async def test_generated_operations_have_the_stock_answers(
    api: Api, ids: dict[str, list[str]], planned: list[str]
) -> None:
    for seed in range(ROUNDS):
        document, variables = Generated(random.Random(seed), ids).document()
        result = await api.result(document, variables)
        plans, EXECUTOR.plans = EXECUTOR.plans, None
        try:
            stock = await api.result(document, variables)
        finally:
            EXECUTOR.plans = plans
        assert orjson.dumps(result.data) == orjson.dumps(stock.data), (seed, document, variables)
        assert [error.message for error in result.errors or ()] == [error.message for error in stock.errors or ()]
    assert len(planned) > ROUNDS * 0.4, f"only {len(planned)} of {ROUNDS} generated operations were planned"


@pytest.mark.parametrize(
    "document",
    [
        "{ account { name } }",
        "{ conversations { nodes { channels { id } } } }",
        "{ paymentRequests { nodes { processor { currencies } } } }",
        '{ paymentRequests { nodes { amount { formatted(locale: "de-DE") } } } }',
    ],
)
async def test_fields_without_a_reader_are_left_to_the_stock_executor(
    api: Api, ids: dict[str, list[str]], planned: list[str], document: str
) -> None:
    await api.all(document)
    assert planned == []


HOT = {
    "inbox": """query { conversations(first: 20) { totalCount eventCursor pageInfo { endCursor } edges { cursor node {
      id preview unreadCount lastActivityAt contact { id name } assignee { id name } } } } }""",
    "thread": """query($conversation: ID!) { conversation(id: $conversation) { thread(last: 20) { eventCursor edges { cursor
      node { __typename id
      ... on Message { direction body channelKind channel { id displayName } deliveryStatus attachments { id status reason url } }
      ... on ActivityCard { kind text paymentRequest { id status updatedAt amount { formatted } } } } } } } }""",
    "payments tab": """query($contact: ID!) { contact(id: $contact) { eventCursor paymentRequests(first: 20) {
      totalCount eventCursor edges { cursor
      node { id number status updatedAt processorKind processor { id displayName testMode } channelKind channel { id }
        payments { id kind status processorKind } availableActions { action } } } } } }""",
}


@pytest.mark.parametrize("screen", HOT)
async def test_what_inbox_screens_select_is_planned(
    api: Api, ids: dict[str, list[str]], planned: list[str], screen: str
) -> None:
    of = "conversation" if screen == "thread" else "contact"
    variables = {of: ids[of][0]} if f"${of}" in HOT[screen] else {}
    result = await api.result(HOT[screen], variables)
    assert result.errors is None
    assert planned != []


@pytest.mark.parametrize(
    "page", ["nodes { id number }", "pageInfo { endCursor } nodes { id number }", "edges { cursor }"]
)
async def test_a_page_is_planned_with_and_without_edges(
    api: Api, ids: dict[str, list[str]], planned: list[str], page: str
) -> None:
    found = await api.one(f"{{ paymentRequests(first: 5) {{ {page} }} }}")
    assert len(found.get("nodes") or found["edges"]) == 5
    assert len(planned) == 1


@pytest.mark.parametrize(
    ("document", "variables"),
    [
        ("{ paymentRequests(first: 3) { a: edges { cursor } b: edges { node { id } } } }", {}),
        (
            "{ paymentRequests { a: edges { __typename } b: edges { node { id } c: node { number } } nodes { id } } }",
            {},
        ),
        ("{ conversations { nodes { thread { pageInfo { hasNextPage endCursor } edges { cursor } } } } }", {}),
        ("query($x: Boolean = true) { conversations @include(if: $x) { nodes { id } } }", {"x": None}),
        ("query($x: Boolean = true) { conversations { nodes { id preview @skip(if: $x) } } }", {"x": None}),
        ("query($x: Boolean = true) { conversations { nodes { id preview @include(if: $x) } } }", {"x": False}),
        ("query($n: Int) { conversations(first: $n) { nodes { id } } }", {"n": 1.0}),
        ("query($n: Int) { contacts { nodes { paymentRequests(first: $n) { nodes { id } } } } }", {"n": 0}),
        ("query($id: ID!) { contact(id: $id) { id } }", {"id": "cnt_\0"}),
    ],
)
async def test_unusual_operations_have_the_stock_answers(
    api: Api, ids: dict[str, list[str]], planned: list[str], document: str, variables: dict[str, Any]
) -> None:
    result = await api.result(document, variables)
    plans, EXECUTOR.plans = EXECUTOR.plans, None
    try:
        stock = await api.result(document, variables)
    finally:
        EXECUTOR.plans = plans
    assert orjson.dumps(result.data) == orjson.dumps(stock.data)
    assert [error.formatted for error in result.errors or ()] == [error.formatted for error in stock.errors or ()]


@pytest.mark.parametrize(
    ("document", "aside"),
    [
        ('{ contacts(filter: {search: "ada"}) { nodes { id } } }', True),
        ('{ conversations(filter: {search: "ada"}) { nodes { id } } }', True),
        ("{ paymentRequests(filter: {testMode: true}) { nodes { id } } }", True),
        ("{ paymentRequests(filter: {overdue: true}) { nodes { id } } }", True),
        ("{ paymentRequests(filter: {status: [PAID]}) { nodes { id } } }", False),
        ("{ conversations(filter: {closed: false}) { nodes { id } } }", False),
    ],
)
async def test_a_page_that_may_look_at_many_rows_is_read_off_the_event_loop(
    api: Api, ids: dict[str, list[str]], planned: list[str], document: str, aside: bool
) -> None:
    scanned: list[str] = []
    scan = database.scanned_records

    async def watched(sql: str, *args: object) -> Any:
        scanned.append(sql)
        return await scan(sql, *args)

    with mock.patch.object(database, "scanned_records", watched):
        await api.all(document)
    assert planned
    assert bool(scanned) is aside


BY = "__typename ... on User { id name } ... on ApiKey { id name } ... on Contact { id name } ... on SystemActor { name }"


@pytest.mark.parametrize(
    "document",
    [
        f"""{{ conversations(first: 3) {{ nodes {{ thread(last: 20) {{ nodes {{ ... on Message {{ author {{ {BY} }} }}
          ... on ActivityCard {{ actor {{ {BY} }} }} }} }} }} }} }}""",
        f"""{{ contacts(first: 5) {{ nodes {{ paymentRequests(first: 5) {{ nodes {{ createdBy {{ {BY} }} voidedBy {{ {BY} }}
          payments {{ id recordedBy {{ {BY} }} }} }} }} }} }} }}""",
        f"""{{ paymentRequests(first: 5) {{ nodes {{ refunds {{ id status amount {{ formatted }} requestedBy {{ {BY} }}
          charge {{ id amount {{ amount }} }} payment {{ id status }} }} disputes {{ id state reason payment {{ id }} }} }} }} }}""",
    ],
)
async def test_threads_and_payment_tabs_with_their_actors_are_planned(
    api: Api, ids: dict[str, list[str]], planned: list[str], document: str
) -> None:
    await api.all(document)
    assert planned == [document]


async def test_the_variants_of_an_operation_are_bounded(api: Api, planned: list[str]) -> None:
    names = [f"v{n}" for n in range(6)]
    declared = ", ".join(f"${name}: Boolean!" for name in names)
    fields = " ".join(f"{name}: preview @include(if: ${name})" for name in names)
    document = f"query Variants({declared}) {{ conversations {{ nodes {{ id {fields} }} }} }}"
    for number in range(2 ** len(names)):
        await api.all(document, {name: bool(number >> n & 1) for n, name in enumerate(names)})
    assert len(planned) == 2 ** len(names)
    (known,) = [one for one in EXECUTOR.plans._known.values() if one.operation.loc.source.body == document]
    assert len(known.plans) <= VARIANTS


async def test_a_document_that_is_too_long_to_be_kept_has_no_plan(api: Api, planned: list[str]) -> None:
    await api.all(f"{{ conversations {{ nodes {{ id }} }} }} #{'x' * LONGEST_CACHED}")
    assert planned == []


async def test_a_merged_conversation_is_left_to_the_stock_executor(api: Api, team: Team, planned: list[str]) -> None:
    other = await factories.contact(team.account)
    await tables.Contact.filter(id=other.id).update(merged_into_id=team.contact.id)
    merged = await factories.conversation(other, merged_into_id=team.conversation.id)
    document = "query($id: ID!) { conversation(id: $id) { id preview } }"
    found = await api.one(document, {"id": public_id("cnv", merged.id)})
    assert found["id"] == public_id("cnv", team.conversation.id)


async def test_an_anonymous_viewer_gets_no_plan(api: Api, planned: list[str]) -> None:
    result = await api.result("{ conversations { nodes { id } } }", viewer=None)
    assert result.errors
    assert planned == []
