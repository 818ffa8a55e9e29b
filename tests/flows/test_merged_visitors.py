"""Visitors of the chat widget whose contact the team merges with another."""

from __future__ import annotations

from typing import Any

from tests.flows import documents as d
from tests.flows.conftest import Team
from tests.flows.harness import key
from tests.flows.test_web_chat import Widget, contact_of, says, until_sent, widget

__all__ = ["widget"]

MERGE = f"mutation($input: MergeContactsInput!) {{ mergeContacts(input: $input) {{ contact {{ id }} {d.ERRORS} }} }}"


async def merge(team: Team, kept: dict[str, Any], merged: dict[str, Any]) -> None:
    given = {"idempotencyKey": key(), "contactId": kept["id"], "mergedContactId": merged["id"]}
    await team.product.ok(MERGE, given, token=team.agent)


async def test_a_visitor_goes_on_in_its_chat_when_its_contact_is_merged_into_another(widget: Widget) -> None:
    team, visitor = widget.team, widget.browser()
    await team.connect_channels()
    team.channels["WEB_CHAT"] = widget.id
    maria = await team.contact()
    begun = await visitor.start()
    await visitor.writes("Do you clean on Sundays?")
    visited = await contact_of(team)
    request = await team.request(visited)
    await team.send(request, "WEB_CHAT")
    await team.send(await team.request(maria), "SMS")
    await until_sent(team, visited, 1)
    cursor = (await visitor.one("{ visit { eventCursor } }"))["eventCursor"]
    async with visitor.listen(cursor) as feed:
        assert (await feed.next())["__typename"] == "VisitorSubscribed"
        await merge(team, maria, visited)
        answer = await says(team, visited, "Yes")  # by the old id of the conversation
        heard = await feed.until("VisitorMessageChanged", message__id=answer["id"])
        assert heard["message"]["body"] == "Yes"
        written = await visitor.writes("Fine")
        assert (await feed.until("VisitorMessageChanged", message__id=written["id"]))["message"]["body"] == "Fine"
        await team.pay(request)
        paid = await feed.until("PaymentCardChanged", card__status="PAID")
        assert paid["card"]["id"] == request["id"]
    # The widget shows its own channel, as before; the team sees one thread.
    assert [m["body"] for m in await visitor.read() if not m["payments"]] == ["Do you clean on Sundays?", "Yes", "Fine"]
    assert len(await visitor.read()) == 4
    thread = await team.thread(maria)
    assert [item["body"] for item in thread if item.get("direction") == "INBOUND"] == [
        "Do you clean on Sundays?",
        "Fine",
    ]
    assert await team.cards(maria) == [
        ("PAYMENT_REQUEST", "SENT"),
        ("PAYMENT_REQUEST", "SENT"),
        ("PAYMENT_RECEIVED", "PAID"),
    ]
    # A cursor from before the merge, and from the first visit, go on as well.
    for after, count in ((cursor, 1), (begun["visit"]["eventCursor"], 1)):
        async with visitor.listen(after) as again:
            await again.next()
            assert len([await again.until("VisitorMessageChanged", message__id=written["id"])]) == count


async def test_visitors_who_become_one_contact_see_each_its_own_messages_and_a_person_all_of_theirs(
    widget: Widget,
) -> None:
    team = widget.team
    phone, laptop = widget.browser(), widget.browser()
    contacts = []
    for browser, words in ((phone, "from the phone"), (laptop, "from the laptop")):
        await browser.start()
        await browser.writes(words)
        contacts.append(await contact_of(team))
    await merge(team, contacts[0], contacts[1])
    # The answer goes to the browser that wrote last.
    await says(team, contacts[0], "to the laptop")
    await until_sent(team, contacts[0], 1)
    await phone.writes("phone again")
    await says(team, contacts[0], "to the phone")
    await until_sent(team, contacts[0], 2)
    assert [m["body"] for m in await phone.read()] == ["from the phone", "phone again", "to the phone"]
    assert [m["body"] for m in await laptop.read()] == ["from the laptop", "to the laptop"]
    assert len(await team.thread(contacts[1])) == 5
    # Who signs in on one device keeps what that device has said, and does not get the other's.
    laptop.identity = widget.identity("42")
    await laptop.start()
    await laptop.writes("signed in")
    assert [m["body"] for m in await laptop.read()] == ["from the laptop", "to the laptop", "signed in"]
    assert [m["body"] for m in await phone.read()] == ["from the phone", "phone again", "to the phone"]
    assert len(await team.thread(contacts[0])) == 6
