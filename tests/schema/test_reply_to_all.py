"""Reply to all, as an inbox asks for it."""

from __future__ import annotations

from models.ids import public_id
from tests.schema.conftest import Api
from tests.services.conftest import Team
from tests.services.messaging.test_copies import TOM, receive_email


async def test_the_api_suggests_copies_and_takes_them_on_email_channels_only(team: Team, api: Api) -> None:
    await receive_email(team, "It drips", cc=[TOM])
    conversation = public_id("cnv", team.conversation.id)
    found = await api.one(
        "query($id: ID!) { conversation(id: $id) { suggestedCc channels { maxCc channel { kind } } } }",
        {"id": conversation},
    )
    assert found["suggestedCc"] == [TOM]
    limits = {one["channel"]["kind"]: one["maxCc"] for one in found["channels"]}
    assert limits == dict.fromkeys(team.channels, 0) | {"EMAIL": 20}
    given = {
        "conversationId": conversation,
        "channelId": public_id("chn", team.channels["EMAIL"].id),
        "body": "We come",
        "idempotencyKey": "reply-to-all-1",
    }
    refused = await api.run("sendMessage", {**given, "cc": [TOM, "nobody"]}, "message { id }")
    assert refused["userErrors"] == [
        {"code": "INVALID", "message": "This is not an email address.", "field": ["input", "cc", "1"]}
    ]
    done = await api.run(
        "sendMessage", {**given, "cc": [TOM]}, "message { cc undeliveredCc ... on Message { deliveryStatus } }"
    )
    assert done["message"] == {"cc": [TOM], "undeliveredCc": [], "deliveryStatus": "QUEUED"}
