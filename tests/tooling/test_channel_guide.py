"""docs/howto/connect-channels.md names every provider and every credential."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from integrations import registry
from integrations.channels import simulated

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "howto" / "connect-channels.md").read_text()


@pytest.mark.parametrize("provider", registry.built_in("channels"))
def test_the_guide_names_the_provider_its_kinds_and_every_credential(provider: str) -> None:
    assert f"`{provider}`" in GUIDE
    if provider == simulated.NAME:
        return  # its secret is made by us
    made = registry.channel_class(provider)
    rows = {line.split("|")[1].strip() for line in GUIDE.splitlines() if f"| `{provider}` |" in line}
    assert rows == {kind.value for kind in made.kinds}
    assert [f.name for f in dataclasses.fields(made.credentials) if f"`{f.name}`" not in GUIDE] == []
