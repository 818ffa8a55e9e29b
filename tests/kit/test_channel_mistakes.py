"""The kit for channels catches authors' mistakes, each planted in the sample, by the test that names its rule."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator

import pytest

from integrations.kit.channel_bench import ChannelHarness
from tests.kit.planting import PLANTED, Mistake, of, run, suite, with_mistake
from tests.kit.sample import SAMPLE

pytestmark = pytest.mark.slow

CHAT = (SAMPLE / "acme_pay" / "chat.py").read_text()


@pytest.fixture(scope="module")
def sample() -> Iterator[type[ChannelHarness]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SAMPLE)
        patch.syspath_prepend(SAMPLE / "checks")
        yield importlib.import_module("test_acme_chat").AcmeChatHarness
    taken = ("acme_pay", "fake_acme", "test_acme_chat", PLANTED)
    for name in [name for name in sys.modules if name.partition(".")[0] in taken]:
        del sys.modules[name]


async def test_the_sample_without_a_mistake_passes_every_test(sample: type[ChannelHarness]) -> None:
    assert sum([await run(name, sample) for name in suite()]) >= 50


IMPORTS = ("import secrets\n", "import html\nimport secrets\nimport time\n")
DECLARED = "            Feature.EDITS,\n"
RECEIVE = "        secret = self._credentials.signing_secret\n        expected"
LIMIT = "if LIMITS.length_of(message.body) > (LIMITS.max_length or 0):"
LOST = "test_a_lost_answer_is_ambiguous_and_nothing_is_sent_twice"
FORGED = "test_unsigned_and_forged_requests_are_refused"
RATE = "test_a_rate_limit_is_tried_again_after_the_wait_that_the_vendor_names"
LIMITS = "test_the_limits_are_those_that_the_vendor_documents"
EVENTS = "test_every_event_of_a_callback_is_taken_and_an_odd_one_holds_none_up"
CONSENT = "test_words_that_withdraw_and_give_consent_count"
TIMES = "test_times_are_the_vendors_and_have_a_zone"
STATES = "test_every_state_of_the_vendor_is_mapped_and_read"
LENGTH = "test_a_text_at_the_limit_is_taken_and_one_more_is_refused_whole"
EDITS = "test_an_edit_changes_its_message_and_is_no_new_one"
FILES = "test_files_are_named_by_the_callback_and_fetched_later"
BLOCKS = "test_a_block_and_its_end_are_told"
REGISTER = "test_registering_tells_the_vendor_our_address_and_its_calls_are_taken"
LINKS = "test_a_deep_link_brings_our_token_back_with_the_contact"
LOOP = "test_no_call_stops_the_event_loop"
CLASS = "test_what_is_declared_is_implemented_and_nothing_else"
OTHER = "test_what_is_neither_text_nor_file_is_a_message_all_the_same"
ANSWERS = "test_an_answer_points_at_its_message_and_has_its_own_id"
LOOKED_UP = "test_looking_up_what_was_never_sent_finds_and_sends_nothing"
GROUP = '                case _ if "group" in event:'
NONSENSE = "test_a_genuine_callback_that_makes_no_sense_is_refused_or_left_out"

MISTAKES = (
    # messages
    of(
        "a message id that is unique in its chat only",
        "test_messages_of_two_contacts_never_have_the_same_id",
        ("""return f"{_chat(event)}:{int(event['number'])}\"""", "return str(int(event['number']))"),
    ),
    of(
        "an id of our own for every delivery",
        "test_an_inbound_message_is_read_as_it_was_written",
        ("""return f"{_chat(event)}:{int(event['number'])}\"""", "return secrets.token_hex()"),
    ),
    of(
        "one person in two spellings",
        "test_one_person_has_one_address_however_the_vendor_writes_it",
        ('return _text(event, "chat").lower()', 'return _text(event, "chat")'),
    ),
    of(
        "times without a zone",
        TIMES,
        (
            '    if moment.tzinfo is None:\n        raise ValueError("a time without a zone")\n    return moment',
            "    return moment.replace(tzinfo=None)",
        ),
    ),
    of("times in the zone of the office", TIMES, ('(_text(event, "at"))', '(_text(event, "at")[:19] + "-05:00")')),
    of("times of the delivery", TIMES, ('(_text(event, "at"))', '("2026-11-27T10:00:00+00:00")')),
    of("only the first event of a callback", EVENTS, ("for event in events:", "for event in events[:1]:")),
    of(
        "an odd event refuses those beside it",
        EVENTS,
        ("            continue  #", '            raise PayloadInvalid(NAME, "odd") from None  #'),
    ),
    of(
        "an unknown kind of event is refused",
        "test_what_the_channel_has_no_use_for_is_answered_and_left_out",
        (
            "                    statuses.append(_status(event))\n",
            "                    statuses.append(_status(event))\n"
            "                case _:\n"
            '                    raise PayloadInvalid(NAME, "unknown_type")\n',
        ),
    ),
    of(
        "an echo of our own message is the contact's",
        "test_our_own_messages_are_not_taken_for_the_contacts",
        ('case "text" | "file" | "place" | "sticker":', 'case "text" | "file" | "place" | "sticker" | "sent":'),
        ("int(event['number'])", "event.get('number') or event['id']"),
    ),
    of(
        "a message to another account is ours",
        "test_another_accounts_message_is_not_ours",
        ("if bot != self._credentials.bot:", "if False:"),
    ),
    of(
        "STOP is a text as any other",
        CONSENT,
        ("        opt_out=opt_out_word(text, by_phone=False),\n        occ", "        occ"),
    ),
    of(
        "STOP in one spelling",
        CONSENT,
        (
            "        opt_out=opt_out_word(text, by_phone=False),\n        occ",
            '        opt_out={"STOP": True, "START": False}.get(text),\n        occ',
        ),
    ),
    of(
        "every text with stop in it",
        CONSENT,
        (
            "        opt_out=opt_out_word(text, by_phone=False),\n        occ",
            '        opt_out=True if "stop" in text.lower() else opt_out_word(text, by_phone=False),\n        occ',
        ),
    ),
    of(
        "Yes, in a chat, gives consent",
        CONSENT,
        (
            "        opt_out=opt_out_word(text, by_phone=False),\n        occ",
            "        opt_out=opt_out_word(text),\n        occ",
        ),
    ),
    # changes of messages
    of(
        "an edit is a new message",
        EDITS,
        ('case "text" | "file" | "place" | "sticker":', 'case "text" | "file" | "place" | "sticker" | "edit":'),
        ('case "edit" | "unsend":', 'case "unsend":'),
    ),
    of(
        "an edit to STOP is not heard",
        EDITS,
        ("body=text, opt_out=opt_out_word(text, by_phone=False), occ", "body=text, occ"),
    ),
    of("edits are read and not declared", EDITS, (DECLARED, "")),
    of(
        "what was taken back stays",
        "test_a_message_that_its_writer_takes_back_is_removed",
        ('case "edit" | "unsend":', 'case "edit":'),
    ),
    # blocks, links, files
    of("a block is not reported", BLOCKS, ('case "block" | "unblock":', 'case "unblock":')),
    of("the end of a block is a block", BLOCKS, ('blocked = event["type"] == "block"', "blocked = True")),
    of("the token of a link is not read", LINKS, ('_text(event, "start") if "start" in event else None', "None")),
    of("a link with the bot's secret", LINKS, ("{self._credentials.bot}?start=", "{self._credentials.token}?start=")),
    of("a link without the token", LINKS, ("?start={token}", "")),
    of(
        "files are fetched while the callback is read",
        FILES,
        (
            '    return {"id": _text(file, "id"), "name"',
            '    httpx2.get(ADDRESS)\n    return {"id": _text(file, "id"), "name"',
        ),
    ),
    of("files are left out", FILES, ('[_file(event["file"])] if event["type"] == "file" else ()', "()")),
    of(
        "the token goes to every host",
        FILES,
        (
            '{"authorization": self._headers["authorization"]} if url.startswith(f"{self._base}/") else {}',
            '{"authorization": self._headers["authorization"]}',
        ),
    ),
    # states
    of("what is read is delivered", STATES, ('"seen": DeliveryStatus.READ', '"seen": DeliveryStatus.DELIVERED')),
    of(
        "a failure without its reason",
        STATES,
        ('error_code=_text(event, "reason") if failed else None', "error_code=None"),
    ),
    of(
        "a state that is not known is a failure",
        "test_a_state_that_nobody_knows_yet_is_no_failure",
        ('case "state" if _text(event, "state") in STATES:', 'case "state":'),
        ('status = STATES[event["state"]]', 'status = STATES.get(event["state"], DeliveryStatus.FAILED)'),
    ),
    # who calls
    of(
        "a signature is there, and not compared",
        FORGED,
        (
            'not hmac.compare_digest(expected, request.headers.get(SIGNATURE_HEADER, "").encode())',
            "not request.headers.get(SIGNATURE_HEADER)",
        ),
    ),
    of(
        "signed is what was parsed and written again",
        FORGED,
        (
            "sign(secret, request.body).encode()",
            'sign(secret, json.dumps(json.loads(request.body or b"{}")).encode()).encode()',
        ),
    ),
    of(
        "only the beginning of a signature",
        FORGED,
        (
            'hmac.compare_digest(expected, request.headers.get(SIGNATURE_HEADER, "").encode())',
            'request.headers.get(SIGNATURE_HEADER, "").encode().startswith(expected)',
        ),
    ),
    of(
        "a header that is not ASCII is a crash",
        FORGED,
        ("sign(secret, request.body).encode()", "sign(secret, request.body)"),
        ('request.headers.get(SIGNATURE_HEADER, "").encode()', 'request.headers.get(SIGNATURE_HEADER, "")'),
    ),
    of(
        "a connection without a secret takes what is signed with none",
        "test_a_connection_without_a_secret_takes_nothing",
        ("if not secret or not hmac", "if not hmac"),
        (
            "def sign(secret: str, body: bytes) -> str:\n",
            'def sign(secret: str, body: bytes) -> str:\n    if not secret:\n        return ""\n',
        ),
    ),
    of(
        "the check of the address echoes whatever is asked",
        "test_the_check_of_the_address_answers_the_vendor_alone",
        (
            RECEIVE,
            '        if request.method == "GET":\n            return ChannelWebhook(answer_body=request.query.get("challenge", ""))\n'
            + RECEIVE,
        ),
    ),
    of(
        "nonsense is a crash",
        NONSENSE,
        ("except (KeyError, TypeError, ValueError, RecursionError) as error:", "except ValueError as error:"),
    ),
    of("a deep nest is a crash", NONSENSE, (", ValueError, RecursionError)", ", ValueError)")),
    of(
        "a number where a text belongs is a crash",
        "test_no_odd_value_in_a_callback_is_a_crash",
        (
            "    if not isinstance(value, str) or not value:\n        raise ValueError",
            "    if not value:\n        raise ValueError",
        ),
    ),
    # registration
    of("each registration makes another secret", REGISTER, ("self._credentials.signing_secret or secrets", "secrets")),
    of(
        "the secret of a registration is forgotten",
        REGISTER,
        ('        return {"signing_secret": secret}\n', "        return {}\n"),
    ),
    of("another address is registered", REGISTER, ('body={"url": url,', 'body={"url": url.rstrip("1"),')),
    # sending
    of(
        "a blocking client",
        LOOP,
        (
            "await self._client.request(method, self._base + path,",
            "httpx2.request(method, self._base + path, timeout=2,",
        ),
    ),
    of(
        "a pause that blocks",
        LOOP,
        IMPORTS,
        ('        body = {"chat": message.to', '        time.sleep(0.05)\n        body = {"chat": message.to'),
    ),
    of(
        "a time-out is a plain failure",
        LOST,
        ('"timeout", retryable=reading, ambiguous=not reading', '"timeout", retryable=True'),
    ),
    of(
        "a server error is a plain failure",
        LOST,
        ('"server_error", retryable=reading, ambiguous=not reading', '"server_error", retryable=True'),
    ),
    of(
        "an answer that makes no sense is a crash",
        LOST,
        (
            '        except (TypeError, ValueError) as error:\n            raise IntegrationError(NAME, "unexpected',
            '        except ZeroDivisionError as error:\n            raise IntegrationError(NAME, "unexpected',
        ),
    ),
    of(
        "the client's exceptions get out",
        LOST,
        ("except (TimeoutError, httpx2.HTTPError) as error:", "except ZeroDivisionError as error:"),
    ),
    of(
        "an answer without an id is a crash",
        LOST,
        ('        if not isinstance(made.get("id"), str):', "        if False:"),
        ('external_id=made["id"]', 'external_id=str(made["id"])'),
    ),
    of(
        "send repeats itself",
        LOST,
        (
            '        made = await self._call("POST", "/v1/messages", body=body)\n',
            "        try:\n"
            '            made = await self._call("POST", "/v1/messages", body=body)\n'
            "        except IntegrationError:\n"
            '            made = await self._call("POST", "/v1/messages", body=body)\n',
        ),
    ),
    of(
        "what surely never left is in doubt",
        "test_a_vendor_that_is_not_reached_has_taken_nothing",
        ("type(error).__name__, retryable=True)", "ambiguous=True)"),
    ),
    of(
        "a refusal is in doubt",
        "test_a_recipient_whom_the_vendor_refuses_is_refused_for_good",
        ("retryable=retryable, code=code", "ambiguous=True, code=code"),
    ),
    of(
        "who has blocked us is a refusal as any other",
        "test_a_recipient_whom_the_vendor_refuses_is_refused_for_good",
        ('403: ("opted_out", False)', '403: ("refused", False)'),
    ),
    of("a rate limit is for good", RATE, ('429: ("rate_limited", True)', '429: ("rate_limited", False)')),
    of("the wait after a rate limit is not read", RATE, (", retry_after_s=wait)", ")")),
    of(
        "a rate limit is in doubt",
        RATE,
        ("retryable=retryable, code=code", "retryable=retryable, ambiguous=retryable, code=code"),
    ),
    of(
        "a text that is too long is cut",
        LENGTH,
        ('"text": message.body,', '"text": message.body[:250],'),
        (LIMIT, "if False:"),
    ),
    of("a text is counted in code points", LENGTH, (LIMIT, "if len(message.body) > (LIMITS.max_length or 0):")),
    of("a text is counted in bytes", LENGTH, (LIMIT, "if len(message.body.encode()) > (LIMITS.max_length or 0):")),
    of(
        "a text is escaped",
        "test_a_text_arrives_exactly_as_it_was_written",
        IMPORTS,
        ('"text": message.body,', '"text": html.escape(message.body),'),
    ),
    of(
        "an empty text is sent",
        "test_an_empty_text_is_refused",
        ("if not message.body.strip():", "if not message.body:"),
    ),
    of(
        "a secret in an error",
        "test_no_error_shows_a_secret",
        ('"connection", type(error).__name__,', '"connection", f"{error} with {self._headers}",'),
    ),
    of("the limit is declared in code points", LIMITS, ("length_unit=LengthUnit.UTF16_UNITS,", "")),
    of("the window is not declared", LIMITS, ("    window_hours=48,\n", "")),
    of("the pace for one recipient is not declared", LIMITS, ("    recipient_messages_per_s=1,\n", "")),
    # what is found again, and what is claimed
    of(
        "a message that is not there is found",
        "test_a_lost_answer_is_found_again_where_the_vendor_can_be_asked",
        (
            '        if len(found) != 1 or found[0]["chat"] != message.to:\n            return None\n',
            "        if len(found) != 1:\n            return None\n",
        ),
    ),
    of(
        "a state is declared and never reported",
        CLASS,
        ('    "lost": DeliveryStatus.FAILED,\n', ""),
        ("            Feature.FAILED,\n", ""),
    ),
    of("look_up is written and not declared", CLASS, ("            Feature.LOOK_UP,\n", "")),
    of(
        "the token is shown",
        "test_credentials_do_not_show_their_secrets",
        ("token: str = field(repr=False)", "token: str"),
    ),
    of(
        "a place is left out",
        "test_what_is_neither_text_nor_file_is_a_message_all_the_same",
        ('case "text" | "file" | "place" | "sticker":', 'case "text" | "file" | "sticker":'),
    ),
    of(
        "the words beside a file are lost",
        "test_the_words_beside_a_file_are_read",
        ('or event.get("text") or ""', 'or (event["text"] if event["type"] == "text" else "")'),
    ),
    of(
        "any key is taken",
        "test_check_refuses_keys_that_the_vendor_does_not_know",
        ('return str((await self._call("GET", "/v1/me", reading=True)).get("bot"))', "return self._credentials.bot"),
    ),
    of(
        "an id that is a number",
        "test_one_call_is_one_message_and_each_attempt_has_its_own_id",
        ('external_id=made["id"]', 'external_id=int(made["id"][3:])'),
    ),
    of(
        "check asks no vendor",
        "test_check_answers_without_sending_anything",
        ('return str((await self._call("GET", "/v1/me", reading=True)).get("bot"))', "return None"),
    ),
    of(
        "every kind is served",
        "test_a_channel_is_not_made_for_a_kind_that_it_does_not_serve",
        ("if kind not in self.kinds:", "if False:"),
    ),
    # what an outside author got wrong
    of(
        "the id of an answer is that of the message that it points at",
        ANSWERS,
        (
            "        external_id=_id(event),\n        sender",
            '        external_id=event.get("answers") or _id(event),\n        sender',
        ),
    ),
    of(
        "what an answer points at is not reported",
        ANSWERS,
        ('in_reply_to=_text(event, "answers") if "answers" in event else None', "in_reply_to=None"),
    ),
    of(
        "a key made from the text",
        "test_the_same_text_twice_is_two_messages",
        ('"mark": message.attempt_id}', '"mark": message.body}'),
    ),
    of(
        "a look-up that sends again",
        LOOKED_UP,
        (
            '        found = (await self._call("GET", f"/v1/messages?mark',
            '        await self.send(message)\n        found = (await self._call("GET", f"/v1/messages?mark',
        ),
    ),
    of(
        "a look-up that does not ask",
        LOOKED_UP,
        (
            '        found = (await self._call("GET", f"/v1/messages?mark',
            '        return StatusUpdate(external_id="1", status=DeliveryStatus.SENT)\n'
            '        found = (await self._call("GET", f"/v1/messages?mark',
        ),
    ),
    of(
        "what is delivered again is left out",
        "test_an_inbound_message_is_read_as_it_was_written",
        (GROUP, '                case _ if "group" in event or event.get("again"):'),
    ),
    of(
        "a group's message is a private one",
        "test_what_is_written_in_a_group_is_no_private_message",
        (GROUP, "                case _ if False:"),
    ),
    of(
        "a random id for who comes by a link",
        LINKS,
        (
            "        external_id=_id(event),\n        sender",
            '        external_id=secrets.token_hex() if "start" in event else _id(event),\n        sender',
        ),
    ),
    of(
        "the token goes to addresses that begin alike",
        FILES,
        ('url.startswith(f"{self._base}/")', "url.startswith(self._base)"),
    ),
    of("an id is not quoted in an address", FILES, ("quote(media_id, safe='')", "media_id")),
    of("only ten events of a callback", EVENTS, ("for event in events:", "for event in events[:10]:")),
    of(
        "a callback without events is refused",
        "test_a_callback_without_events_is_answered",
        (
            "        if bot != self",
            '        if not events:\n            raise PayloadInvalid(NAME, "no_events")\n        if bot != self',
        ),
    ),
    of(
        "the name of an unknown person is a crash",
        "test_the_name_of_an_unknown_person_is_none_or_a_refusal",
        (
            "    async def aclose",
            "    async def name_of(self, address: str) -> str | None:\n"
            "        return {}[address]\n\n    async def aclose",
        ),
    ),
    of(
        "pictures are left out",
        "test_a_file_of_any_type_is_read",
        (
            '    return {"id": _text(file, "id"), "name"',
            '    if file["mime"].startswith("image/"):\n        raise ValueError\n    return {"id": _text(file, "id"), "name"',
        ),
    ),
    of("stickers are left out", OTHER, ('"file" | "place" | "sticker":', '"file" | "place":')),
    of("a place has no words", OTHER, ('"place": "[a place on the map]"', '"place": " "')),
    of(
        "blanks around a text are cut",
        "test_a_text_arrives_exactly_as_it_was_written",
        ('"text": message.body,', '"text": message.body.strip(),'),
    ),
    of(
        "what was taken before is a refusal",
        "test_the_same_attempt_again_is_no_refusal",
        (" and answer.status_code != TAKEN_BEFORE", ""),
    ),
    of("no time-out around the whole call", LOST, ("asyncio.timeout(self._timeout_s)", "asyncio.timeout(None)")),
    of(
        "local time is called UTC",
        TIMES,
        ("    return moment\n", "    return moment.astimezone().replace(tzinfo=UTC)\n"),
        ("from datetime import datetime\n", "from datetime import UTC, datetime\n"),
    ),
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
async def test_the_kit_catches_an_authors_mistake(mistake: Mistake, sample: type[ChannelHarness]) -> None:
    planted = type("Planted", (sample,), {"channel": with_mistake(CHAT, mistake).AcmeChat})
    with pytest.raises((Exception, pytest.fail.Exception)):
        await run(mistake.caught_by, planted)


def test_every_test_of_the_kit_has_a_mistake_that_only_it_need_find() -> None:
    assert len(MISTAKES) >= 60
    unproved = set(suite()) - {mistake.caught_by for mistake in MISTAKES}
    assert unproved == {
        "test_a_missing_subject_is_refused_where_one_is_needed",  # email
        "test_one_instance_serves_many_tasks_and_closes_twice",
        "test_the_registry_takes_the_class_under_its_name",  # tests/integrations/test_registry.py
    }
