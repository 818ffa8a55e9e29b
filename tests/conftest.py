"""Fixtures of all tests: the servers, a migrated and empty database on each engine, and what makes tests faster."""

import asyncio
import functools
import gc
import logging
import os
import secrets
import shutil
import types
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit, urlunsplit

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import httpx2
import pytest
import structlog
import uvicorn.server
from httpx2._transports import default as httpx2_transport
from tortoise.models import MetaInfo

from models import migrate
from models.database import open_database
from models.database_url import postgres_arguments
from services.accounts import credential_cache
from services.core import configuration
from tests import configured, equality, servers
from tests.error_codes_seen import only_listed_codes
from web.log_setup import OURS

__all__ = ["only_listed_codes"]
LOGGERS = ("", *OURS)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--quick`, see `_is_quick`."""
    parser.addoption("--quick", action="store_true", help="SQLite only, without servers and slow tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what `--quick` leaves out."""
    if config.getoption("--quick"):
        left_out = [item for item in items if not _is_quick(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if _is_quick(item)]


def _is_quick(item: pytest.Item) -> bool:
    """Whether the test runs on SQLite, without servers, and is not marked slow."""
    given = getattr(item, "callspec", None)
    servers_needed = {"postgres_url", "redis_url"} & set(getattr(item, "fixturenames", ()))
    on_sqlite = given is None or not {"postgres", "redis"} & {str(value) for value in given.params.values()}
    return on_sqlite and not servers_needed and item.get_closest_marker("slow") is None


@pytest.fixture(scope="session", autouse=True)
def default_configuration() -> None:
    """A test that configures nothing has the default settings."""
    configured.configure()


@pytest.fixture(autouse=True)
def restored_configuration() -> Iterator[None]:
    """Undo what the test changes of the configuration, and forget the users and keys that it looked up."""
    before = configuration.current()
    yield
    configuration.use(before)
    credential_cache.forget()


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Undo what an application in this process changes of logging; otherwise later tests see fewer records."""
    before, config = {name: logging.getLogger(name).level for name in LOGGERS}, structlog.get_config()
    yield
    structlog.configure(**config)
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)
    for handler in logging.getLogger().handlers[:]:
        if isinstance(handler.formatter, structlog.stdlib.ProcessorFormatter):
            logging.getLogger().removeHandler(handler)


def pytest_collection_finish() -> None:
    """Keep modules and collected tests out of every later garbage collection."""
    gc.collect()
    gc.freeze()


async def _sleep_a_tenth(delay: float) -> None:
    await asyncio.sleep(delay / 10)


@pytest.fixture(scope="session", autouse=True)
def quick_shutdown() -> Iterator[None]:
    """Poll every 10 ms, not every 100 ms, whether a server in this process should stop and has stopped."""
    quick = types.SimpleNamespace(**{**vars(asyncio), "sleep": _sleep_a_tenth})
    with mock.patch.object(uvicorn.server, "asyncio", quick):
        yield


@pytest.fixture(scope="session", autouse=True)
def shared_certificates() -> Iterator[None]:
    """Load the system's certificates once, not for every HTTP client (20 ms)."""
    create = httpx2.create_ssl_context

    @functools.cache
    def create_once(_file: str | None, verify: Any, trust_env: bool) -> Any:
        return create(verify=verify, trust_env=trust_env)

    def shared(*, verify: Any, cert: Any, trust_env: bool) -> Any:
        assert cert is None
        return create_once(os.environ.get("SSL_CERT_FILE"), verify, trust_env)

    with mock.patch.object(httpx2_transport, "create_ssl_context", shared):
        yield


@pytest.fixture(scope="session", autouse=True)
def filters_built_once() -> Iterator[None]:
    """Let Tortoise build a table's filters once per engine, not whenever a database is opened (7 ms for all tables)."""
    build = MetaInfo._generate_filters
    built: dict[int, tuple[Any, int]] = {}

    def build_once(table: MetaInfo) -> None:
        current = (table.db.executor_class, len(table._filters))
        if built.get(id(table)) != current:
            build(table)
            built[id(table)] = current

    with mock.patch.object(MetaInfo, "_generate_filters", build_once):
        yield


@pytest.fixture(scope="session", autouse=True)
def plans_compared() -> Iterator[None]:
    """Compare every answer of a plan with the stock executor's."""
    with equality.answers_compared():
        yield
    assert not equality.different, equality.different[0]


def _server(name: str, start: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    with ExitStack() as stack:
        try:
            url = stack.enter_context(start())
        except servers.ServerUnavailable as error:
            if os.environ.get("CI") == "true":
                pytest.fail(f"no {name}: {error}")
            pytest.skip(f"no {name}: {error}")
        yield url


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Also catches what structlog's loggers write, each field an attribute of the record."""
    before = structlog.get_config()
    structlog.configure(
        processors=[structlog.stdlib.render_to_log_kwargs],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    yield caplog
    structlog.configure(**before)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL server (TEST_POSTGRES_URL, or one started for this session); its user may create databases."""
    yield from _server("PostgreSQL", servers.postgres)


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of a Redis server (TEST_REDIS_URL, or one started for this session)."""
    yield from _server("Redis", servers.redis)


@pytest.fixture(scope="session")
def own_loop() -> Iterator[asyncio.Runner]:
    """An event loop for session fixtures that await something; tests have their own loops."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        yield runner


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory, own_loop: asyncio.Runner) -> Path:
    """A migrated SQLite file to copy. Do not open it."""
    path = tmp_path_factory.mktemp("template") / "paythread.db"
    own_loop.run(migrate.migrate(f"sqlite:///{path}"))
    return path


def database_beside(server_url: str, name: str) -> str:
    """The URL of another database of the same PostgreSQL server."""
    return urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))


async def run_on(url: str, sql: str) -> None:
    """Run a script on a PostgreSQL database, over a new connection."""
    connection = await asyncpg.connect(**postgres_arguments(url), timeout=30)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def new_postgres_database(postgres_url: str, own_loop: asyncio.Runner) -> Iterator[Callable[[], str]]:
    """Create empty PostgreSQL databases for this session (for this worker under xdist); they are dropped at its end."""
    names: list[str] = []

    def make() -> str:
        worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
        name = f"paythread_test_{worker}_{secrets.token_hex(4)}"
        own_loop.run(run_on(postgres_url, f"CREATE DATABASE {name}"))
        names.append(name)
        return database_beside(postgres_url, name)

    yield make
    for name in names:
        own_loop.run(run_on(postgres_url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(scope="session")
def postgres_database(new_postgres_database: Callable[[], str], own_loop: asyncio.Runner) -> str:
    """A migrated PostgreSQL database for this session. Tests use `database_url`, which empties it."""
    url = new_postgres_database()
    own_loop.run(migrate.migrate(url))
    return url


# The replica role skips triggers and foreign keys: append-only tables can be emptied, in any order. Looking first is
# cheaper than deleting from thirty empty tables.
EMPTY_ALL = """
SET lock_timeout = '10s';
SET session_replication_role = replica;
DO $$
DECLARE name text; filled boolean;
BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'schema_migration' LOOP
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM %I)', name) INTO filled;
        IF filled THEN
            EXECUTE format('DELETE FROM %I', name);
        END IF;
    END LOOP;
END
$$;
"""


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a migrated, empty database; the test runs once on each engine."""
    if request.param == "sqlite":
        template: Path = request.getfixturevalue("sqlite_template")
        path = tmp_path / "paythread.db"
        shutil.copyfile(template, path)
        return f"sqlite:///{path}"
    url: str = request.getfixturevalue("postgres_database")
    loop: asyncio.Runner = request.getfixturevalue("own_loop")
    loop.run(run_on(url, EMPTY_ALL))
    return url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[str]:
    """The URL of the database of `database_url`, which is open in this process."""
    options = {"synchronous": "OFF"} if database_url.startswith("sqlite") else {"pool_max": 5}
    async with open_database(database_url, **options):
        yield database_url
