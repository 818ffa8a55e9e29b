"""The pages in a browser: no console error, no policy violation, no request to another origin."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, WebSocket, expect

from tests.browser.conftest import Demo, Guard, NewContext


def _pay_at_the_sandbox(page: Page, demo: Demo, label: str = "Pay $25.00") -> None:
    expect(page).to_have_url(re.compile(re.escape(f"{demo.base_url}/sandbox/pay/")))
    page.get_by_role("button", name=label, exact=True).click()


def test_a_contact_pays_on_the_phone_and_sees_the_receipt(demo: Demo, phone: Page) -> None:
    request = demo.new_request()
    phone.goto(request["checkoutUrl"])
    expect(phone.get_by_role("heading", level=1)).to_have_text("Deep clean")
    expect(phone.get_by_text("$25.00 USD")).to_be_visible()
    phone.get_by_role("button", name="Pay $25.00").click()
    _pay_at_the_sandbox(phone, demo)
    expect(phone).to_have_url(request["checkoutUrl"])
    expect(phone.get_by_role("heading", name="Receipt")).to_be_visible()
    expect(phone.get_by_text(request["number"])).to_be_visible()
    expect(phone.get_by_text("Test card •••• 4242")).to_be_visible()
    expect(phone.get_by_text("Amount due")).to_have_count(0)
    expect(phone.get_by_role("button")).to_have_count(0)
    assert demo.status(request["id"]) == "PAID"


def test_the_whole_way_works_without_javascript(demo: Demo, open_context: NewContext, playwright: Any) -> None:
    request = demo.new_request()
    page = open_context(**playwright.devices["Pixel 7"], java_script_enabled=False).new_page()
    page.goto(request["checkoutUrl"])
    page.get_by_role("button", name="Pay $25.00").click()
    _pay_at_the_sandbox(page, demo, "Decline")
    # The sandbox's page offers another try; the contact goes on and pays.
    expect(page.get_by_role("alert")).to_contain_text("declined")
    _pay_at_the_sandbox(page, demo)
    expect(page.get_by_role("heading", name="Receipt")).to_be_visible()
    assert demo.status(request["id"]) == "PAID"


def test_an_open_page_turns_into_the_receipt_by_itself(demo: Demo, phone: Page, open_context: NewContext) -> None:
    request = demo.new_request()
    phone.goto(request["checkoutUrl"])
    other = open_context().new_page()
    other.goto(request["checkoutUrl"])
    other.get_by_role("button", name="Pay $25.00").click()
    _pay_at_the_sandbox(other, demo)
    expect(phone.get_by_role("heading", name="Receipt")).to_be_visible(timeout=15_000)
    expect(phone).to_have_title(re.compile("paid"))


def test_a_page_that_waits_shows_the_result_when_it_is_known(demo: Demo, phone: Page) -> None:
    request = demo.new_request()
    phone.goto(request["checkoutUrl"])
    phone.get_by_role("button", name="Pay $25.00").click()
    _pay_at_the_sandbox(phone, demo, "Pay later (succeeds)")
    expect(phone.get_by_role("status")).to_contain_text("being processed")
    expect(phone.get_by_role("button", name="Pay $25.00")).to_have_count(0)
    expect(phone.get_by_role("heading", name="Receipt")).to_be_visible(timeout=30_000)


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_a_contact_who_took_a_voucher_pays_another_way(
    demo: Demo, open_context: NewContext, playwright: Any, scripts: bool
) -> None:
    request = demo.new_request()
    page = open_context(**playwright.devices["Pixel 7"], java_script_enabled=scripts).new_page()
    page.goto(request["checkoutUrl"])
    page.get_by_role("button", name="Pay $25.00").click()
    _pay_at_the_sandbox(page, demo, "Take a voucher")
    expect(page.get_by_role("status")).to_contain_text("You started a payment by Test voucher on")
    again = page.get_by_role("button", name="Pay another way")
    again.click()  # the browser asks for the confirmation first
    assert demo.status(request["id"]) == "PROCESSING"
    sure = page.get_by_role("checkbox", name="I will not complete the first payment")
    for target in (again, page.locator("label")):
        box = target.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 44
    sure.check()
    again.click()
    page.get_by_role("button", name="Pay $25.00").click()
    _pay_at_the_sandbox(page, demo)
    expect(page.get_by_role("heading", name="Receipt")).to_be_visible()
    assert demo.status(request["id"]) == "PAID"


def test_a_voided_request_is_a_clear_notice(demo: Demo, phone: Page, guard: Guard) -> None:
    guard.allowed.append("status of 410")  # Chromium reports the page's own status
    request = demo.new_request()
    phone.goto(request["checkoutUrl"])
    demo.void(request["id"])
    expect(phone.get_by_role("status")).to_contain_text("cancelled", timeout=15_000)
    expect(phone.get_by_role("button")).to_have_count(0)
    answer = phone.goto(request["checkoutUrl"])
    assert answer is not None
    assert answer.status == 410


def test_an_unknown_link_is_a_page_that_helps(demo: Demo, phone: Page, guard: Guard) -> None:
    guard.allowed.append("status of 404")
    answer = phone.goto(f"{demo.base_url}/p/AAAAAAAAAAAAAAAAAAAAAA")
    assert answer is not None
    assert answer.status == 404
    expect(phone.get_by_role("heading", level=1)).to_have_text("There is nothing here")


def test_looking_makes_a_draft_sent_and_a_robot_does_not(demo: Demo, phone: Page, open_context: NewContext) -> None:
    request = demo.new_request()
    robot = open_context(user_agent="Mozilla/5.0 (compatible; LinkPreviewBot/1.0)").new_page()
    robot.goto(request["checkoutUrl"])
    with robot.expect_response("**/view"):
        robot.mouse.move(40, 60)
    assert demo.status(request["id"]) == "DRAFT"
    # An automated browser, like a mail scanner's, counts as a view only after an interaction.
    phone.goto(request["checkoutUrl"])
    assert demo.status(request["id"]) == "DRAFT"
    with phone.expect_response("**/view"):
        phone.mouse.move(40, 60)
    assert demo.status(request["id"]) == "SENT"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_page_fits_and_its_targets_are_large_enough(
    demo: Demo, open_context: NewContext, guard: Guard, width: int, scheme: Any
) -> None:
    request = demo.new_request("Grundreinigung-der-Einbauküchenhochschrankoberseiten " * 3)
    page = open_context(viewport={"width": width, "height": 700}, color_scheme=scheme).new_page()
    page.goto(request["checkoutUrl"])
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for target in page.locator("a, button").all():
        box = target.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 44
    loaded = [url for url in guard.asked if not url.endswith(("/view", "/live"))]
    assert len(loaded) <= 6
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(16, 22, 21)") == (scheme == "dark")


def test_the_page_can_be_paid_with_the_keyboard_alone(demo: Demo, desktop: Page) -> None:
    request = demo.new_request()
    desktop.goto(request["checkoutUrl"])
    assert desktop.evaluate("document.activeElement === document.body")  # nothing takes the focus by itself
    desktop.keyboard.press("Tab")
    expect(desktop.get_by_role("button", name="Pay $25.00")).to_be_focused()
    desktop.keyboard.press("Enter")
    expect(desktop).to_have_url(re.compile("/sandbox/pay/"))


HOSTILE = [
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "</title><svg onload=\"document.title='owned'\">",
    "{{ 7 * 7 }} javascript:alert(1)",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_product_name_is_only_text(demo: Demo, phone: Page, name: str) -> None:
    request = demo.new_request(name)
    phone.goto(request["checkoutUrl"])
    expect(phone.get_by_role("heading", level=1)).to_have_text(name)
    assert "owned" not in phone.title().replace(name, "")
    phone.get_by_role("button", name="Pay $25.00").click()
    expect(phone.get_by_role("heading", level=1)).to_have_text(name)


def _tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def _answer(page: Page) -> Any:
    return page.get_by_role("region", name="Result Window").or_(page.locator(".result-window"))


def test_graphiqls_examples_run_as_they_stand(demo: Demo, desktop: Page, open_context: NewContext) -> None:
    sockets: list[str] = []
    frames: list[str] = []

    def listen(socket: WebSocket) -> None:
        sockets.append(socket.url)
        socket.on("framereceived", lambda text: frames.append(str(text)))

    desktop.on("websocket", listen)
    desktop.goto(f"{demo.base_url}/graphiql")
    run = desktop.get_by_role("button", name=re.compile("^Execute query|^Stop query"))
    answer = _answer(desktop).first
    _tab(desktop, "FollowConversation")
    run.click()  # at once, before the schema is there
    expect(answer).to_contain_text('"Subscribed"')
    assert sockets == [f"{demo.base_url.replace('http', 'ws')}/graphql"]

    other = open_context(viewport={"width": 1280, "height": 900}).new_page()
    other.goto(f"{demo.base_url}/graphiql")
    result = _answer(other).first
    other.get_by_role("button", name="Execute query").click()
    expect(result).to_contain_text('"checkoutUrl"')
    expect(result).to_contain_text('"userErrors": []')
    link = re.search(rf"{re.escape(demo.base_url)}/p/[\w-]{{22}}", result.inner_text())
    assert link is not None
    for tab, field in (("ReadThread", "thread"), ("ListConversations", "waitingSince"), ("SaveView", "eventCursor")):
        _tab(other, tab)
        other.get_by_role("button", name="Execute query").click()
        expect(result).to_contain_text(f'"{field}"')
        expect(result).not_to_contain_text('"errors"')

    payer = open_context().new_page()
    payer.goto(link[0])
    payer.get_by_role("button", name="Pay $25.00").click()
    _pay_at_the_sandbox(payer, demo)
    # GraphiQL shows the newest event only: the contact's new totals.
    expect(answer).to_contain_text('"paymentSummary"')
    assert any('"PAYMENT_RECEIVED"' in frame for frame in frames)
    assert any('"PAID"' in frame for frame in frames)
    run.click()


def test_the_demo_phone_leads_from_message_to_receipt_and_answers(demo: Demo, phone: Page) -> None:
    phone.goto(f"{demo.base_url}/demo/phone")
    phone.get_by_text("Write as").click()
    phone.get_by_label("Message").fill("How much is it, please?")
    phone.get_by_role("button", name="Send").click()
    expect(phone.get_by_role("listitem").filter(has_text="How much is it, please?")).to_be_visible()


def test_the_index_leads_everywhere(demo: Demo, desktop: Page) -> None:
    desktop.goto(demo.base_url)
    expect(desktop.get_by_role("heading", level=1)).to_have_text("Paythread")
    expect(desktop.get_by_text(demo.api_key)).to_be_visible()
    for link in ("GraphiQL", "Demo phone", "/healthz", "/readyz", "/metrics"):
        href = desktop.get_by_role("link", name=link, exact=True).get_attribute("href")
        answer = desktop.request.get(f"{demo.base_url}{href}")
        assert answer.status == 200
