"""`migrate` and `rotate-keys`."""

from __future__ import annotations

import asyncio

import click

from commands.context import load_settings, run, services_open


@click.command()
def migrate() -> None:
    """Apply pending migrations."""
    settings = load_settings()
    from models.migrate import MigrationError
    from models.migrate import migrate as apply

    try:
        applied = asyncio.run(apply(settings.database_url))
    except MigrationError as error:
        raise click.ClickException(str(error)) from None
    click.echo("\n".join(f"applied {name}" for name in applied) or "nothing to apply")


@click.command("rotate-keys")
def rotate_keys() -> None:
    """Encrypt all secrets with the first of SECRET_KEYS; then remove older keys."""
    settings = load_settings()

    async def work() -> dict[str, int]:
        from services.accounts import key_rotation

        async with services_open(settings):
            return await key_rotation.rotate()

    from models.vault import VaultError

    try:
        counts = run(work())
    except VaultError as error:
        raise click.ClickException(f"A secret is {error}; add its key to SECRET_KEYS.") from None
    for table, count in counts.items():
        click.echo(f"{table}: {count}")
