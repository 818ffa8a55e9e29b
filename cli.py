"""The command line."""

import click

from commands import accounts, database, jobs, ledger, sdl, serve, simulate, users

# Commands import the application when they run: `migrate` and `--help` answer without loading the GraphQL schema.


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Paythread: request payment from a contact without leaving the conversation."""


for command in (
    serve.serve,
    serve.worker,
    serve.lmtp,
    database.migrate,
    database.rotate_keys,
    jobs.jobs,
    ledger.audit,
    ledger.reconcile,
    accounts.account,
    accounts.key,
    users.user,
    sdl.schema,
    simulate.simulate,
):
    cli.add_command(command)


if __name__ == "__main__":
    cli()
