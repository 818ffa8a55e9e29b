"""Settings: replacement addresses of vendors reach the providers, but not in production."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from settings import Settings

PRODUCTION = {"environment": "production", "public_url": "https://pay.example.test", "secret_keys": "k" * 32}
VENDORS = ("stripe", "paypal", "square", "twilio", "meta")


def made(**values: Any) -> Settings:
    return Settings(_env_file=None, **values)  # type: ignore[call-arg]


def test_each_vendors_address_is_handed_to_its_provider() -> None:
    given = {f"{name}_api_base": f"http://127.0.0.1:9/{name}" for name in VENDORS}
    assert made(environment="test").base_addresses == {}
    assert made(environment="test", **given).base_addresses == {n: f"http://127.0.0.1:9/{n}" for n in VENDORS}


def test_the_addresses_of_packaged_providers_are_a_list() -> None:
    given = made(environment="test", provider_api_bases="acme_pay=http://127.0.0.1:9/?a=b, acme_chat=http://x.test,")
    assert given.base_addresses == {"acme_pay": "http://127.0.0.1:9/?a=b", "acme_chat": "http://x.test"}
    with pytest.raises(ValidationError, match="PROVIDER_API_BASES: an address instead of the vendor's"):
        made(**PRODUCTION, provider_api_bases="acme_pay=http://127.0.0.1:9")


@pytest.mark.parametrize("name", VENDORS)
def test_production_refuses_an_address_in_place_of_a_vendors(name: str) -> None:
    assert made(**PRODUCTION).base_addresses == {}
    with pytest.raises(ValidationError) as refused:
        made(**PRODUCTION, **{f"{name}_api_base": "http://127.0.0.1:9"})
    assert f"{name.upper()}_API_BASE" in str(refused.value)


@pytest.mark.parametrize("origin", ["inbox.example", "https://inbox.example/app", "https://", "https://a b", "null"])
def test_what_is_no_origin_is_refused_before_the_start(origin: str) -> None:
    with pytest.raises(ValidationError, match=r"ALLOWED_ORIGINS: .* is no origin; use scheme://host"):
        made(allowed_origins=f"https://inbox.example,{origin}")


def test_origins_of_pages_and_of_apps_are_taken_with_a_slash_and_spaces_around() -> None:
    listed = "https://inbox.example/ , http://[::1]:5173, capacitor://localhost,*"
    assert made(allowed_origins=listed).origins[1:] == [
        "https://inbox.example",
        "http://[::1]:5173",
        "capacitor://localhost",
        "*",
    ]


@pytest.mark.parametrize(
    "entry", ["*", "http://mail.internal", "mail.internal/", "mail:internal", "a b", "fd00::5", ":25", "."]
)
def test_what_is_no_private_host_is_refused_before_the_start(entry: str) -> None:
    with pytest.raises(ValidationError, match=r"ALLOWED_PRIVATE_HOSTS: .* is no host"):
        made(allowed_private_hosts=f"mail.internal,{entry}")


def test_private_hosts_are_taken_with_ports_and_spaces_around() -> None:
    listed = made(allowed_private_hosts="Mail.Internal , 10.0.0.5:1025,mail:*, [fd00::5]:25").private_hosts
    assert listed == {"mail.internal", "10.0.0.5:1025", "mail:*", "[fd00::5]:25"}
    assert made().private_hosts == frozenset()
