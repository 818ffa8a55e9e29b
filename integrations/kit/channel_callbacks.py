"""The channel suite, second part: callbacks."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import pytest

from integrations import media
from integrations.base import (
    EXTERNAL_ID_LIMIT,
    ChannelWebhook,
    DeliveryStatus,
    Feature,
    IntegrationError,
    PayloadInvalid,
    SignatureInvalid,
    external_id,
)
from integrations.kit.channel_bench import (
    AT,
    FILE_ID,
    PHONES,
    Answered,
    Became,
    Bench,
    Blocked,
    Broken,
    Echo,
    Edited,
    Event,
    NotOffered,
    Odd,
    OpenedLink,
    SentFile,
    SentOther,
    TookBack,
    Wrote,
    WroteInGroup,
    WroteToAnother,
    another_sender,
    machine_in,
)

TOKEN: Final = "Ab0-_" * 9 + "xyz"  # 48 characters, as the product's


def everything(received: ChannelWebhook) -> list[object]:
    return [*received.statuses, *received.messages, *received.elsewhere, *received.changes, *received.blockings]


# ------------------------------------------------------------------------------------------------------------- states
async def test_every_state_of_the_vendor_is_mapped_and_read(bench: Bench) -> None:
    sent = await bench.channel.send(bench.message())
    if not bench.vendor.words:
        with pytest.raises(NotOffered):
            bench.vendor.tell(Became(external_id=sent.external_id, word="delivered"))
        return
    for word, ours in bench.vendor.words.items():
        received = bench.receive(bench.vendor.tell(Became(external_id=sent.external_id, word=word)))
        assert [s.status for s in received.statuses] == [ours], word
        named = received.statuses[0]
        if named.up_to is None:
            assert named.external_id == sent.external_id
        else:  # all messages to this address up to then
            assert (named.external_id, named.address) == ("", bench.message().to)
        assert not received.messages
        if ours is DeliveryStatus.FAILED:
            assert named.error_code
            assert named.error_message


async def test_a_state_that_nobody_knows_yet_is_no_failure(bench: Bench) -> None:
    if bench.vendor.words:
        sent = await bench.channel.send(bench.message())
        try:
            callback = bench.vendor.tell(Became(external_id=sent.external_id, word="a-word-of-tomorrow"))
            received = bench.receive(callback)
        except (PayloadInvalid, NotOffered):
            return
        assert [s for s in received.statuses if s.status is not DeliveryStatus.UNKNOWN] == []


# ----------------------------------------------------------------------------------------------------------- messages
async def test_an_inbound_message_is_read_as_it_was_written(bench: Bench) -> None:
    sender, text = bench.vendor.address, "Hello, ¿cuánto? 👍\nsecond line"
    callback = bench.vendor.tell(Wrote(sender=sender, text=text))
    received = bench.receive(callback)
    assert [(m.sender, m.body.replace("\r\n", "\n").rstrip("\n")) for m in received.messages] == [(sender, text)]
    assert not [*received.statuses, *received.changes, *received.blockings, *received.elsewhere]
    assert received.messages[0].link_token is None
    # A repeated or redelivered callback is the same message.
    assert bench.receive(callback) == received
    again = bench.receive(bench.vendor.tell(Wrote(sender=sender, text=text, again=True)))
    assert [m.external_id for m in again.messages] == [m.external_id for m in received.messages]


async def test_times_are_the_vendors_and_have_a_zone(bench: Bench) -> None:
    callback = bench.vendor.tell(Wrote(sender=bench.vendor.address, text="Hello"))
    with machine_in("America/New_York"):
        received = bench.receive(callback)
    occurred_at = received.messages[0].occurred_at
    if bench.vendor.tells_time:
        assert occurred_at is not None
        assert abs(occurred_at - AT) < timedelta(seconds=1), f"{occurred_at.isoformat()}: wrong time zone or unit?"
    else:
        assert occurred_at is None


@pytest.mark.parametrize(
    ("text", "opt_out", "on_phones"),
    [
        ("STOP", True, True),
        (" stop. ", True, True),
        ("START", False, False),
        ("Hello", None, None),
        ("don't stop", None, None),
        ("Yes", None, False),
        ("Cancel", None, True),
    ],
)
async def test_words_that_withdraw_and_give_consent_count(
    bench: Bench, text: str, *, opt_out: bool | None, on_phones: bool | None
) -> None:
    received = bench.receive(bench.vendor.tell(Wrote(sender=bench.vendor.address, text=text)))
    expected = on_phones if bench.kind in PHONES else opt_out
    assert [m.opt_out for m in received.messages] == [expected], "opt_out_word(text, by_phone=…) of integrations.sms"


async def test_messages_of_two_contacts_never_have_the_same_id(bench: Bench) -> None:
    one, other = bench.vendor.address, another_sender(bench)
    events = [Wrote(sender=one, text="Hi"), Wrote(sender=other, text="Hi"), Wrote(sender=one, text="Hi", number=2)]
    ids = [bench.receive(bench.vendor.tell(event)).messages[0].external_id for event in events]
    assert len(set(ids)) == 3, "if the vendor counts in each chat, derive the id from chat and number"
    assert [len(external_id(one)) <= EXTERNAL_ID_LIMIT for one in ids] == [True] * 3


async def test_one_person_has_one_address_however_the_vendor_writes_it(bench: Bench) -> None:
    for spelling in (bench.vendor.address, *bench.vendor.spellings):
        received = bench.receive(bench.vendor.tell(Wrote(sender=spelling, text="Hi")))
        assert [m.sender for m in received.messages] == [bench.vendor.address], "use the address that send takes"
    if bench.kind in PHONES:
        assert re.fullmatch(r"\+[1-9]\d{6,14}", bench.vendor.address)


async def test_every_event_of_a_callback_is_taken_and_an_odd_one_holds_none_up(bench: Bench) -> None:
    sender = bench.vendor.address
    texts = ["one", "two", "three"]
    wrote: list[Event] = [Wrote(sender=sender, text=text, number=n) for n, text in enumerate(texts, 1)]
    if not bench.has(Feature.BATCHES):
        assert [bench.receive(bench.vendor.tell(event)).messages[0].body.strip() for event in wrote] == texts
        return
    for odd in ((), (Broken(),), (Odd(),) if bench.has(Feature.OTHER_EVENTS) else ()):
        received = bench.receive(bench.vendor.tell(wrote[0], *odd, wrote[1], *odd, wrote[2]))
        assert [m.body for m in received.messages] == texts
    many = [Wrote(sender=sender, text=f"text {n}", number=n) for n in range(1, bench.vendor.batch + 1)]
    received = bench.receive(bench.vendor.tell(*many))
    assert [m.body for m in received.messages] == [event.text for event in many]


async def test_a_callback_without_events_is_answered(bench: Bench) -> None:
    if bench.has(Feature.BATCHES):  # some vendors check the address so
        assert everything(bench.receive(bench.vendor.tell())) == []


async def test_what_is_written_in_a_group_is_no_private_message(bench: Bench) -> None:
    received = bench.told(Feature.GROUPS, WroteInGroup(sender=bench.vendor.address, text="Hi all"))
    if received is not None:
        assert everything(received) == []


async def test_what_the_channel_has_no_use_for_is_answered_and_left_out(bench: Bench) -> None:
    received = bench.told(Feature.OTHER_EVENTS, Odd())
    if received is not None:
        assert everything(received) == []


async def test_another_accounts_message_is_not_ours(bench: Bench) -> None:
    if bench.has(Feature.SHARED_CALLBACKS):
        try:
            received = bench.receive(bench.vendor.tell(WroteToAnother(sender=bench.vendor.address, text="Hi")))
        except PayloadInvalid:
            return
        assert not [*received.messages, *received.elsewhere]
    else:
        with pytest.raises(NotOffered):
            bench.vendor.tell(WroteToAnother(sender=bench.vendor.address, text="Hi"))


async def test_our_own_messages_are_not_taken_for_the_contacts(bench: Bench) -> None:
    sent = await bench.channel.send(bench.message())
    echo = Echo(external_id=sent.external_id, recipient=bench.vendor.address, text=bench.message().body)
    received = bench.told(Feature.ECHOES, echo)
    if received is not None:
        assert not received.messages
        assert {one.external_id for one in received.elsewhere} <= {sent.external_id}


async def test_an_answer_points_at_its_message_and_has_its_own_id(bench: Bench) -> None:
    sender = bench.vendor.address
    plain = bench.receive(bench.vendor.tell(Wrote(sender=sender, text="ok", number=7))).messages[0]
    sent = await bench.channel.send(bench.message())
    event = Answered(sender=sender, text="ok", number=7, external_id=sent.external_id)
    received = bench.told(Feature.ANSWERS, event)
    if received is not None:
        answers = [(m.external_id, m.body, m.in_reply_to) for m in received.messages]
        assert answers == [(plain.external_id, "ok", sent.external_id)]


async def test_an_edit_changes_its_message_and_is_no_new_one(bench: Bench) -> None:
    sender = bench.vendor.address
    known = bench.receive(bench.vendor.tell(Wrote(sender=sender, text="ten", number=3))).messages[0]
    for text, opt_out in (("twenty", None), ("STOP", True)):
        received = bench.told(Feature.EDITS, Edited(sender=sender, text=text, number=3))
        if received is not None:
            assert not received.messages
            edits = [(c.external_id, c.body, c.opt_out, c.removed) for c in received.changes]
            assert edits == [(known.external_id, text, opt_out, False)]


async def test_a_message_that_its_writer_takes_back_is_removed(bench: Bench) -> None:
    sender = bench.vendor.address
    known = bench.receive(bench.vendor.tell(Wrote(sender=sender, text="oops", number=4))).messages[0]
    received = bench.told(Feature.REMOVALS, TookBack(sender=sender, number=4))
    if received is not None:
        assert not received.messages
        assert [(c.external_id, c.removed) for c in received.changes] == [(known.external_id, True)]


@pytest.mark.parametrize("blocked", [True, False])
async def test_a_block_and_its_end_are_told(bench: Bench, *, blocked: bool) -> None:
    received = bench.told(Feature.BLOCKS, Blocked(sender=bench.vendor.address, blocked=blocked))
    if received is not None:
        assert not received.messages
        assert [(b.address, b.blocked) for b in received.blockings] == [(bench.vendor.address, blocked)]


async def test_a_deep_link_brings_our_token_back_with_the_contact(bench: Bench) -> None:
    url = bench.channel.deep_link(TOKEN)
    event = OpenedLink(sender=bench.vendor.address, text="", token=TOKEN)
    if bench.told(Feature.DEEP_LINKS, event) is None:
        assert url is None
        return
    callback = bench.vendor.tell(event)
    received = bench.receive(callback)
    assert bench.receive(callback) == received, "a repeated delivery must give the same message"
    assert url is not None
    assert (url.startswith("https://"), TOKEN in url) == (True, True)
    assert [secret for secret in bench.secrets if secret in url] == []
    assert [(m.sender, m.link_token) for m in received.messages] == [(bench.vendor.address, TOKEN)]
    assert TOKEN not in received.messages[0].body, "the thread shows the body"


async def test_what_is_neither_text_nor_file_is_a_message_all_the_same(bench: Bench) -> None:
    for what in ("place", "sticker"):
        received = bench.told(
            Feature.OTHER_CONTENT, SentOther(sender=bench.vendor.address, text="", number=5, what=what)
        )
        if received is not None:
            assert [m.sender for m in received.messages] == [bench.vendor.address]
            assert received.messages[0].body.strip(), "describe it in `body`"
            assert received.messages[0].opt_out is None


async def test_the_words_beside_a_file_are_read(bench: Bench) -> None:
    received = bench.told(Feature.CAPTIONS, SentFile(sender=bench.vendor.address, text="the receipt", number=6))
    if received is not None:
        assert [(m.body.strip(), len(m.attachments)) for m in received.messages] == [("the receipt", 1)]


async def test_a_file_of_any_type_is_read(bench: Bench) -> None:
    for name, content_type in (("a.png", "image/png"), ("a.pdf", "application/pdf"), ("a.ogg", "audio/ogg")):
        event = SentFile(sender=bench.vendor.address, text="", name=name, content_type=content_type)
        received = bench.told(Feature.FILES, event)
        if received is not None:
            assert [len(m.attachments) for m in received.messages] == [1], content_type


async def test_files_are_named_by_the_callback_and_fetched_later(bench: Bench) -> None:
    event = SentFile(sender=bench.vendor.address, text="")
    received = bench.told(Feature.FILES, event)
    if received is None:
        return
    (message,) = received.messages
    (attachment,) = message.attachments
    if "content" in attachment:
        return  # the callback contains the file
    url = attachment.get("url") or await bench.channel.media_url(attachment["id"])
    with contextlib.suppress(IntegrationError):  # the vendor may not know this file
        assert FILE_ID not in await bench.channel.media_url(FILE_ID), "quote the id in the URL"
    trusted = frozenset(media.origin(address) for address in bench.addresses.values())
    content = await media.fetch(url, headers=bench.channel.media_headers, limit_bytes=10_000, trusted=trusted)
    assert content == event.content
    assert attachment.get("content_type", event.content_type).split("/")[0] in ("image", "application")
    # Credentials go only to the vendor.
    ours = [media.origin(url), *(address.rstrip("/") for address in bench.addresses.values())]
    for stranger in (
        "https://files.example.test/1",
        *(f"{one}@evil.test/1" for one in ours),
        *(f"{one}.evil.test/1" for one in ours),
        "https://files.example.test/?" + url,
        url.replace("//", "//x.test/", 1),
    ):
        assert dict(bench.channel.media_headers(stranger)) == {}


# --------------------------------------------------------------------------------------------------------- who calls
async def test_unsigned_and_forged_requests_are_refused(bench: Bench) -> None:
    url, body, headers = bench.vendor.tell(Wrote(sender=bench.vendor.address, text="Hello there"))
    assert bench.receive((url, body, headers)).messages
    name = bench.vendor.signature_header
    given = headers[name]
    forged: list[tuple[bytes, dict[str, str]]] = [
        (body, {}),
        (body, {**headers, name: ""}),
        (body, {**headers, name: given[:-1]}),
        (body, {**headers, name: given + "0"}),
        (body, {**headers, name: given[::-1]}),
        (body, {**headers, name: "é" + given[1:]}),
        (b"", {}),
    ]
    if bench.has(Feature.SIGNED_BODY):
        odd = bytes([*body[:20], body[20] ^ 1, *body[21:]])
        forged += [(raw, headers) for raw in (body[:-9], body + b"0", body + b"\n", b" " + body, odd, b"")]
    for raw, given_headers in forged:
        with pytest.raises(SignatureInvalid):
            bench.receive((url, raw, given_headers))
    # Another connection has other secrets.
    values = {**bench.vendor.credentials, **dict.fromkeys(bench.vendor.signing, "another-secret")}
    with pytest.raises(SignatureInvalid):
        bench.receive((url, body, headers), bench.another(values))


async def test_a_connection_without_a_secret_takes_nothing(bench: Bench) -> None:
    empty = {name: value for name, value in bench.vendor.credentials.items() if name not in bench.vendor.signing}
    try:
        channel = bench.another(empty)
    except IntegrationError:  # the secret is required
        return
    url, body, headers = bench.vendor.tell(Wrote(sender=bench.vendor.address, text="Hello"))
    for given_headers in (headers, {}, {**headers, bench.vendor.signature_header: ""}):
        with pytest.raises(SignatureInvalid):
            bench.receive((url, body, given_headers), channel)


async def test_the_check_of_the_address_answers_the_vendor_alone(bench: Bench) -> None:
    challenge = "echo-1234567890"
    url = bench.vendor.url
    if bench.has(Feature.HANDSHAKE):
        genuine = bench.vendor.handshake(challenge, genuine=True)
        answer = bench.take(bench.request(url, b"", {}, method="GET", query=genuine))
        assert (answer.answer_body, answer.answer_type) == (challenge, "text/plain")
        forged = [bench.vendor.handshake(challenge, genuine=False), {}]
    else:
        with pytest.raises(NotOffered):
            bench.vendor.handshake(challenge, genuine=True)
        forged = [
            {},
            {"challenge": challenge},
            {"hub.mode": "subscribe", "hub.challenge": challenge, "crc_token": challenge},
        ]
    for query in forged:
        with pytest.raises((SignatureInvalid, PayloadInvalid)):
            bench.take(bench.request(url, b"", {}, method="GET", query=query))


async def test_registering_tells_the_vendor_our_address_and_its_calls_are_taken(bench: Bench) -> None:
    if not bench.has(Feature.REGISTRATION):
        assert await bench.channel.register_webhook(bench.vendor.url) is None
        return
    fields = {field.name for field in dataclasses.fields(bench.channel.credentials)}
    unregistered = {name: value for name, value in bench.vendor.credentials.items() if name not in bench.vendor.signing}
    first = None
    for values in (unregistered, bench.vendor.credentials):
        try:
            channel = bench.another(values)
        except IntegrationError:  # the credentials are required
            continue
        kept = await channel.register_webhook(bench.vendor.url)
        assert kept is not None
        assert set(kept) <= fields
        assert bench.vendor.registered() == bench.vendor.url
        first = {**values, **kept}
        # Registering again must keep what is registered.
        known = bench.another(first)
        assert {**first, **(await known.register_webhook(bench.vendor.url) or {})} == first
        callback = bench.vendor.tell(Wrote(sender=bench.vendor.address, text="Hello"))
        assert bench.receive(callback, known).messages
    assert first is not None


# ------------------------------------------------------------------------------------------------------------ nonsense
NONSENSE: Final = (
    b"",
    b"hello world",
    b"\xff\xfe",
    b"[]",
    b"null",
    b"1",
    b'"x"',
    b"{}",
    b'{"hello": "world"}',
    b"[" * 50_000,
)


async def test_a_genuine_callback_that_makes_no_sense_is_refused_or_left_out(bench: Bench) -> None:
    for body in NONSENSE:
        received = taken_or_refused(bench, body)
        assert received is None or everything(received) == []


async def test_no_odd_value_in_a_callback_is_a_crash(bench: Bench) -> None:
    sender = bench.vendor.address
    sent = await bench.channel.send(bench.message())
    events: list[Event] = [Wrote(sender=sender, text="Hello"), SentFile(sender=sender, text="")]
    events += [Became(external_id=sent.external_id, word=word) for word in bench.vendor.words]
    events += [Edited(sender=sender, text="twenty"), Blocked(sender=sender), TookBack(sender=sender)]
    tried = 0
    for event in events:
        try:
            _, body, _ = bench.vendor.tell(event)
        except NotOffered:
            continue
        for changed in variants(body):
            tried += 1
            taken_or_refused(bench, changed)
    assert tried > 20


def taken_or_refused(bench: Bench, body: bytes) -> ChannelWebhook | None:
    """The webhook of a genuine callback with this body; None if the channel refused it properly."""
    try:
        return bench.receive(bench.vendor.signed(body))
    except (PayloadInvalid, SignatureInvalid):
        return None


def variants(body: bytes) -> Iterator[bytes]:
    """The body with each JSON value removed or changed; else truncated."""
    try:
        document = json.loads(body)
    except ValueError:
        pairs = parse_qsl(body.decode("latin-1"), keep_blank_values=True)
        for n, (name, _) in enumerate(pairs):
            yield urlencode([*pairs[:n], *pairs[n + 1 :]]).encode()
            yield urlencode([*pairs[:n], (name, "\x00\ud83d?"), *pairs[n + 1 :]], errors="surrogatepass").encode()
        for n in range(1, 8):
            yield body[: len(body) * n // 8]
        return
    for path in _paths(document):
        for value in (_MISSING, None, True, -1, 10**400, 1.5, "", "x", "\ud83d", "\x00", [], {}, [None], {"x": None}):
            yield _changed(document, path, value)


_MISSING: Final = object()


def _paths(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inside = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in inside:
        yield (*path, key)
        yield from _paths(value, (*path, key))


def _changed(document: Any, path: tuple[Any, ...], value: object) -> bytes:
    copy = json.loads(json.dumps(document))
    holder = copy
    for key in path[:-1]:
        holder = holder[key]
    if value is _MISSING:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return json.dumps(copy).encode()


# Authors import everything beside their own names.
__all__ = [name for name in dir() if name.startswith("test_")]
