"""Top-level errors of the API with their `extensions.code`. What a mutation expects is a user error instead (payloads.py)."""

from __future__ import annotations

from graphql import GraphQLError


class ApiError(GraphQLError):
    """An error whose text the client may see. Codes: BAD_REQUEST, UNAUTHENTICATED, FORBIDDEN, NOT_FOUND."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message, extensions={"code": code})


def bad_request(message: str) -> ApiError:
    """The request itself makes no sense: page arguments, cursors."""
    return ApiError("BAD_REQUEST", message)


def unauthenticated() -> ApiError:
    """No credential, or one that is not (any more) valid."""
    return ApiError("UNAUTHENTICATED", "Sign in: send Authorization: Bearer with an access token or an API key.")


def not_found() -> ApiError:
    """Nothing with this id in the viewer's account; equal for another account's id and for text that is no id."""
    return ApiError("NOT_FOUND", "There is nothing with this id.")
