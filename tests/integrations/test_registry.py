"""Providers are found by file name and entry point; names from outside are looked up, never imported."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from integrations import registry
from integrations.base import Channel, IntegrationError, Processor
from integrations.processors import sandbox, stripe

ROOM = Path(registry.__file__).parent


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []

    def error(event: str, *, kind: str, provider: str, where: str, reason: str) -> None:
        assert event == "provider_refused"
        lines.append(f"{kind} {provider} {where}: {reason}")

    monkeypatch.setattr(registry, "log", SimpleNamespace(error=error))
    return lines


def test_every_file_of_a_room_is_a_provider_under_its_name() -> None:
    files = {room: sorted(p.stem for p in (ROOM / room).glob("[!_]*.py")) for room in ("processors", "channels")}
    assert registry.built_in("processors") == files["processors"]
    assert registry.built_in("channels") == files["channels"]
    # Packages may be installed beside them.
    assert set(registry.processor_names()) >= set(files["processors"])
    assert set(registry.channel_names()) >= set(files["channels"])
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


# ------------------------------------------------------------------------------------------------- installed packages
PROCESSOR = """
from dataclasses import dataclass
from integrations.base import Processor
from integrations.processors.sandbox import Sandbox

@dataclass(frozen=True)
class Credentials:
    secret_key: str

class Pay(Sandbox):
    name = "pay_x"
    display_name = "Pay X"
    credentials = Credentials
"""
CHANNEL = """
from integrations.channels.simulated import Simulated

class Chat(Simulated):
    name = "chat_x"
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Installs packages: each a module with its entry points."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def install(module: str, text: str, *, processors: str = "", channels: str = "") -> None:
        (tmp_path / f"{module}.py").write_text(text)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            f"[paythread.processors]\n{processors}\n[paythread.channels]\n{channels}\n"
        )
        importlib.invalidate_caches()
        forget()

    forget()
    yield install
    for name in set(sys.modules) - before:
        del sys.modules[name]
    forget()


def forget() -> None:
    for known in (registry._packaged, registry._of_package):
        known.cache_clear()
    registry._imported.clear()


def test_a_package_adds_its_providers_and_is_imported_when_asked_for(package: Callable[..., None]) -> None:
    others = registry.processor_names()  # a developer's environment may have packages of its own
    package("pay_x_pkg", PROCESSOR + CHANNEL, processors="pay_x = pay_x_pkg:Pay", channels="chat_x = pay_x_pkg:Chat")
    with pytest.raises(registry.UnknownProvider):
        registry.channel_class("pay_x")
    assert "pay_x_pkg" not in sys.modules
    assert registry.processor_class("pay_x") is sys.modules["pay_x_pkg"].Pay
    assert registry.channel_class("chat_x") is sys.modules["pay_x_pkg"].Chat
    assert registry.processor_names() == sorted(["pay_x", *others])
    assert set(registry.channel_names()) >= {"chat_x", "simulated"}
    assert registry.processor_class("stripe") is stripe.Stripe


def test_the_application_imports_no_vendors_sdk() -> None:
    code = "import sys, app; print(sorted({'stripe', 'twilio', 'redis', 'httpx'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOM.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_a_provider_is_imported_on_another_thread(package: Callable[..., None]) -> None:
    package(
        "pay_x_pkg",
        f"{PROCESSOR}\nimport threading\nthread = threading.get_ident()",
        processors="pay_x = pay_x_pkg:Pay\npay_y = no_such_module:Pay",
    )
    loaded = {name: await registry.load("processors", name) for name in ("pay_y", "pay_z", "../stripe", "")}
    assert set(loaded.values()) == {None}
    for _ in range(2):
        assert await registry.load("processors", "pay_x") is sys.modules["pay_x_pkg"].Pay
    assert registry.processor_class("pay_x") is sys.modules["pay_x_pkg"].Pay
    assert sys.modules["pay_x_pkg"].thread != threading.get_ident()
    assert registry._imported == {("processors", "pay_x"), ("processors", "pay_y")}


def test_a_package_never_takes_the_name_of_a_file(package: Callable[..., None], logged: list[str]) -> None:
    package(
        "thief", "raise RuntimeError('imported')", processors="stripe = thief:Stripe", channels="simulated = thief:S"
    )
    assert registry.processor_class("stripe") is stripe.Stripe
    assert registry.channel_class("simulated").__module__ == "integrations.channels.simulated"
    assert (registry.processor_names().count("stripe"), registry.channel_names().count("simulated")) == (1, 1)
    assert "thief" not in sys.modules
    assert sorted(logged) == [
        "paythread.channels simulated thief: thief:S: Paythread already has a provider of this name",
        "paythread.processors stripe thief: thief:Stripe: Paythread already has a provider of this name",
    ]


BROKEN = {
    "it is not a class derived from integrations.base.Processor": "Pay = object",
    "it does not implement amount_limits, check, create_checkout, expire_checkout, parse, read_checkout, receive": (
        "from integrations.base import Processor\nclass Pay(Processor): pass"
    ),
    "its `name` is 'other', its entry point is called 'pay_x'": PROCESSOR + "\nPay.name = 'other'",
    "its `display_name` is not a non-empty string": PROCESSOR + "\nPay.display_name = ' '",
    "its `credentials` is not a dataclass": PROCESSOR + "\nPay.credentials = dict",
    "its `credentials` is not frozen": PROCESSOR + "\n@dataclass\nclass Open:\n    key: str\nPay.credentials = Open",
    "fields of its `credentials` are not strings: port": (
        PROCESSOR + "\n@dataclass(frozen=True)\nclass Odd:\n    key: str\n    port: int = 1\nPay.credentials = Odd"
    ),
    "it cannot be called as Pay(credentials, environment=…, webhook_url=…)": (
        PROCESSOR + "\ndef init(self, credentials, *, environment): pass\nPay.__init__ = init"
    ),
    "its `capabilities` is not a Capabilities": PROCESSOR + '\nPay.capabilities = {"refunds": False}',
    "its `checkout_origins` is not a tuple of origins such as https://pay.example.com": (
        PROCESSOR + '\nPay.checkout_origins = ("https://a.example; script-src *",)'
    ),
    "its import fails: RuntimeError: no key": "raise RuntimeError('no key')",
    "its import fails: SystemExit: 1": "import sys\nsys.exit(1)",
    "its import fails: ModuleNotFoundError: No module named 'not_installed_sdk'": "import not_installed_sdk",
    "its import fails: AttributeError: module 'broken' has no attribute 'Pay'": "",
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_package_that_cant_be_used_is_not_installed_and_says_why_once(
    package: Callable[..., None], logged: list[str], reason: str
) -> None:
    package("broken", BROKEN[reason], processors="pay_x = broken:Pay")
    package("sound", CHANNEL, channels="chat_x = sound:Chat")
    for _ in range(3):
        with pytest.raises(registry.UnknownProvider):
            registry.processor_class("pay_x")
        assert "pay_x" not in registry.processor_names()
    assert registry.processor_class("stripe") is stripe.Stripe
    assert registry.channel_class("chat_x").name == "chat_x"
    assert logged == [f"paythread.processors pay_x broken: broken:Pay: {reason}"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Chat.kinds = ('SMS',)", "its `kinds` is not a non-empty tuple of ChannelKind"),
        ("Chat.features = ['READ']", "its `features` is not a frozenset of Feature"),
        ("Chat.features = frozenset({'READ'})", "its `features` is not a frozenset of Feature"),
    ],
)
def test_a_channel_that_declares_what_is_none_is_refused(
    package: Callable[..., None], logged: list[str], line: str, reason: str
) -> None:
    package("mute", f"{CHANNEL}\n{line}", channels="chat_x = mute:Chat")
    assert "chat_x" not in registry.channel_names()
    assert logged[0].endswith(reason)


@pytest.mark.parametrize("name", ["P", "Pay", "1pay", "pay-x", "pay.x", "pay/x", "p" * 41])
def test_a_name_that_is_no_part_of_an_address_is_refused(
    package: Callable[..., None], logged: list[str], name: str
) -> None:
    package("named", "raise RuntimeError('imported')", processors=f"{name} = named:Pay")
    with pytest.raises(registry.UnknownProvider):
        registry.processor_class(name)
    assert len(logged) == 1
    assert "named" not in sys.modules


def test_of_two_packages_with_one_name_neither_is_taken(package: Callable[..., None], logged: list[str]) -> None:
    package("first", PROCESSOR, processors="pay_x = first:Pay")
    package("second", PROCESSOR, processors="pay_x = second:Pay")
    logged.clear()
    assert "pay_x" not in registry.processor_names()
    assert [line.partition(": ")[2].partition(": ")[2] for line in logged] == [
        "several packages offer this name: uninstall all but one"
    ]
