"""docs/howto/connect-processors.md names every provider, credential and event."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import pytest
from strawberry.utils.str_converters import to_camel_case

from integrations import registry
from integrations.processors import sandbox
from services.connections import providers

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "howto" / "connect-processors.md").read_text()
REGISTERED = {"webhookEndpointId", "webhookSubscriptionId"}  # from registering the webhook, never given
OURS = [name for name in registry.processor_names() if name in providers.KINDS]


def test_every_built_in_processor_has_a_kind_of_its_own() -> None:
    assert set(OURS) == set(providers.KINDS)


@pytest.mark.parametrize("provider", OURS)
def test_the_guide_names_the_provider_its_kind_and_every_credential(provider: str) -> None:
    assert f"| {providers.KINDS[provider]} | `{provider}" in GUIDE
    if provider == sandbox.NAME:
        return  # its keys are made by us
    names = [to_camel_case(f.name) for f in dataclasses.fields(registry.processor_class(provider).credentials)]
    names = ["testMode" if name == "mode" else name for name in names if name not in REGISTERED]
    assert [name for name in names if f"`{name}`" not in GUIDE] == []


@pytest.mark.parametrize("provider", [name for name in OURS if name != sandbox.NAME])
def test_the_guide_names_every_event_to_choose(provider: str) -> None:
    events = importlib.import_module(f"integrations.processors.{provider}").EVENTS
    assert [name for name in events if f"`{name}`" not in GUIDE] == []
