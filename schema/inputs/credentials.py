"""One credential of a connection."""

from __future__ import annotations

import strawberry

from schema.describe import limited
from services.connections import processor_credentials


@strawberry.input(description="One value that a processor's or channel's provider needs.")
class CredentialInput:
    name: str = strawberry.field(description="Its name in the provider's documentation, e.g. client_id.")
    value: str = strawberry.field(description=limited("The value. Write-only.", processor_credentials.SECRET_LIMIT))
