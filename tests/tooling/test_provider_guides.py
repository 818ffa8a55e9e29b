"""docs/howto/add-a-processor.md and add-a-channel.md: their code comes from the sample, and they name every part of the interface."""

from __future__ import annotations

import re

import pytest

from integrations import kit, registry
from integrations.base import Channel, Feature, Processor
from integrations.kit import channel_bench
from integrations.kit.channel_bench import Event
from tests.kit.sample import SAMPLE
from tests.kit.test_kit import ROOT

GUIDES = {name: (ROOT / "docs" / "howto" / name).read_text() for name in ("add-a-processor.md", "add-a-channel.md")}
SOURCES = [path.read_text() for path in [SAMPLE / "pyproject.toml", *sorted(SAMPLE.rglob("*.py"))]]
BLOCKS = [
    (name, block)
    for name, text in GUIDES.items()
    for block in re.findall(r"```(?:python|toml)\n(.*?)```", text, re.DOTALL)
]


def test_both_guides_show_code() -> None:
    assert [sum(name == guide for name, _ in BLOCKS) for guide in GUIDES] == [9, 15]


@pytest.mark.parametrize(("guide", "block"), BLOCKS)
def test_what_a_guide_shows_stands_in_the_sample(guide: str, block: str) -> None:
    assert any(block in source for source in SOURCES), f"{guide}:\n{block}"


@pytest.mark.parametrize(("guide", "interface"), [("add-a-processor.md", Processor), ("add-a-channel.md", Channel)])
def test_a_guide_names_every_method_of_its_interface(guide: str, interface: type) -> None:
    methods = [name for name, value in vars(interface).items() if not name.startswith("_") and callable(value)]
    assert len(methods) >= 7
    assert [name for name in methods if f"`{name}`" not in GUIDES[guide]] == []


def test_the_guide_names_every_feature_of_a_channel_and_every_event_of_the_suite() -> None:
    guide = GUIDES["add-a-channel.md"]
    events = [cls.__name__ for cls in vars(channel_bench).values() if isinstance(cls, type) and issubclass(cls, Event)]
    assert len(events) >= 10
    named = [feature.value for feature in Feature] + [name for name in events if name != Event.__name__]
    assert [name for name in named if f"`{name}`" not in guide] == []


def test_the_guides_name_the_groups_the_kit_and_its_command() -> None:
    for room, guide in (("processors", "add-a-processor.md"), ("channels", "add-a-channel.md")):
        assert f'entry-points."{registry.GROUPS[room]}"' in GUIDES[guide]
        assert f"from {kit.__name__}.{room} import *" in GUIDES[guide]
    assert "provider_refused" in GUIDES["add-a-processor.md"]
