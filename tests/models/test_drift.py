"""Migrations and models/tables.py agree on each engine; SQL-only rules hold."""

# ruff: noqa: S608  (no SQL here comes from outside)

import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from tortoise.exceptions import IntegrityError
from tortoise.indexes import Index
from tortoise.models import Model

from integrations.base import ChannelKind, CheckoutStatus, DeliveryStatus, MoneyKind, MoneyOutcome, RefundReason
from models import event_log, tables
from models.database import dialect, execute, rows, transaction
from models.ids import uuid7
from models.ledger import CardKind, Status
from tests import factories

Columns = tuple[str, ...]


@dataclass
class Table:
    columns: dict[str, tuple[str, bool]] = field(default_factory=dict)  # name -> (type, may be null)
    key: Columns = ()
    uniques: set[Columns] = field(default_factory=set)
    indexes: set[Columns] = field(default_factory=set)
    foreign_keys: set[tuple[str, str, str, str]] = field(default_factory=set)  # column, table, column, ON DELETE
    # (unique, columns, words of the condition)
    partial: set[tuple[bool, Columns, frozenset[str]]] = field(default_factory=set)


MODELS: dict[str, type[Model]] = {
    model._meta.db_table: model
    for model in vars(tables).values()
    if isinstance(model, type) and issubclass(model, Model) and model._meta.db_table and not model._meta.abstract
}

PARTIAL: dict[str, set[tuple[bool, Columns, frozenset[str]]]] = {
    "activity_card": {
        (True, ("payment_request_id",), frozenset({"kind", kind}))
        for kind in ("PAYMENT_REQUEST", "PAYMENT_RECEIVED", "REQUEST_VOIDED")
    },
    "processor_connection": {
        (True, ("account_id",), frozenset({"is_default", "connected"})),
        (True, ("account_id", "processor", "test_mode", "vendor_account"), frozenset({"is_duplicate", "NOT"})),
    },
    "money_fact": {
        (True, ("account_id", "kind", "external_id", "outcome"), frozenset({"processor_connection_id", "IS", "NULL"})),
        (True, ("processor_connection_id", "kind", "external_id", "outcome"), frozenset({"kind", "DISPUTE"})),
        (True, ("processor_connection_id", "external_id", "outcome", "occurred_at"), frozenset({"kind", "DISPUTE"})),
    },
    "message": {
        (False, ("channel_connection_id", "relay_id"), frozenset({"relay_id", "IS", "NOT", "NULL"})),
        (False, ("id",), frozenset({"delivery_status", "QUEUED", "SENDING"})),
        (False, ("id",), frozenset({"search", "IS", "NULL"})),
    },
    "contact": {
        (False, ("id",), frozenset({"search", "IS", "NULL"})),
        (False, ("merged_into_id",), frozenset({"merged_into_id", "IS", "NOT", "NULL"})),
    },
    "contact_address": {(True, ("contact_id", "kind"), frozenset({"in_use"}))},
    "payment_request": {
        (False, ("id",), frozenset({"search", "IS", "NULL"})),
        (
            False,
            ("due_at",),
            frozenset({"status", "SENT", "PROCESSING", "PARTIALLY_PAID", "overdue_for", "IS", "NULL", "due_at"}),
        ),
        (
            False,
            ("account_id", "created_at", "id", "due_at"),
            frozenset({"status", "SENT", "PROCESSING", "PARTIALLY_PAID", "IS", "NOT", "NULL", "due_at"}),
        ),
    },
    "conversation": {
        (False, ("account_id", "last_activity_at", "id"), frozenset({"closed_at", "IS", "NULL"})),
        (False, ("account_id", "last_activity_at", "id"), frozenset({"closed_at", "IS", "NOT", "NULL"})),
        (False, ("account_id", "last_activity_at", "id"), frozenset({"unread_count"})),
    },
    "invitation": {(True, ("account_id", "email"), frozenset({"accepted_at", "revoked_at", "IS", "NULL"}))},
    "notification": {(False, ("user_id", "seq"), frozenset({"read_at", "IS", "NULL"}))},
    "job": {
        (False, ("due_at",), frozenset({"status", "queued"})),
        (False, ("id",), frozenset({"status", "running"})),
    },
    "checkout_session": {
        (False, ("next_check_at",), frozenset({"next_check_at", "IS", "NOT", "NULL"})),
        (False, ("id",), frozenset({"status", "OPENING", "OPEN"})),
    },
    "attachment": {(False, ("id",), frozenset({"status", "PENDING"}))},
    "refund": {(False, ("id",), frozenset({"status", "PENDING", "UNKNOWN"}))},
}

POSTGRES_TYPES = {"VARCHAR": "character varying", "INT": "integer", "BOOL": "boolean", "TIMESTAMPTZ": "timestamptz"}


def expected() -> dict[str, Table]:
    """The tables as the models define them."""
    engine = dialect()
    found = {}
    for name, model in MODELS.items():
        meta = model._meta
        table = Table(
            uniques={tuple(columns) for columns in meta.unique_together},
            indexes={tuple(of.fields if isinstance(of, Index) else of) for of in meta.indexes},
            partial=PARTIAL.get(name, set()),
        )
        for column, of in meta.fields_map.items():
            table.columns[column] = (plain_type(str(of.get_for_dialect(engine, "SQL_TYPE"))), of.null)
            if of.pk:
                table.key = (column,)
            elif of.unique:
                table.uniques.add((column,))
            elif of.index:
                table.indexes.add((column,))
            if column in tables.FOREIGN_KEYS:
                table.foreign_keys.add((column, tables.FOREIGN_KEYS[column], "id", "RESTRICT"))
        found[name] = table
    uuid, time, json = ("CHAR(36)", "TIMESTAMP", "JSON") if engine == "sqlite" else ("UUID", "TIMESTAMPTZ", "JSONB")
    copies = ["conversation", "contact", "payment_request", "message", "card", "payment", "notification", "user"]
    found["event"] = Table(
        columns={
            "account_id": (plain_type(uuid), False),
            "seq": (plain_type("BIGINT"), False),
            "kind": (plain_type("VARCHAR(60)"), False),
            **{f"{name}_id": (plain_type(uuid), True) for name in copies},
            "data": (plain_type(json), False),
            "at": (plain_type(time), False),
            "actor": (plain_type("VARCHAR(160)"), True),
        },
        key=("account_id", "seq"),
        indexes={("at",)},
        foreign_keys={("account_id", "account", "id", "RESTRICT")},
    )
    found["search_text"] = Table(
        columns={
            "id": (plain_type(uuid), False),
            "kind": ("CHAR(1)" if engine == "sqlite" else "CHARACTER(1)", False),
            "account_id": (plain_type(uuid), False),
            "content": ("TEXT", False),
            "amount_minor": (plain_type("BIGINT"), True),
        },
        key=("id",),
        foreign_keys={("account_id", "account", "id", "RESTRICT")},
    )
    if engine == "sqlite":
        found["search_text"].columns["n"] = ("INTEGER", False)
        found["search_text"].key, found["search_text"].uniques = ("n",), {("id",)}
    else:
        found["search_text"].indexes = {("search_keys(kind, account_id, content, amount_minor)",)}
    figures = {
        name: (plain_type("BIGINT"), False)
        for name in (
            *("sent_count", "requested_minor", "converted_count", "outstanding_minor"),
            *("paid_count", "charge_count", "paid_minor"),
        )
    }
    keys = {
        "account_id": (plain_type(uuid), False),
        "currency": (plain_type("VARCHAR(3)"), False),
        "test_mode": (found["payment_request"].columns["test_mode"][0], False),
        "took": (plain_type("INT"), False),
    }
    row_id = ("INTEGER" if engine == "sqlite" else "BIGINT", False)
    found["figure_change"] = Table(
        columns={"id": row_id, "at": (plain_type("BIGINT"), False), **keys, **figures},
        key=("id",),
        indexes={("account_id",)},
    )
    found["figure_count"] = Table(
        columns={"span": (plain_type("INT"), False), "starts": (plain_type("BIGINT"), False), **keys, **figures},
        key=("account_id", "test_mode", "span", "starts", "currency", "took"),
    )
    found["event_pruning"] = Table(columns={"before": (plain_type(time), False)})
    return found


def plain_type(text: str) -> str:
    word, _, rest = text.upper().partition("(")
    word = POSTGRES_TYPES.get(word, word).upper().replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ")
    return f"{word}({rest}" if rest else word


def words(condition: str) -> frozenset[str]:
    bare = re.sub(r"::[a-z_ ]+(?:\[\])?", "", condition)  # PostgreSQL's casts
    return frozenset(re.findall(r"[A-Za-z_]+", bare)) - {"WHERE", "AND", "IN", "ANY", "ARRAY", "OR"}


async def built() -> dict[str, Table]:
    return await (built_sqlite() if dialect() == "sqlite" else built_postgres())


async def built_sqlite() -> dict[str, Table]:
    found = {}
    for listed in await rows(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
        " AND name NOT LIKE 'search_word%'"  # FTS5's own
    ):
        name = listed["name"]
        table = found[name] = Table()
        info = await rows(f"PRAGMA table_info({name})")
        table.columns = {row["name"]: (plain_type(row["type"]), not row["notnull"]) for row in info}
        table.key = tuple(row["name"] for row in sorted(info, key=lambda row: row["pk"]) if row["pk"])
        for index in await rows(f"PRAGMA index_list({name})"):
            parts = await rows(f"PRAGMA index_xinfo({index['name']})")
            assert not any(part["desc"] for part in parts)
            columns = tuple(part["name"] for part in parts if part["key"])
            if index["partial"]:
                (made,) = await rows("SELECT sql FROM sqlite_master WHERE name = ?", index["name"])
                table.partial.add((bool(index["unique"]), columns, words(made["sql"].split(" WHERE ")[1])))
            elif index["origin"] == "pk":
                assert columns == table.key
            else:
                (table.uniques if index["unique"] else table.indexes).add(columns)
        for key in await rows(f"PRAGMA foreign_key_list({name})"):
            table.foreign_keys.add((key["from"], key["table"], key["to"], key["on_delete"]))
    return found


async def built_postgres() -> dict[str, Table]:
    listed = await rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    found = {row["tablename"]: Table() for row in listed}
    for row in await rows(
        "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull"
        " FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
        " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped"
        " ORDER BY a.attnum"
    ):
        found[row["relname"]].columns[row["attname"]] = (plain_type(row["type"]), not row["attnotnull"])
    for row in await rows(
        "SELECT t.relname AS table, i.indisunique, i.indisprimary, pg_get_expr(i.indpred, i.indrelid) AS condition,"
        " i.indisvalid, i.indoption::text AS options,"
        " ARRAY(SELECT pg_get_indexdef(i.indexrelid, k, true) FROM generate_series(1, i.indnkeyatts) k) AS columns"
        " FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid WHERE t.relnamespace = 'public'::regnamespace"
    ):
        assert row["indisvalid"]
        assert set(row["options"].split()) <= {"0"}  # ascending
        table, columns = found[row["table"]], tuple(row["columns"])
        if row["condition"] is not None:
            table.partial.add((row["indisunique"], columns, words(row["condition"])))
        elif row["indisprimary"]:
            table.key = columns
        else:
            (table.uniques if row["indisunique"] else table.indexes).add(columns)
    actions = {b"r": "RESTRICT", b"a": "NO ACTION", b"c": "CASCADE", b"n": "SET NULL", b"d": "SET DEFAULT"}
    for row in await rows(
        "SELECT t.relname AS table, f.relname AS target, c.confdeltype, a.attname AS column, b.attname AS key"
        " FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid JOIN pg_class f ON f.oid = c.confrelid"
        " JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = c.conkey[1]"
        " JOIN pg_attribute b ON b.attrelid = f.oid AND b.attnum = c.confkey[1]"
        " WHERE c.contype = 'f' AND t.relnamespace = 'public'::regnamespace"
    ):
        found[row["table"]].foreign_keys.add((row["column"], row["target"], row["key"], actions[row["confdeltype"]]))
    return found


async def checks() -> dict[str, str]:
    if dialect() == "postgres":
        found = await rows(
            "SELECT conname, pg_get_constraintdef(oid) AS condition FROM pg_constraint"
            " WHERE contype = 'c' AND connamespace = 'public'::regnamespace"
        )
        return {row["conname"]: row["condition"] for row in found}
    found = await rows("SELECT sql FROM sqlite_master WHERE type = 'table'")
    pattern = re.compile(r"CONSTRAINT (\w+) CHECK \((.*?)\)(?=,?\n    CONSTRAINT|\n\))", re.DOTALL)
    return {name: condition for row in found for name, condition in pattern.findall(row["sql"])}


async def triggers() -> set[tuple[str, str]]:
    if dialect() == "postgres":
        found = await rows("SELECT tgrelid::regclass::text AS t, tgname AS n FROM pg_trigger WHERE NOT tgisinternal")
    else:
        found = await rows("SELECT tbl_name AS t, name AS n FROM sqlite_master WHERE type = 'trigger'")
    return {(row["t"], row["n"]) for row in found}


# --- the comparison --------------------------------------------------------------------------------------------------


async def test_the_migrations_build_the_tables_of_the_models(database: str) -> None:
    real, modelled = await built(), expected()
    record = real.pop("schema_migration")
    assert record.key == ("name",)
    assert set(real) == set(modelled)
    took = [index for index in real["payment_request"].partial if "test_mode" in index[1]]
    assert [(unique, columns[:3]) for unique, columns, _ in took] == [(False, ("account_id", "test_mode", "currency"))]
    real["payment_request"].partial -= set(took)  # an index of an expression
    # Of expressions: the same as the orders', which tests/schema/test_statement_work.py needs.
    due = [index for index in real["payment_request"].partial if "amount_minor" in index[2]]
    assert [(unique, columns[0], columns[2]) for unique, columns, _ in due] == [(False, "account_id", "id")]
    real["payment_request"].partial -= set(due)
    for name in ("contact", "payment_request"):
        ordered = real[name].indexes - modelled[name].indexes
        assert {(columns[0], columns[2]) for columns in ordered} == {("account_id", "id")}
        real[name].indexes -= ordered
    for name, table in modelled.items():
        assert real[name] == table, name


async def test_every_reference_that_the_models_name_is_a_foreign_key(database: str) -> None:
    columns = {column for model in MODELS.values() for column in model._meta.fields_map}
    assert set(tables.FOREIGN_KEYS) <= columns
    assert set(tables.FOREIGN_KEYS.values()) <= set(MODELS)


ENUMS = {
    "payment_request_status_valid": set(Status),
    "payment_request_delivery_state_valid": {"NOT_SENT", *DeliveryStatus},
    "payment_request_refund_state_valid": {"NONE", "PARTIAL", "FULL"},
    "payment_request_dispute_state_valid": {"NONE", "NEEDS_RESPONSE", "UNDER_REVIEW", "WON", "LOST"},
    "payment_request_sent_via_valid": {"MESSAGE", "LINK_COPIED"},
    "payment_request_last_attempt_status_valid": set(MoneyOutcome),
    "message_direction_valid": {"INBOUND", "OUTBOUND"},
    "message_kind_valid": set(ChannelKind),
    "message_delivery_status_valid": set(DeliveryStatus),
    "contact_address_kind_valid": set(ChannelKind),
    "channel_connection_kind_valid": set(ChannelKind),
    "opt_out_kind_valid": set(ChannelKind),
    "saved_view_subject_valid": {"PAYMENT_REQUEST", "CONVERSATION"},
    "attachment_status_valid": {"PENDING", "STORED", "REFUSED", "FAILED"},
    "activity_card_kind_valid": {*CardKind, "REMINDER_SENT", "CARD_SAVED"},  # two that nothing writes yet
    "activity_card_status_valid": set(Status),
    "checkout_session_status_valid": {"OPENING", *CheckoutStatus, "ABANDONED"},
    "money_fact_kind_valid": {*MoneyKind, "DISPUTE_REVERSAL", "ACCEPTANCE", "WAIVER", "ADJUSTMENT"},
    "money_fact_outcome_valid": set(MoneyOutcome),
    "money_fact_source_valid": {"webhook", "return", "sweeper", "void", "refund", "manual"},
    "refund_reason_valid": set(RefundReason),
    "refund_status_valid": {*MoneyOutcome, "UNKNOWN"},
    "user_account_role_valid": {"OWNER", "ADMIN", "AGENT", "VIEWER"},
    "api_key_role_valid": {"OWNER", "ADMIN", "AGENT", "VIEWER"},
    "invitation_role_valid": {"OWNER", "ADMIN", "AGENT", "VIEWER"},
    "user_token_purpose_valid": {"PASSWORD_RESET", "EMAIL_CHANGE"},
    "idempotency_key_state_valid": {"running", "done"},
    "job_status_valid": {"queued", "running", "done", "dead"},
    "audit_entry_actor_kind_valid": {"user", "api_key", "system"},
}
BOUNDS = {
    "account_default_currency_valid": "length default_currency = 3",
    "account_request_count_valid": "request_count >= 0",
    "account_event_seq_valid": "event_seq >= 0",
    "contact_summary_currency_valid": "length currency = 3",
    "contact_summary_amounts_valid": "requested_minor >= 0 outstanding_minor >= 0 paid_minor >= 0 refunded_minor >= 0",
    "contact_summary_counts_valid": "open_count >= 0 paid_count >= 0",
    "conversation_unread_count_valid": "unread_count >= 0",
    "payment_request_amount_minor_valid": "amount_minor > 0",
    "payment_request_currency_valid": "length currency = 3",
    "payment_request_totals_valid": "amount_paid_minor >= 0 refunded_minor >= 0 excess_minor >= 0 late_minor >= 0",
    "payment_request_human_views_valid": "human_views >= 0",
    "checkout_session_amount_minor_valid": "amount_minor > 0",
    "checkout_session_currency_valid": "length currency = 3",
    "money_fact_amount_minor_valid": "amount_minor >= 0",
    "money_fact_currency_valid": "length currency = 3",
    "refund_amount_minor_valid": "amount_minor > 0",
    "refund_currency_valid": "length currency = 3",
    "tick_every_ms_valid": "every_ms > 0",
    "sandbox_checkout_amount_minor_valid": "amount_minor > 0",
    "sandbox_checkout_currency_valid": "length currency = 3",
    "event_seq_valid": "seq > 0",
}


async def test_the_checks_are_these(database: str) -> None:
    found = await checks()
    assert set(found) == set(ENUMS) | set(BOUNDS)
    for name, values in ENUMS.items():
        assert set(re.findall(r"'(\w+)'", found[name])) == {str(value) for value in values}, name
    for name, bounds in BOUNDS.items():
        bare = re.sub(r"::[a-z]+", "", found[name])
        assert re.findall(r"[a-z_]+|[<>=]+|\d+", bare) == bounds.split(), name


_SEARCHED = {
    (t, f"{t}_search_{what}")
    for t in ("contact", "payment_request", "message")
    for what in ("inserted", "updated", "deleted")
} | {("message", "message_search_renewed")}
SEARCHING = {
    "postgres": _SEARCHED,
    "sqlite": _SEARCHED
    | {("search_text", f"search_text_{what}") for what in ("inserted", "updates", "updated", "deletes")},
}
COUNTING = {
    *(("payment_request", f"payment_request_figures_{what}") for what in ("inserted", "updates", "updated")),
    *(("money_fact", f"money_fact_figures_{what}") for what in ("arrived", "undone")),
}
APPEND_ONLY = ("activity_card", "money_fact", "audit_entry", "event")


async def test_the_triggers_are_these(database: str) -> None:
    operations = ("update", "delete", "truncate") if dialect() == "postgres" else ("update", "delete")
    refusing = {(table, f"{table}_refuses_{what}") for table in APPEND_ONLY for what in operations}
    assert await triggers() == refusing | SEARCHING[dialect()] | COUNTING | {("message", "message_followed")}


# --- what only the SQL says ------------------------------------------------------------------------------------------


async def one_of_each() -> dict[str, Any]:
    account = await factories.account()
    request = await factories.payment_request(await factories.contact(account))
    card = await factories.activity_card(request)  # brings an event
    fact = await factories.money_fact(request)
    await tables.AuditEntry.create(
        account_id=account.id, actor_kind="system", action="test", subject="x", occurred_at=factories.now()
    )
    return {"account": account, "request": request, "card": card, "fact": fact}


@pytest.mark.parametrize("table", APPEND_ONLY)
async def test_append_only_tables_refuse_update_and_delete(database: str, table: str) -> None:
    await one_of_each()
    before = await rows(f"SELECT * FROM {table}")
    assert len(before) == 1
    statements = [f"UPDATE {table} SET account_id = account_id", f"DELETE FROM {table}"]
    if dialect() == "postgres":
        statements.append(f"TRUNCATE {table} CASCADE")
    else:
        statements.append(f"REPLACE INTO {table} SELECT * FROM {table}")  # a DELETE in disguise
    for statement in statements:
        with pytest.raises(IntegrityError, match="append-only"):
            await execute(statement)
        with pytest.raises(IntegrityError, match="append-only"):
            async with transaction():
                await execute(statement)
    assert await rows(f"SELECT * FROM {table}") == before


async def test_the_retention_job_deletes_old_events_and_leaves_the_door_shut(database: str) -> None:
    account = await factories.account()
    at = factories.now() - event_log.RETENTION
    for seconds in (-3, -2, 0):
        async with transaction():
            seq = await event_log.reserve(account.id, 1)
            entry = event_log.LogEntry(account_id=account.id, seq=seq, kind="x", at=at + timedelta(0, seconds))
            await event_log.append([entry])
    assert await event_log.prune(at + event_log.RETENTION - timedelta(seconds=1)) == 2
    assert [row["seq"] for row in await rows("SELECT seq FROM event ORDER BY seq")] == [3]
    assert await rows("SELECT * FROM event_pruning") == []
    with pytest.raises(IntegrityError, match="append-only"):
        await execute("DELETE FROM event")


async def test_a_parent_with_children_cannot_be_deleted(database: str) -> None:
    made = await one_of_each()
    for table, row in (("payment_request", made["request"]), ("account", made["account"])):
        with pytest.raises(IntegrityError):
            await execute(f"DELETE FROM {table} WHERE id = ?", row.id)
        assert await rows(f"SELECT count(*) AS n FROM {table}") == [{"n": 1}]


async def test_a_child_of_nothing_is_refused(database: str) -> None:
    account = (await one_of_each())["account"]
    with pytest.raises(IntegrityError):
        await factories.payment_request(
            await factories.contact(account), conversation_id=uuid7(), processor_connection_id=uuid7()
        )


async def test_each_kind_of_card_that_tells_the_outcome_exists_once_per_request(database: str) -> None:
    request = (await one_of_each())["request"]
    for kind in ("PAYMENT_RECEIVED", "REQUEST_VOIDED", "PAYMENT_FAILED"):
        await factories.activity_card(request, kind)
    await factories.activity_card(request, "PAYMENT_FAILED")
    for kind in ("PAYMENT_REQUEST", "PAYMENT_RECEIVED", "REQUEST_VOIDED"):
        with pytest.raises(IntegrityError):
            async with transaction():
                await factories.activity_card(request, kind)
    assert await tables.ActivityCard.all().count() == 5


async def test_an_account_has_one_default_processor_that_is_connected(database: str) -> None:
    account = (await one_of_each())["account"]
    with pytest.raises(IntegrityError):
        await factories.processor_connection(account, is_default=True)
    await factories.processor_connection(account, is_default=True, connected=False)
    await factories.processor_connection(account, is_default=False)
    await factories.processor_connection(await factories.account(), is_default=True)
    assert await tables.ProcessorConnection.all().count() == 4


async def test_money_recorded_by_hand_has_each_outcome_once(database: str) -> None:
    request = (await one_of_each())["request"]
    by_hand: dict[str, Any] = {"processor_connection_id": None, "processor": None, "source": "manual"}
    await factories.money_fact(request, external_id="by_hand_1", **by_hand)
    with pytest.raises(IntegrityError):
        await factories.money_fact(request, external_id="by_hand_1", **by_hand)
    await factories.money_fact(request, external_id="by_hand_1", outcome="CANCELED", **by_hand)
    await factories.money_fact(request, external_id="by_hand_2", **by_hand)
    assert await tables.MoneyFact.filter(processor_connection_id=None).count() == 3


async def test_amounts_and_words_outside_their_bounds_are_refused(database: str) -> None:
    request = (await one_of_each())["request"]
    for change in (
        {"amount_minor": 0},
        {"amount_minor": -1},
        {"currency": "US"},
        {"status": "REFUNDED"},
        {"refunded_minor": -1},
        {"sent_via": "PIGEON"},
        {"delivery_state": ""},
    ):
        ((column, value),) = change.items()
        with pytest.raises(IntegrityError):
            await execute(f"UPDATE payment_request SET {column} = ? WHERE id = ?", value, request.id)
    assert await execute("UPDATE payment_request SET status = ?, sent_via = ?", "SENT", None) == 1
