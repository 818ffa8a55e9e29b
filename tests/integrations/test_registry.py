"""Providers are found by their file names; names from outside are looked up, never imported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from integrations import registry
from integrations.base import Channel, IntegrationError, Processor
from integrations.processors import sandbox, stripe

ROOM = Path(registry.__file__).parent


def test_every_file_of_a_room_is_a_provider_under_its_name() -> None:
    files = {room: sorted(p.stem for p in (ROOM / room).glob("[!_]*.py")) for room in ("processors", "channels")}
    assert registry.processor_names() == files["processors"]
    assert registry.channel_names() == files["channels"]
    for name in files["processors"]:
        assert issubclass(registry.processor_class(name), Processor)
        assert registry.processor_class(name).name == name
    for name in files["channels"]:
        assert issubclass(registry.channel_class(name), Channel)
        assert registry.channel_class(name).name == name


def test_the_processors_of_the_first_release_are_there() -> None:
    assert registry.processor_class("stripe") is stripe.Stripe
    assert registry.processor_class("sandbox") is sandbox.Sandbox


@pytest.mark.parametrize(
    "name",
    [
        "",
        "nobody",
        "Stripe",
        "stripe ",
        "stripe.py",
        "../base",
        "..base",
        "os",
        "antigravity",
        "__init__",
        "a" * 10_000,
    ],
)
def test_a_name_that_is_no_file_is_unknown_and_imports_nothing(name: str) -> None:
    before = set(sys.modules)
    with pytest.raises(registry.UnknownProvider) as unknown:
        registry.processor_class(name)
    with pytest.raises(KeyError):
        registry.channel_class(name)
    assert (unknown.value.room, unknown.value.name) == ("processors", name)
    assert set(sys.modules) == before


def test_one_room_does_not_know_the_names_of_the_other() -> None:
    with pytest.raises(registry.UnknownProvider):
        registry.channel_class("stripe")


def test_credentials_are_read_from_a_mapping() -> None:
    read = registry.read_credentials(stripe.Stripe, {"secret_key": "sk_test_1", "webhook_secret": "whsec_1"})
    assert read == stripe.Credentials("sk_test_1", "whsec_1", "")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, "credentials_incomplete"),
        ({"secret_key": ""}, "credentials_incomplete"),
        ({"secret_key": "planted", "api_key": "planted"}, "credentials_unknown"),
    ],
)
def test_credentials_that_do_not_fit_are_refused_without_their_values(values: dict[str, str], reason: str) -> None:
    with pytest.raises(IntegrationError) as refused:
        registry.read_credentials(stripe.Stripe, values)
    assert refused.value.reason == reason
    assert "planted" not in str(refused.value)
