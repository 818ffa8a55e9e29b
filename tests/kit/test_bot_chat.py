"""A channel with few features passes the suite, with no test overridden or skipped."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from integrations.kit.channels import *  # noqa: F403 (the suite)
from tests.kit import bot_chat
from tests.kit.bot_chat import BotChatHarness
from tests.kit.planting import PLANTED, Mistake, of, run, with_mistake

SOURCE = Path(bot_chat.__file__).read_text()
RATE = "test_a_rate_limit_is_tried_again_after_the_wait_that_the_vendor_names"
EDITS = "test_an_edit_changes_its_message_and_is_no_new_one"


FORGED = "test_unsigned_and_forged_requests_are_refused"
TIMES = "test_times_are_the_vendors_and_have_a_zone"
IDS = "test_messages_of_two_contacts_never_have_the_same_id"
ODD = "test_what_the_channel_has_no_use_for_is_answered_and_left_out"
LINKS = "test_a_deep_link_brings_our_token_back_with_the_contact"
CLASS = "test_what_is_declared_is_implemented_and_nothing_else"


@pytest.fixture
def harness() -> BotChatHarness:
    return BotChatHarness()


@pytest.fixture
def unplanted() -> Iterator[None]:
    yield
    sys.modules.pop(PLANTED, None)


# Mistakes for which the sample has no place.
MISTAKES = (
    of(
        "the address of a call, with the token in it, is in the error",
        "test_no_error_shows_a_secret",
        (
            'raise IntegrationError(NAME, "connection", retryable=True) from None',
            'raise IntegrationError(NAME, "connection", f"{self._base}/bot{self._credentials.token}", retryable=True)',
        ),
    ),
    of(
        "the client's answer, with the token in it, is in the chain",
        "test_no_error_shows_a_secret",
        (
            "            said = json.loads(answer.content)\n",
            "            answer.raise_for_status()\n            said = json.loads(answer.content)\n",
        ),
        (
            '        except (TimeoutError, httpx2.HTTPError):\n            raise IntegrationError(NAME, "timeout", **lost) from None',
            "        except (TimeoutError, httpx2.HTTPError) as error:\n"
            '            raise IntegrationError(NAME, "timeout", **lost) from error',
        ),
    ),
    of(
        "a wait that is read from a header which the vendor does not send",
        RATE,
        ("retry_after_s=float(wait or 5)", "retry_after_s=None"),
    ),
    of(
        "a secret header is not compared",
        FORGED,
        ("not hmac.compare_digest(secret.encode(), given.encode())", "not given"),
    ),
    of(
        "seconds in the zone of the machine",
        TIMES,
        ("datetime.fromtimestamp(seconds, UTC)", "datetime.fromtimestamp(seconds)"),
    ),
    of(
        "seconds taken for milliseconds",
        TIMES,
        ("datetime.fromtimestamp(seconds, UTC)", "datetime.fromtimestamp(seconds / 1000, UTC)"),
    ),
    of(
        "numbers of messages without their chat",
        IDS,
        ("return f\"{_chat(message)}:{int(message['message_id'])}\"", "return str(int(message['message_id']))"),
    ),
    of(
        "the number of the update, which an edit has, too",
        EDITS,
        ("external_id=edited.external_id, body", "external_id=str(update['update_id']), body"),
    ),
    of(
        "a number as the sender",
        "test_an_inbound_message_is_read_as_it_was_written",
        ('return str(int(message["chat"]["id"]))', 'return message["chat"]["id"]'),
    ),
    of(
        "updates of other kinds are refused",
        ODD,
        ("    return ChannelWebhook()  #", '    raise PayloadInvalid(NAME, "unknown_update")  #'),
    ),
    of(
        "the command of a link, with its token, is the text", LINKS, ('body="/start" if started else text', "body=text")
    ),
    of(
        "states are declared that the vendor never tells",
        CLASS,
        ("            Feature.OTHER_EVENTS,\n", "            Feature.OTHER_EVENTS,\n            Feature.DELIVERED,\n"),
    ),
    of("blocks are read and not declared", "test_a_block_and_its_end_are_told", ("            Feature.BLOCKS,\n", "")),
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
async def test_the_kit_catches_a_mistake_in_a_bot(mistake: Mistake, unplanted: None) -> None:
    planted = with_mistake(SOURCE, mistake)
    with pytest.raises((Exception, pytest.fail.Exception)):
        await run(mistake.caught_by, planted.BotChatHarness)
