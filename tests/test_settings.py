"""Settings: addresses that stand in for vendors reach the providers, and never production."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from settings import Settings

PRODUCTION = {"environment": "production", "public_url": "https://pay.example.test", "secret_keys": "k" * 32}


def made(**values: Any) -> Settings:
    return Settings(_env_file=None, **values)  # type: ignore[call-arg]


def test_each_vendors_address_is_handed_to_its_provider() -> None:
    given = {f"{name}_api_base": f"http://127.0.0.1:9/{name}" for name in ("stripe", "twilio", "meta")}
    assert made(environment="test").base_addresses == {}
    assert made(environment="test", **given).base_addresses == {
        "stripe": "http://127.0.0.1:9/stripe",
        "twilio": "http://127.0.0.1:9/twilio",
        "meta": "http://127.0.0.1:9/meta",
    }


@pytest.mark.parametrize("name", ["stripe", "twilio", "meta"])
def test_production_refuses_an_address_in_place_of_a_vendors(name: str) -> None:
    assert made(**PRODUCTION).base_addresses == {}
    with pytest.raises(ValidationError) as refused:
        made(**PRODUCTION, **{f"{name}_api_base": "http://127.0.0.1:9"})
    assert f"{name.upper()}_API_BASE" in str(refused.value)
