"""`schema`: the printed contract, and the client kit's files that follow from it."""

from __future__ import annotations

from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
SCHEMA_FILE = ROOT / "schema" / "schema.graphql"
VISITOR_SCHEMA_FILE = SCHEMA_FILE.with_name("visitor.graphql")


@click.command()
@click.option("--check", is_flag=True, help="Compare with the committed files; fail if one differs.")
@click.option("--write", is_flag=True, help="Write schema/*.graphql and clients/generated.")
@click.option("--visitor", is_flag=True, help="Print the chat widget's schema in place of the team's.")
def schema(check: bool, write: bool, visitor: bool) -> None:
    """Print a GraphQL schema, or compare or write the files."""
    from commands import client_kit
    from resolvers.assemble import build_schema
    from resolvers.visitor.assemble import build_visitor_schema

    texts = {
        SCHEMA_FILE: build_schema(production=False, introspection=True).as_str().rstrip() + "\n",
        VISITOR_SCHEMA_FILE: build_visitor_schema(production=False, introspection=True).as_str().rstrip() + "\n",
    }
    if not write and not check:
        click.echo(texts[VISITOR_SCHEMA_FILE if visitor else SCHEMA_FILE], nl=False)
        return
    texts |= client_kit.files(texts[SCHEMA_FILE])
    for file, text in texts.items():
        name = file.relative_to(ROOT)
        if write:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            click.echo(f"wrote {name}")
        elif not file.exists() or file.read_text(encoding="utf-8") != text:
            raise click.ClickException(f"{name} differs from the code: run `python cli.py schema --write`.")
        else:
            click.echo(f"{name} is up to date")
