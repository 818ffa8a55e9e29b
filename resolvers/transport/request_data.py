"""The shape of a GraphQL request's JSON object."""

from typing import Any

from strawberry.http import GraphQLRequestData

from resolvers.transport.refusals import Refusal


def request_data(data: Any) -> GraphQLRequestData:
    """Raises: Refusal."""
    if isinstance(data, list):
        raise Refusal(400, "BAD_REQUEST", "Batching is not supported: send one operation per request.")
    if not isinstance(data, dict):
        raise Refusal(400, "BAD_REQUEST", "The body must be a JSON object.")
    for name, kind, article in (
        ("query", str, "a string"),
        ("operationName", str, "a string"),
        ("variables", dict, "an object"),
        ("extensions", dict, "an object"),
    ):
        if not isinstance(data.get(name), kind | None):
            raise Refusal(400, "BAD_REQUEST", f"`{name}` must be {article} or null.")
    return GraphQLRequestData(
        query=data.get("query"),
        variables=data.get("variables"),
        operation_name=data.get("operationName"),
        extensions=data.get("extensions"),
        # Any stream is sent as server-sent events; `execute_operation` decides whether there is one.
        protocol="sse",
    )
