"""`schema`."""

from __future__ import annotations

from pathlib import Path

import click

SCHEMA_FILE = Path(__file__).parents[1] / "schema" / "schema.graphql"
VISITOR_SCHEMA_FILE = SCHEMA_FILE.with_name("visitor.graphql")


@click.command()
@click.option("--check", is_flag=True, help="Compare with the committed files; fail if one differs.")
@click.option("--write", is_flag=True, help="Write schema/schema.graphql and schema/visitor.graphql.")
@click.option("--visitor", is_flag=True, help="Print the chat widget's schema in place of the team's.")
def schema(check: bool, write: bool, visitor: bool) -> None:
    """Print a GraphQL schema, or compare or write both files."""
    from resolvers.assemble import build_schema
    from resolvers.visitor.assemble import build_visitor_schema

    texts = {
        SCHEMA_FILE: build_schema(production=False, introspection=True).as_str().rstrip() + "\n",
        VISITOR_SCHEMA_FILE: build_visitor_schema(production=False, introspection=True).as_str().rstrip() + "\n",
    }
    if not write and not check:
        click.echo(texts[VISITOR_SCHEMA_FILE if visitor else SCHEMA_FILE], nl=False)
        return
    for file, text in texts.items():
        if write:
            file.write_text(text, encoding="utf-8")
            click.echo(f"wrote {file.name}")
        elif not file.exists() or file.read_text(encoding="utf-8") != text:
            raise click.ClickException(f"schema/{file.name} differs from the code: run `python cli.py schema --write`.")
        else:
            click.echo(f"schema/{file.name} is up to date")
