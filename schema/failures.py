"""Top-level errors. Refusals of mutations are user errors (payloads.py)."""

from __future__ import annotations

from graphql import GraphQLError


class ApiError(GraphQLError):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message, extensions={"code": code})


def bad_request(message: str) -> ApiError:
    return ApiError("BAD_REQUEST", message)


def unauthenticated() -> ApiError:
    return ApiError("UNAUTHENTICATED", "Sign in: send Authorization: Bearer with an access token or an API key.")


def not_found() -> ApiError:
    """Equal for unknown ids, other accounts' ids and malformed text."""
    return ApiError("NOT_FOUND", "There is nothing with this id.")
