"""`audit` and `reconcile`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from commands.context import account_id_of, load_settings, run, services_open

if TYPE_CHECKING:
    from services.payments.reconciliation import Reconciled


@click.command()
@click.option("--account", "account_id", help="acc_… of the account. Default: all.")
def audit(account_id: str | None) -> None:
    """Recompute statuses, totals and log numbers; print differences. Exits 1 on any."""
    settings = load_settings()

    async def work() -> list[str]:
        from services.payments import integrity_check

        async with services_open(settings):
            one = await account_id_of(account_id) if account_id else None
            return [str(difference) for difference in await integrity_check.audit(one)]

    differences = run(work())
    click.echo("\n".join(differences) or "nothing differs")
    if differences:
        sys.exit(1)


@click.command()
@click.option("--account", "account_id", required=True, help="acc_… of the account.")
@click.option(
    "--since",
    required=True,
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    help="Read checkouts created since this time, UTC.",
)
def reconcile(account_id: str, since: datetime) -> None:
    """Read every checkout at its processor and record the answers. Exits 1 if a read fails."""
    settings = load_settings()

    async def work() -> Reconciled:
        from services.payments import reconciliation

        async with services_open(settings):
            return await reconciliation.reconcile(await account_id_of(account_id), since.replace(tzinfo=UTC))

    found = run(work())
    for line in (*found.differed, *found.unread):
        click.echo(line)
    click.echo(f"read {found.read}, differed {len(found.differed)}, not read {len(found.unread)}")
    if found.unread:
        sys.exit(1)
