"""The root of the visitor API's mutations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import strawberry
from strawberry.extensions import FieldExtension
from strawberry.types.field import StrawberryField

from models.errors import Invalid, Refusal
from models.ids import parse_public_id
from resolvers.visitor.context import VisitorInfo
from schema import describe
from schema.visitor import (
    MarkShownInput,
    MarkShownPayload,
    SendVisitorMessageInput,
    SendVisitorMessagePayload,
    StartVisitInput,
    StartVisitPayload,
    Visit,
    VisitorMessage,
    visitor_errors,
)
from services.web_chat import thread, visits
from services.web_chat.identity import VisitRefused

F = TypeVar("F", bound=Callable[..., Any])


class _RefusalsAsUserErrors(FieldExtension):
    def apply(self, field: StrawberryField) -> None:
        self._payload: Any = field.type

    async def resolve_async(
        self, next_: Callable[..., Awaitable[Any]], source: Any, info: VisitorInfo, **kwargs: Any
    ) -> Any:
        try:
            return await next_(source, info, **kwargs)
        except (Refusal, VisitRefused) as refusal:
            return self._payload(user_errors=visitor_errors(refusal))


def mutation(description: str) -> Callable[[F], F]:
    return describe.mutation(description, _RefusalsAsUserErrors())


@strawberry.type(description="What a visitor can do.")
class VisitorMutation:
    @mutation("Start a visit, or continue an earlier one. The only field that needs no token.")
    async def start_visit(
        self,
        info: VisitorInfo,
        input: Annotated[StartVisitInput, strawberry.argument(description="The widget and the visitor.")],
    ) -> StartVisitPayload:
        started = await visits.start(
            input.widget_key,
            token=input.token,
            identity=input.identity,
            client_address=info.context.client_address,
        )
        return StartVisitPayload(token=started.token, visit=await Visit.of(started.visit))

    @mutation("Write to the business.")
    async def send_visitor_message(
        self,
        info: VisitorInfo,
        input: Annotated[SendVisitorMessageInput, strawberry.argument(description="The message.")],
    ) -> SendVisitorMessagePayload:
        visit = info.context.visit
        shown = await thread.write(
            visit,
            client_message_id=input.client_message_id,
            body=input.body,
            client_address=info.context.client_address,
        )
        return SendVisitorMessagePayload(message=VisitorMessage.from_shown(shown, await thread.position(visit)))

    @mutation("Report what the widget has shown, so that the business sees it as delivered.")
    async def mark_shown(
        self,
        info: VisitorInfo,
        input: Annotated[
            MarkShownInput, strawberry.argument(description="The newest message that the widget has shown.")
        ],
    ) -> MarkShownPayload:
        visit = info.context.visit
        message_id = parse_public_id(input.up_to, "msg")
        if message_id is None:
            raise Invalid("This message is not in this conversation.", field="upTo")
        await thread.mark_shown(visit, message_id, read=input.read)
        return MarkShownPayload()
