"""The header Accept-Language chooses the language of messages."""

from __future__ import annotations

import httpx2
import pytest

from tests.flows.harness import Product

SIGN_IN = 'mutation { signIn(input: {email: "nobody@example.com", password: "wrong"}) { userErrors { code message } } }'


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("languages", "message"),
    [
        ("es-ES,es;q=0.9", "La dirección de correo o la contraseña no es correcta."),
        ("tlh", "Email address or password is wrong."),
    ],
)
async def test_a_message_is_in_the_language_that_the_header_prefers(
    product: Product, languages: str, message: str
) -> None:
    async with httpx2.AsyncClient() as client:
        answer = await client.post(
            f"{product.base_url}/graphql",
            json={"query": SIGN_IN},
            headers={"Accept": "application/json", "Accept-Language": languages},
        )
    assert answer.json()["data"]["signIn"]["userErrors"] == [{"code": "SIGN_IN_FAILED", "message": message}]
