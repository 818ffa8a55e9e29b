"""Payment requests: create, compose, send, copy, discard."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from integrations.base import LengthUnit
from models import database as db
from models import errors
from models.ids import uuid7
from models.tables import Account, ActivityCard, Contact, Message, PaymentRequest, ProcessorConnection
from services.connections import availability, processor_settings, providers
from services.core.permissions import Actor
from services.messaging import composer
from services.payments import checkout, checkout_page, payment_requests, request_sending, voids
from services.thread import payment_links
from tests import factories
from tests.services.conftest import Team, counts, kinds_logged
from tests.services.scripted import Scripted, assert_consistent

# Events of the contact's first request in a currency, which adds an entry to its totals.
FIRST = ["payment_request.created", "contact.updated"]
TABLES = ("payment_request", "message", "activity_card", "event", "job", "contact_summary", "idempotency_key")


@pytest.fixture
async def asked(team: Team) -> Team:
    providers.live.get().processors[team.processor.id] = (providers.cache_key(team.processor), Scripted())
    return team


async def create(team: Team, *, actor: Actor | None = None, **overrides: Any) -> PaymentRequest:
    values: dict[str, Any] = {
        "contact_id": team.contact.id,
        "product_name": "Deep clean",
        "amount": "125.00",
        "idempotency_key": str(uuid4()),
    }
    return await payment_requests.create(actor or team.agent, **values | overrides)


def token_of(request: PaymentRequest) -> str:
    return payment_links.checkout_url(request).rpartition("/")[2]


# ------------------------------------------------------------------------------------------------------------- create
async def test_a_new_request_is_a_draft_with_a_live_link_and_no_card(asked: Team) -> None:
    request = await create(asked, description=" Two rooms ", channel_id=asked.channels["SMS"].id)
    assert (request.status, request.amount_minor, request.currency, request.number) == (
        "DRAFT",
        12500,
        "USD",
        "PR-0000001",
    )
    assert (request.description, request.created_by_id, request.test_mode) == ("Two rooms", asked.agent.user_id, True)
    assert request.conversation_id == asked.conversation.id
    assert payment_links.checkout_url(request).startswith("https://pay.example.test/p/")
    assert len(token_of(request)) == 22
    assert (await checkout_page.find(token_of(request))) == request
    assert await counts("activity_card", "message", "job") == {"activity_card": 0, "message": 0, "job": 0}
    assert await kinds_logged(asked.account.id) == FIRST
    await assert_consistent(asked.account.id)


async def test_the_token_is_stored_sealed_and_hashed_only(asked: Team) -> None:
    token = token_of(await create(asked))
    (row,) = await db.rows("SELECT * FROM payment_request")
    assert not any(token in str(value) for value in row.values())


async def test_numbers_have_no_gap_although_creations_fail(asked: Team) -> None:
    await create(asked)
    with pytest.raises(errors.Blank):
        await create(asked, product_name=" ")
    made = await asyncio.gather(*(create(asked) for _ in range(5)))
    assert sorted(request.number for request in made) == [f"PR-{n:07d}" for n in range(2, 7)]
    assert len({request.token_hash for request in made}) == 5


async def test_the_currency_is_the_accounts_unless_another_is_chosen(asked: Team) -> None:
    assert (await payment_requests.defaults(asked.agent)).currencies == ["EUR", "JPY", "USD"]
    assert (await create(asked)).currency == "USD"
    yen = await create(asked, amount="1250", currency="jpy")
    assert (yen.amount_minor, yen.currency) == (1250, "JPY")


async def test_a_key_makes_one_request_however_often_it_is_used(asked: Team) -> None:
    key = "a-key-of-the-client"
    first = await create(asked, idempotency_key=key)
    again = await create(asked, idempotency_key=key)
    assert again.id == first.id
    with pytest.raises(errors.IdempotencyKeyParameterMismatch):
        await create(asked, idempotency_key=key, amount="126.00")
    results = await asyncio.gather(
        *(create(asked, idempotency_key="another-key") for _ in range(5)), return_exceptions=True
    )
    made = {result.id for result in results if isinstance(result, PaymentRequest)}
    refused = [result for result in results if isinstance(result, errors.IdempotencyConcurrentRequest)]
    assert len(made) == 1
    assert len(refused) <= 4
    assert await PaymentRequest.all().count() == 2
    assert await kinds_logged(asked.account.id) == [*FIRST, "payment_request.created"]


@pytest.mark.parametrize(
    ("wrong", "refusal", "field"),
    [
        ({"product_name": ""}, errors.Blank, ("productName",)),
        ({"product_name": "   "}, errors.Blank, ("productName",)),
        ({"product_name": "x" * 256}, errors.TooLong, ("productName",)),
        ({"product_name": "a\x00b"}, errors.Invalid, ("productName",)),
        ({"description": "x" * 2001}, errors.TooLong, ("description",)),
        ({"description": "\x00"}, errors.Invalid, ("description",)),
        ({"amount": "0"}, errors.AmountTooSmall, ("amount", "amount")),
        ({"amount": "0.49"}, errors.AmountTooSmall, ("amount", "amount")),
        ({"amount": "-1"}, errors.AmountTooSmall, ("amount", "amount")),
        ({"amount": "1000000.00"}, errors.AmountTooLarge, ("amount", "amount")),
        ({"amount": "1" * 15}, errors.AmountTooLarge, ("amount", "amount")),
        ({"amount": "1" * 40}, errors.Invalid, ("amount", "amount")),
        ({"amount": "1.234"}, errors.Invalid, ("amount", "amount")),
        ({"amount": "1,00"}, errors.Invalid, ("amount", "amount")),
        ({"amount": "1e3"}, errors.Invalid, ("amount", "amount")),
        ({"amount": "NaN"}, errors.Invalid, ("amount", "amount")),
        ({"amount": ""}, errors.Invalid, ("amount", "amount")),
        ({"amount": "1.5", "currency": "JPY"}, errors.Invalid, ("amount", "amount")),
        ({"currency": "XXX"}, errors.CurrencyNotSupported, ("amount", "currency")),
        ({"currency": "dollars"}, errors.CurrencyNotSupported, ("amount", "currency")),
        ({"currency": "KWD"}, errors.CurrencyNotSupported, ("amount", "currency")),
        ({"due_at": datetime(2020, 1, 1, tzinfo=UTC)}, errors.Invalid, ("dueAt",)),
        ({"processor": "STRIPE"}, errors.NoProcessorConfigured, ("processorKind",)),
        ({"contact_id": UUID(int=1)}, errors.NotFound, ("for", "contactId")),
        ({"conversation_id": UUID(int=1)}, errors.NotFound, ("for", "conversationId")),
        ({"channel_id": UUID(int=1)}, errors.NotFound, ("channelId",)),
        ({"idempotency_key": "short"}, errors.Invalid, ("idempotencyKey",)),
        ({"idempotency_key": "x" * 65}, errors.Invalid, ("idempotencyKey",)),
    ],
)
async def test_wrong_input_is_refused_and_changes_nothing(
    asked: Team, wrong: dict[str, Any], refusal: type[errors.Refusal], field: tuple[str, ...]
) -> None:
    with pytest.raises(refusal) as refused:
        await create(asked, **wrong)
    assert refused.value.field == field
    assert await counts(*TABLES) == dict.fromkeys(TABLES, 0)
    assert (await Account.get(id=asked.account.id)).request_count == 0


async def test_anothers_ids_are_not_there(asked: Team) -> None:
    other = await factories.account()
    contact = await factories.contact(other)
    conversation = await factories.conversation(contact)
    channel = await factories.channel_connection(other)
    mine = await create(asked)
    stranger = Actor(account_id=other.id, role="OWNER", user_id=None, name="S", kind="api_key", credential=str(uuid7()))
    other_accounts: list[dict[str, Any]] = [
        {"contact_id": contact.id},
        {"conversation_id": conversation.id},
        {"channel_id": channel.id},
    ]
    for wrong in other_accounts:
        with pytest.raises(errors.NotFound):
            await create(asked, **wrong)
    for call in (payment_requests.record_link_copied, payment_requests.discard):
        with pytest.raises(errors.NotFound):
            await call(stranger, mine.id)
    with pytest.raises(errors.NotFound):
        await request_sending.send(
            stranger, payment_request_id=mine.id, channel_id=channel.id, idempotency_key="some-key-of-theirs"
        )
    with pytest.raises(errors.NotFound):
        await request_sending.compose(asked.agent, mine, channel.id)
    assert (await PaymentRequest.get(id=mine.id)).version == 1
    assert await kinds_logged(asked.account.id) == FIRST


async def test_a_viewer_may_ask_for_nothing(asked: Team) -> None:
    request = await create(asked)
    with pytest.raises(errors.Forbidden):
        await create(asked, actor=asked.viewer)
    with pytest.raises(errors.Forbidden):
        await payment_requests.discard(asked.viewer, request.id)
    with pytest.raises(errors.Forbidden):
        await payment_requests.record_link_copied(asked.viewer, request.id)
    with pytest.raises(errors.Forbidden):
        await request_sending.send(
            asked.viewer,
            payment_request_id=request.id,
            channel_id=asked.channels["SMS"].id,
            idempotency_key="a-key-of-it",
        )
    assert payment_requests.available_actions(request, "VIEWER") == []
    assert await counts("message", "activity_card") == {"message": 0, "activity_card": 0}


async def test_without_a_processor_nothing_can_be_asked(asked: Team) -> None:
    await ProcessorConnection.all().update(connected=False)
    with pytest.raises(errors.NoProcessorConfigured):
        await create(asked)
    given = await payment_requests.defaults(asked.agent)
    assert (given.processor, given.currencies) == (None, ["USD"])
    assert await counts(*TABLES) == dict.fromkeys(TABLES, 0)


async def test_test_money_is_asked_for_only_where_it_is_named_once_there_was_a_live_processor(asked: Team) -> None:
    await ProcessorConnection.filter(id=asked.processor.id).update(is_default=False)
    live = await factories.processor_connection(asked.account, test_mode=False)
    await processor_settings.disconnect_processor(asked.owner, live.id)
    for kind in (None, "SANDBOX"):
        with pytest.raises(errors.NoProcessorConfigured):
            await create(asked, processor=kind)
    assert await counts(*TABLES) == dict.fromkeys(TABLES, 0) | {"event": 1}  # the disconnection
    given = await payment_requests.defaults(asked.agent)
    assert (given.processor, given.currencies, given.test_mode) == (None, ["USD"], False)
    assert not any(
        reach.payment_requests.enabled for reach in await availability.capabilities(asked.agent, asked.conversation)
    )
    request = await create(asked, processor_id=asked.processor.id)
    assert request.test_mode
    sent = await request_sending.send(
        asked.agent, payment_request_id=request.id, channel_id=asked.channels["SMS"].id, idempotency_key="a-named-one"
    )
    assert sent.request.status == "SENT"


@pytest.mark.parametrize("broken", [{"processor": "uninstalled"}, {"credentials": "v1.nobody.reads.this"}])
async def test_a_default_that_cannot_be_made_is_none_for_the_dialog_the_icon_and_for_creating(
    asked: Team, broken: dict[str, str]
) -> None:
    await ProcessorConnection.filter(id=asked.processor.id).update(**broken, version=2)
    given = await payment_requests.defaults(asked.agent)
    assert (given.processor, given.currencies) == (None, ["USD"])
    reaches = await availability.capabilities(asked.agent, asked.conversation)
    assert {reach.payment_requests.reason for reach in reaches} == {"NO_PROCESSOR_CONFIGURED"}
    with pytest.raises(errors.NoProcessorConfigured):
        await create(asked)
    assert await counts(*TABLES) == dict.fromkeys(TABLES, 0)


# ------------------------------------------------------------------------------------------------------------ compose
async def test_the_dialogs_send_gives_text_for_the_channel_and_sends_nothing(asked: Team) -> None:
    request = await create(asked)
    link = payment_links.checkout_url(request)
    sms = await request_sending.compose(asked.agent, request, asked.channels["SMS"].id)
    assert sms is not None
    assert sms.text == f"Acme Cleaning: $125.00 for Deep clean. Pay here: {link}"
    n = len(sms.text)
    expected = composer.Measure(
        length=n,
        max_length=1600,
        unit=LengthUnit.CHARACTERS,
        encoding="GSM_7",
        segments=1,
        remaining=160 - n,
        ucs2_reasons=[],
    )
    assert (sms.checkout_url, sms.measure) == (link, expected)
    mail = await request_sending.compose(asked.agent, request, asked.channels["EMAIL"].id)
    assert mail is not None
    assert mail.measure == composer.Measure(length=len(mail.text), max_length=None, unit=LengthUnit.CHARACTERS)
    assert await counts("message", "job", "activity_card") == {"message": 0, "job": 0, "activity_card": 0}
    assert (await PaymentRequest.get(id=request.id)).version == 1


async def test_an_sms_names_the_currency_where_its_symbol_would_cost_a_second_segment(asked: Team) -> None:
    for currency, symbol, amount in (("INR", "₹", "120.00"), ("PHP", "₱", "120.00"), ("KRW", "₩", "12000")):
        request = await factories.payment_request(asked.contact, currency=currency, amount_minor=12000)
        sms = await request_sending.compose(asked.agent, request, asked.channels["SMS"].id)
        mail = await request_sending.compose(asked.agent, request, asked.channels["EMAIL"].id)
        assert sms is not None
        assert mail is not None
        assert f": {currency} {amount} for" in sms.text
        assert (sms.measure.encoding, sms.measure.segments, sms.measure.ucs2_reasons) == ("GSM_7", 1, [])
        assert symbol in mail.text


async def test_marks_in_names_stay_as_they_are(asked: Team) -> None:
    request = await create(asked, product_name="{link} and {amount}")
    text = await request_sending.compose(asked.agent, request, asked.channels["SMS"].id)
    assert text is not None
    assert (
        text.text
        == f"Acme Cleaning: $125.00 for {{link}} and {{amount}}. Pay here: {payment_links.checkout_url(request)}"
    )


async def test_a_template_without_the_link_gets_it_at_its_end(asked: Team) -> None:
    await Account.all().update(link_message_template="Please pay {amount}")
    request = await create(asked)
    text = await request_sending.compose(asked.agent, request, asked.channels["SMS"].id)
    assert text is not None
    assert text.text == f"Please pay $125.00\n{payment_links.checkout_url(request)}"


async def test_nothing_is_composed_for_what_is_closed(asked: Team) -> None:
    request = await create(asked)
    await voids.void(asked.agent, payment_request_id=request.id)
    now = await PaymentRequest.get(id=request.id)
    assert await request_sending.compose(asked.agent, now, asked.channels["SMS"].id) is None


# --------------------------------------------------------------------------------------------------------------- send
async def send(team: Team, request: PaymentRequest, **overrides: Any) -> request_sending.Sent:
    values: dict[str, Any] = {
        "payment_request_id": request.id,
        "channel_id": team.channels["SMS"].id,
        "idempotency_key": str(uuid4()),
    }
    return await request_sending.send(team.agent, **values | overrides)


async def test_sending_makes_it_sent_and_logs_the_first_card(asked: Team) -> None:
    request = await create(asked)
    sent = await send(asked, request)
    assert (sent.request.status, sent.request.sent_via, sent.request.delivery_state) == ("SENT", "MESSAGE", "QUEUED")
    assert payment_links.checkout_url(request) in sent.message.body
    assert sent.card is not None
    card = await ActivityCard.get()
    assert (card.id, card.kind, card.status, card.message_id) == (
        sent.card.id,
        "PAYMENT_REQUEST",
        "SENT",
        sent.message.id,
    )
    assert await counts("message", "activity_card", "job") == {"message": 1, "activity_card": 1, "job": 1}
    await assert_consistent(asked.account.id)


async def test_sending_again_is_a_new_message_and_no_new_card(asked: Team) -> None:
    request = await create(asked)
    await send(asked, request, body="Hello {link}")
    again = await send(asked, request, body="A reminder")
    assert again.card is None
    assert again.message.body == f"A reminder\n{payment_links.checkout_url(request)}"
    assert await counts("message", "activity_card") == {"message": 2, "activity_card": 1}


async def test_a_send_key_sends_once(asked: Team) -> None:
    request = await create(asked)
    first = await send(asked, request, idempotency_key="send-it-once")
    again = await send(asked, request, idempotency_key="send-it-once")
    assert (again.message.id, again.card and again.card.id) == (first.message.id, first.card and first.card.id)
    results = await asyncio.gather(
        *(send(asked, request, idempotency_key="another-key") for _ in range(4)), return_exceptions=True
    )
    assert len({result.message.id for result in results if isinstance(result, request_sending.Sent)}) == 1
    with pytest.raises(errors.IdempotencyKeyParameterMismatch):
        await send(asked, request, idempotency_key="send-it-once", body="Other")
    assert await Message.all().count() == 2
    assert await counts("job", "activity_card") == {"job": 2, "activity_card": 1}


async def test_what_is_paid_void_or_about_to_be_void_is_not_sent(asked: Team) -> None:
    for state, refusal in (
        ({"status": "PAID"}, errors.AlreadyPaid),
        ({"status": "VOID"}, errors.AlreadyVoid),
        ({"void_requested_at": datetime.now(UTC)}, errors.AlreadyVoid),
    ):
        request = await create(asked)
        await PaymentRequest.filter(id=request.id).update(**state)
        with pytest.raises(refusal):
            await send(asked, request)
    assert await counts("message", "activity_card", "job") == {"message": 0, "activity_card": 0, "job": 0}


async def test_a_payment_that_arrives_while_it_is_sent_stops_the_sending(
    asked: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await create(asked)
    compose = composer.compose

    def paid_meanwhile(*args: Any) -> str:
        request.status = "PAID"
        return compose(*args)

    monkeypatch.setattr(composer, "compose", paid_meanwhile)
    carried = payment_links.carried

    async def then_paid(account_id: UUID, text: str) -> list[PaymentRequest]:
        found = await carried(account_id, text)
        await PaymentRequest.filter(id=request.id).update(status="PAID")
        return found

    monkeypatch.setattr(payment_links, "carried", then_paid)
    with pytest.raises(errors.AlreadyPaid):
        await send(asked, request, idempotency_key="key-of-the-send")
    assert await counts("message", "activity_card", "job") == {"message": 0, "activity_card": 0, "job": 0}


async def test_a_channel_that_cannot_be_used_refuses_and_nothing_is_sent(asked: Team) -> None:
    request = await create(asked)
    asked.channels["SMS"].connected = False
    await asked.channels["SMS"].save()
    with pytest.raises(errors.ChannelNotConnected):
        await send(asked, request)
    with pytest.raises(errors.MessagingWindowClosed):
        await send(asked, request, channel_id=asked.channels["WHATSAPP"].id)
    with pytest.raises(errors.NotFound):
        await send(asked, request, channel_id=UUID(int=1))
    assert await counts("message", "activity_card", "job") == {"message": 0, "activity_card": 0, "job": 0}
    assert (await PaymentRequest.get(id=request.id)).status == "DRAFT"


# ----------------------------------------------------------------------------------------------- copy, discard, actions
async def test_copying_the_link_is_remembered_once_and_sends_nothing(asked: Team) -> None:
    request = await create(asked)
    first = await payment_requests.record_link_copied(asked.agent, request.id)
    again = await payment_requests.record_link_copied(asked.agent, request.id)
    assert (first.status, first.link_copied_at, again.version) == ("DRAFT", again.link_copied_at, 2)
    assert await kinds_logged(asked.account.id) == [*FIRST, "payment_request.link_copied"]
    assert await counts("message", "activity_card") == {"message": 0, "activity_card": 0}


async def test_a_draft_that_nobody_has_seen_can_be_discarded_and_keeps_its_number(asked: Team) -> None:
    request = await create(asked)
    await payment_requests.discard(asked.agent, request.id)
    assert await checkout_page.find(token_of(request)) is None
    with pytest.raises(errors.NotFound):
        await payment_requests.discard(asked.agent, request.id)
    assert (await create(asked)).number == "PR-0000002"
    await assert_consistent(asked.account.id)


async def test_what_was_copied_looked_at_opened_or_sent_cannot_be_discarded(asked: Team) -> None:
    copied, viewed, opened, sent = [await create(asked) for _ in range(4)]
    await payment_requests.record_link_copied(asked.agent, copied.id)
    await checkout_page.record_view(token_of(viewed), human=True)
    await checkout.open_checkout(token_of(opened))
    await send(asked, sent)
    for request in (copied, viewed, opened, sent):
        with pytest.raises(errors.AlreadySent):
            await payment_requests.discard(asked.agent, request.id)
    assert await PaymentRequest.filter(discarded_at=None).count() == 4


async def test_the_actions_follow_the_status(asked: Team) -> None:
    request = await create(asked)

    def names(status: str, **more: Any) -> list[str]:
        request.update_from_dict({"status": status, "void_requested_at": None} | more)
        return [name for name, _ in payment_requests.available_actions(request, "AGENT")]

    everything = ["SEND", "COPY_LINK", "VOID", "RECORD_OUTSIDE_PAYMENT"]
    assert names("DRAFT") == names("SENT") == names("PARTIALLY_PAID") == everything
    assert names("PROCESSING") == ["SEND", "COPY_LINK"]
    assert names("PAID") == names("VOID") == names("SENT", void_requested_at=datetime.now(UTC)) == []


async def test_the_due_date_is_kept(asked: Team) -> None:
    due = datetime.now(UTC) + timedelta(days=3)
    assert (await create(asked, due_at=due)).due_at == due
    assert (await Contact.get(id=asked.contact.id)).version == 1
