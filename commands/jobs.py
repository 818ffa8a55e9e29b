"""`jobs`."""

from __future__ import annotations

from uuid import UUID

import click

from commands.context import load_settings, run, services_open


@click.group("jobs")
def jobs() -> None:
    """Dead jobs: every attempt failed."""


_JOB_IDS = click.argument("ids", nargs=-1, type=click.UUID)
_JOB_KIND = click.option("--kind", help="All dead jobs of this kind, as `jobs list` prints it.")


@jobs.command("list")
@click.option("--kind", help="Of this kind only.")
def jobs_list(kind: str | None) -> None:
    """Print dead jobs, newest first: id, queue time, kind, attempts, last error."""
    settings = load_settings()

    async def work() -> list[str]:
        from services.core import jobs as service

        async with services_open(settings):
            return [
                f"{job.id}  {job.created_at:%Y-%m-%d %H:%M}  {job.kind}  {job.attempts}  {job.last_error or ''}".rstrip()
                for job in await service.dead(kind)
            ]

    click.echo("\n".join(run(work())) or "no dead jobs")


@jobs.command("requeue")
@_JOB_IDS
@_JOB_KIND
def jobs_requeue(ids: tuple[UUID, ...], kind: str | None) -> None:
    """Run dead jobs again, by IDS or --kind. Completed work is not repeated."""
    click.echo(f"queued {_on_dead_jobs('requeue', ids, kind)}")


@jobs.command("drop")
@_JOB_IDS
@_JOB_KIND
def jobs_drop(ids: tuple[UUID, ...], kind: str | None) -> None:
    """Delete dead jobs, by IDS or --kind."""
    click.echo(f"dropped {_on_dead_jobs('drop', ids, kind)}")


def _on_dead_jobs(name: str, ids: tuple[UUID, ...], kind: str | None) -> int:
    if bool(ids) == bool(kind):
        raise click.UsageError("Give the ids of dead jobs, or --kind.")
    settings = load_settings()

    async def work() -> int:
        from services.core import jobs as service

        async with services_open(settings):
            chosen = list(ids) or [job.id for job in await service.dead(kind)]
            changed: int = await getattr(service, name)(chosen)
            return changed

    return run(work())
