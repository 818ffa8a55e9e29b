"""`simulate`."""

from __future__ import annotations

import click

from commands.context import load_settings, run, services_open


@click.command()
@click.argument("contact")
@click.argument("kind", type=click.Choice(["SMS", "EMAIL", "WHATSAPP", "INSTAGRAM_DM", "MESSENGER", "WEB_CHAT"]))
@click.argument("text")
def simulate(contact: str, kind: str, text: str) -> None:
    """Send TEXT from CONTACT (cnt_… or an email address) on a simulated channel."""
    settings = load_settings()
    if not settings.sandbox_open:
        raise click.ClickException("The simulator is closed by the settings.")
    from integrations.base import IntegrationError
    from models.ids import parse_public_id
    from models.tables import ChannelConnection, Contact, ContactAddress

    async def work() -> str:
        from services.core import merged_rows
        from services.sandbox import channels

        async with services_open(settings):
            contact_id = parse_public_id(contact, "cnt")
            found = Contact.filter(id=contact_id) if contact_id else Contact.filter(email=contact.lower())
            known = await found.first()
            who = await merged_rows.contact(known.account_id, known.id) if known is not None else None
            if who is None:
                raise click.ClickException("No such contact.")
            address = await ContactAddress.get_or_none(contact_id=who.id, kind=kind, in_use=True)
            row = await ChannelConnection.filter(
                account_id=who.account_id, kind=kind, provider="simulated", connected=True
            ).first()
            if address is None or row is None:
                raise click.ClickException("This contact can't be simulated on this channel.")
            try:
                return await channels.contact_writes(row.id, address.address, text)
            except IntegrationError as error:
                raise click.ClickException(f"Is the server running on {settings.base_url}? ({error.reason})") from None

    click.echo(run(work()))
