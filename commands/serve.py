"""`serve`, `worker` and `lmtp`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from typing import Any

import click

from commands.context import load_settings, run, services_open
from settings import Settings


@click.command()
@click.option("--demo", is_flag=True, help="Migrate, create the demo account, print how to sign in.")
@click.option("--host", help="Address to listen on. Default: HOST.")
@click.option("--port", type=int, help="Port to listen on. Default: PORT.")
def serve(demo: bool, host: str | None, port: int | None) -> None:
    """Serve the API, the pages and (unless RUN_JOBS=false) the jobs."""
    settings = load_settings(host=host, port=port)
    gc.disable()  # what the start makes stays: looking through it for garbage takes 0.2 s
    from app import create_app
    from models.database_url import dialect_of
    from models.migrate import MigrationError, migrate
    from resolvers.transport.server import GRACE_S, Server, listen, server_config

    try:
        # Bind first: report a taken port before anything changes.
        listener = listen(settings.host, settings.port)
    except OSError as error:
        raise click.ClickException(
            f"Can't listen on {settings.host}:{settings.port} ({error.strerror}); try --port."
        ) from None
    with contextlib.closing(listener):
        try:
            if demo or dialect_of(settings.database_url) == "sqlite":
                asyncio.run(migrate(settings.database_url))
        except MigrationError as error:
            raise click.ClickException(str(error)) from None
        app = create_app(settings)
        if demo:
            app.state.demo = run(_seed(settings))
        _print_access(settings, app.state.demo if demo else None)
        _freeze()
        # The spread is part of the time that requests get to end.
        grace_s = GRACE_S - int(settings.shutdown_spread_s)
        config = server_config(
            app, host=settings.host, port=settings.port, log_config=None, timeout_graceful_shutdown=grace_s
        )
        server = Server(
            config,
            before_shutdown=app.state.before_shutdown,
            on_stop=app.state.stopping.set,
            drain_s=settings.shutdown_drain_s,
            spread_s=settings.shutdown_spread_s,
        )
        server.run(sockets=[listener])
    if not server.started:
        sys.exit(3)


def _freeze() -> None:
    """Garbage collection pauses the event loop: exempt what the start made, collect the rest in small portions."""
    gc.freeze()  # without a collection before it: that takes 0.1 s and finds nothing
    gc.set_threshold(700, 5, 4)
    gc.enable()


async def _seed(settings: Settings) -> Any:
    from services.demo import seed

    try:
        async with services_open(settings):
            return await seed.seed(settings)
    except seed.DemoClosed as error:
        raise click.ClickException(str(error)) from None


def _print_access(settings: Settings, access: Any) -> None:
    lines = [("Paythread", f"{settings.base_url}/")]
    lines.append(("GraphQL", f"{settings.base_url}/graphql"))
    if settings.graphiql_open:
        lines.append(("GraphiQL", f"{settings.base_url}/graphiql"))
    if settings.demo_open:
        lines.append(("phone", f"{settings.base_url}/demo/phone"))
        lines.append(("site", f"{settings.base_url}/demo/site"))
    if access is not None and settings.environment == "development":
        lines.append(("sign in", f"{access.email} / {access.password}"))
        lines.append(("API key", access.api_key))
    width = max(len(name) for name, _ in lines)
    click.echo("\n" + "\n".join(f"  {name:<{width}}  {value}" for name, value in lines) + "\n")
    sys.stdout.flush()


@click.command()
def worker() -> None:
    """Run only the jobs. Health checks are at WORKER_PORT."""
    settings = load_settings()
    gc.disable()  # as in `serve`
    from resolvers.transport.server import listen

    try:
        listener = listen(settings.host, settings.worker_port) if settings.worker_port else None
    except OSError as error:
        raise click.ClickException(
            f"Can't listen on {settings.host}:{settings.worker_port} ({error.strerror}); set WORKER_PORT (0: none)."
        ) from None
    with contextlib.closing(listener) if listener is not None else contextlib.nullcontext():
        asyncio.run(_work(settings, listener))


async def _work(settings: Settings, listener: socket.socket | None) -> None:
    import app
    from resolvers.transport.server import served
    from web import log_setup

    log_setup.configure(settings.log_level)
    app.configure(settings)
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        hub = await stack.enter_async_context(app.running(settings, jobs_too=True))
        if listener is not None:
            await stack.enter_async_context(served(app.health_app(settings, hub), listener))
        _freeze()
        click.echo("Paythread worker: running jobs")
        sys.stdout.flush()
        await stop.wait()


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; connections are trusted.")
@click.option("--port", type=int, default=2424, show_default=True, help="Port to listen on.")
def lmtp(host: str, port: int) -> None:
    """Receive emails from your mail server by LMTP (chn_…@anything)."""
    settings = load_settings()
    try:
        asyncio.run(_receive_emails(settings, host, port))
    except OSError as error:
        raise click.ClickException(f"Can't listen on {host}:{port} ({error.strerror}); try --port.") from None


async def _receive_emails(settings: Settings, host: str, port: int) -> None:
    import app
    from web import lmtp, log_setup

    log_setup.configure(settings.log_level)
    app.configure(settings)
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with app.running(settings, jobs_too=False), await lmtp.listen(host, port):
        click.echo(f"Paythread LMTP: {host}:{port}")
        sys.stdout.flush()
        await stop.wait()
