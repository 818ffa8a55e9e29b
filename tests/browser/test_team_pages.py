"""The pages behind the links of emails to users: with and without scripts, and by axe."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it ships no types
from playwright.sync_api import Page, expect

from services.demo import seed
from tests.browser.conftest import Demo, Guard, NewContext

PASSWORD = "long-enough-1"


def link(demo: Demo) -> tuple[str, str]:
    """The address of a new person, and the link."""
    signed = demo.gql(
        "mutation($input: SignInInput!) { signIn(input: $input) { accessToken } }",
        input={"email": seed.EMAIL, "password": seed.PASSWORD},
    )["signIn"]
    email = f"nora-{os.urandom(4).hex()}@example.com"
    invited = Demo(demo.base_url, signed["accessToken"]).gql(
        "mutation($input: InviteUserInput!) { inviteUser(input: $input) { link } }",
        input={"email": email, "role": "AGENT"},
    )["inviteUser"]
    return email, str(invited["link"])


def fill(page: Page, again: str = PASSWORD) -> None:
    page.get_by_label("Your name").fill("Nora")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("Password again").fill(again)
    page.get_by_role("button", name="Accept the invitation").click()


def violations(page: Page) -> list[str]:
    return [found["id"] for found in Axe().run(page).response["violations"]]


def test_the_link_fills_the_form_and_leaves_the_address_bar(demo: Demo, phone: Page, guard: Guard) -> None:
    guard.allowed.append("status of 422")  # Chromium reports the page's own status
    email, address = link(demo)
    phone.goto(address)
    expect(phone).to_have_url(f"{demo.base_url}/join")
    expect(phone.get_by_label("Link from the email")).to_be_hidden()
    assert violations(phone) == []
    fill(phone, PASSWORD + "x")
    expect(phone.get_by_role("alert")).to_have_text("The two passwords differ.")
    expect(phone.get_by_label("Link from the email")).to_be_hidden()
    assert violations(phone) == []
    fill(phone)
    expect(phone.get_by_role("heading", name="Welcome")).to_be_visible()
    assert violations(phone) == []
    signed = demo.gql(
        "mutation($input: SignInInput!) { signIn(input: $input) { user { name } } }",
        input={"email": email, "password": PASSWORD},
    )["signIn"]
    assert signed == {"user": {"name": "Nora"}}
    token = address.partition("#")[2]
    assert not [url for url in guard.asked if token in url.partition("#")[0]]


def test_without_scripts_the_person_pastes_the_link(demo: Demo, open_context: NewContext, playwright: Any) -> None:
    _, address = link(demo)
    page = open_context(**playwright.devices["Pixel 7"], java_script_enabled=False).new_page()
    page.goto(address)
    page.get_by_label("Link from the email").fill(address)
    fill(page)
    expect(page.get_by_role("heading", name="Welcome")).to_be_visible()


@pytest.mark.parametrize(
    ("path", "button"), [("/reset-password", "Change the password"), ("/confirm-email", "Confirm this address")]
)
def test_a_wrong_link_is_explained(demo: Demo, phone: Page, guard: Guard, path: str, button: str) -> None:
    guard.allowed.append("status of 422")
    phone.goto(f"{demo.base_url}{path}#{'A' * 43}")
    expect(phone).to_have_url(re.compile(f"{path}$"))
    assert violations(phone) == []
    for label in ("Password", "Password again") if path == "/reset-password" else ():
        phone.get_by_label(label, exact=True).fill(PASSWORD)
    phone.get_by_role("button", name=button).click()
    expect(phone.get_by_role("alert")).to_contain_text("not valid, or no longer")
    assert violations(phone) == []
