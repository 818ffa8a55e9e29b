"""Reads DATABASE_URL."""

from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

Dialect = Literal["sqlite", "postgres"]


class InvalidDatabaseUrl(ValueError):
    """DATABASE_URL is not valid. The message never contains the URL, which holds a password."""


def dialect_of(database_url: str) -> Dialect:
    """Raises: InvalidDatabaseUrl."""
    scheme = database_url.partition("://")[0].lower()
    if scheme == "sqlite":
        return "sqlite"
    if scheme in ("postgres", "postgresql"):
        return "postgres"
    raise InvalidDatabaseUrl("DATABASE_URL must begin with sqlite:/// or postgres://")


def sqlite_path(database_url: str) -> str:
    """Raises: InvalidDatabaseUrl."""
    parts = urlsplit(database_url)
    path = unquote(parts.path)
    if parts.netloc or not path.startswith("/") or len(path) < 2:
        raise InvalidDatabaseUrl("SQLite: three slashes and a relative path, or four for an absolute one")
    return path[1:]


def postgres_arguments(database_url: str) -> dict[str, Any]:
    """Arguments of `asyncpg.connect`. Raises: InvalidDatabaseUrl."""
    parts = urlsplit(database_url)
    query = dict(parse_qsl(parts.query))
    arguments: dict[str, Any] = {}
    try:
        port = parts.port
    except ValueError:
        raise InvalidDatabaseUrl("PostgreSQL: the port is not a number") from None
    database = unquote(parts.path.removeprefix("/"))
    if not database:
        raise InvalidDatabaseUrl("PostgreSQL: the name of the database is missing")
    arguments["host"] = query.pop("host", None) or parts.hostname or "localhost"
    arguments["port"] = port or 5432
    arguments["user"] = unquote(parts.username) if parts.username else None
    arguments["password"] = unquote(parts.password) if parts.password else None
    arguments["database"] = database
    ssl = query.pop("ssl", None) or query.pop("sslmode", None)
    if ssl is not None:
        if ssl not in ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"):
            raise InvalidDatabaseUrl("PostgreSQL: ssl is disable, allow, prefer, require, verify-ca or verify-full")
        arguments["ssl"] = ssl
    name = query.pop("application_name", "paythread")
    arguments["server_settings"] = {"application_name": name}
    if query:
        raise InvalidDatabaseUrl(f"PostgreSQL: unknown parameter {sorted(query)[0]!r} in DATABASE_URL")
    return arguments
