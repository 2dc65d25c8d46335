"""One customer in a real browser: found while typing, looked at, purged in a dialog, and nowhere afterwards."""

import re

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import insert

from app import create_app
from purge.extensions import db, now
from purge.models import TimelineEvent
from tests.browser import check, press_on
from tests.people import add_customer


@pytest.fixture
def person(shop):
    """Somebody with orders and a referral, not purged yet: id, name, address."""
    (found,) = shop.ask(
        'SELECT id, first_name, surname, email FROM customer c WHERE EXISTS (SELECT 1 FROM "order" WHERE customer_id = c.id)'
        " AND EXISTS (SELECT 1 FROM referral WHERE referrer_id = c.id) AND receives_emails ORDER BY random() LIMIT 1"
    )
    return found


def kept(page: Page) -> str:
    """All that the browser keeps for this site."""
    return page.evaluate("() => JSON.stringify([{...localStorage}, {...sessionStorage}, history.state, location.href])")


def test_typing_finds_and_nothing_typed_reaches_address_history_or_storage(open_page):
    page = open_page()
    page.goto("/customers")
    page.wait_for_load_state("networkidle")
    before = page.evaluate("() => history.length")
    page.locator("#term").press_sequentially("endy", delay=20)
    expect(page.locator("#found mark").first).to_have_text("endy")
    expect(page.get_by_role("status")).to_have_text("The first 50 customers, the best match first")
    page.select_option("select[name=emails]", "off")
    expect(page.locator("tbody tr").first.locator("td").nth(2)).to_have_text("no")
    page.fill("#term", "nobodycalledthis")
    expect(page.get_by_role("heading", name="Nobody found")).to_be_visible()
    assert page.url.endswith("/customers?emails=off") and page.evaluate("() => history.length") == before
    assert not re.search("endy|nobodycalled", kept(page))


def test_who_comes_back_from_a_profile_finds_the_filters_as_they_were(open_page):
    page = open_page()
    page.goto("/customers")
    page.wait_for_load_state("networkidle")
    page.select_option("select[name=emails]", "off")
    page.wait_for_url("**/customers?emails=off")
    page.locator("tbody a").first.click()
    page.wait_for_url(re.compile(r"/customers/\d+$"))
    page.go_back()
    expect(page.locator("select[name=emails]")).to_have_value("off")
    expect(page.locator("tbody tr").first.locator("td").nth(2)).to_have_text("no")


def test_an_older_answer_never_replaces_a_newer_one(open_page):
    page, held = open_page(), []

    def hold_the_first(route):
        if not held:
            held.append(route)
        else:
            route.continue_()

    page.goto("/customers")
    page.wait_for_load_state("networkidle")
    page.route("**/customers/found", hold_the_first)
    page.fill("#term", "jose")
    page.wait_for_timeout(500)
    assert held
    page.fill("#term", "wendy")
    expect(page.locator("#found mark").first).to_have_text("Wendy")
    held[0].continue_()
    page.wait_for_timeout(500)
    expect(page.locator("#found mark").first).to_have_text("Wendy")


def test_the_pages_are_turned_in_place(open_page):
    page = open_page()
    page.goto("/customers")
    page.wait_for_load_state("networkidle")
    first = page.locator("tbody a").first.inner_text()
    page.get_by_role("button", name="Last").press("Enter")
    expect(page.get_by_role("button", name="Next")).to_have_count(0)
    expect(page.locator("#told")).to_be_focused()
    expect(page.locator("#told")).to_be_in_viewport()
    page.get_by_role("button", name="Previous").click()
    expect(page.get_by_role("button", name="Next")).to_be_visible()
    page.get_by_role("button", name="First").click()
    expect(page.locator("tbody a").first).to_have_text(first)


def test_purged_in_a_dialog_followed_live_and_nowhere_afterwards(open_page, person):
    id, first_name, surname, email = person
    page = open_page()
    page.goto("/customers")
    page.wait_for_load_state("networkidle")
    page.fill("#term", email)
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("link", name=f"{first_name} {surname}").click()
    page.wait_for_url(f"**/customers/{id}")
    page.wait_for_load_state("networkidle")
    page.get_by_text("Actions").click()
    page.get_by_role("link", name="Purge …").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", level=1)).to_contain_text(first_name)
    expect(dialog.get_by_text(re.compile("orders? stays?, without a name"))).to_be_visible()
    dialog.get_by_label("Reason").select_option("privacy_request")
    dialog.get_by_label("Asked for on").fill("2026-10-31")
    expect(dialog.get_by_text("30 Nov 2026")).to_be_visible()
    dialog.get_by_role("button", name=f"Permanently delete {first_name}").dblclick()
    expect(page.locator(".purging h1")).to_have_text(f"{first_name}’s data was permanently deleted")
    expect(page.get_by_role("link", name=re.compile(r"^batch \d+$"))).to_be_visible()
    expect(page.get_by_text("You may close this page")).to_be_hidden()
    assert email not in page.content() and email not in kept(page) and first_name not in page.title()

    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("This customer was purged")
    page.go_back()
    page.wait_for_load_state("networkidle")
    for path in (None, "/customers", "/batches"):
        if path:
            page.goto(path)
        assert email not in page.content()
    page.goto("/customers")
    page.wait_for_load_state("networkidle")
    page.fill("#term", email)
    expect(page.get_by_role("heading", name="Nobody found")).to_be_visible()
    page.goto("/was-this-person-purged")
    page.fill("#address", email)
    page.get_by_role("button", name="Look it up").click()
    expect(page.get_by_text("which came in by the customer’s page")).to_be_visible()


def test_the_keyboard_alone_purges_and_escape_keeps(open_page, person):
    id, first_name, *_ = person
    page = open_page()
    page.goto(f"/customers/{id}")
    page.wait_for_load_state("networkidle")
    # As on a busy machine, where keys come before htmx is ready.
    page.evaluate("() => { htmx.config.defaultSettleDelay = 300; }")
    press_on(page, "Actions")
    press_on(page, "Purge …")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert page.evaluate("() => document.activeElement.innerText") == "Actions"
    page.keyboard.press("Enter")
    press_on(page, "Purge …")
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(page.get_by_role("button", name="Close")).to_be_focused()
    press_on(page, f"Keep {first_name}")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.keyboard.press("Enter")
    press_on(page, "Purge …")
    expect(page.get_by_role("dialog")).to_be_visible()
    # Enter in a field is how one ends typing, and no yes.
    page.evaluate(
        "() => { window.settled = new Promise((done) => document.addEventListener('htmx:afterSettle', done)); }"
    )
    page.get_by_label("Asked for on").press("Enter")
    page.evaluate("async () => { await window.settled; }")
    expect(page.get_by_role("dialog").get_by_role("heading", level=1)).to_be_focused()
    expect(page.get_by_role("button", name="Permanently delete")).to_be_visible()
    press_on(page, f"Permanently delete {first_name}")
    expect(page.locator(".purging h1")).to_have_text(f"{first_name}’s data was permanently deleted")
    expect(page.locator("#main")).to_be_focused()  # only once htmx has settled, a moment after the words stand there


def test_turning_emails_off_is_offered_in_the_menu_and_in_the_dialog(open_page, person):
    page = open_page()
    page.goto(f"/customers/{person[0]}")
    page.wait_for_load_state("networkidle")
    page.get_by_text("Actions").click()
    page.get_by_role("link", name="Purge …").click()
    with page.expect_navigation():
        page.get_by_role("dialog").get_by_role("button", name="Turn emails off").click()
    page.get_by_text("Actions").click()
    with page.expect_navigation():
        page.get_by_role("button", name="Turn emails on").click()
    page.get_by_text("Actions").click()
    expect(page.get_by_role("button", name="Turn emails off")).to_be_visible()


def test_without_javascript_the_same_walk_has_pages_of_its_own(open_page, person):
    id, first_name, _, email = person
    page = open_page(java_script_enabled=False)
    page.goto("/customers")
    page.fill("#term", email)
    page.get_by_role("button", name="Search").click()
    page.locator("tbody a").first.click()
    page.wait_for_url(f"**/customers/{id}")
    page.get_by_text("Actions").click()
    page.get_by_role("link", name="Purge …").click()
    page.wait_for_url(f"**/customers/{id}/purge")
    page.get_by_role("button", name=f"Permanently delete {first_name}").click()
    expect(page.get_by_text("1 customer was permanently deleted")).to_be_visible()
    page.fill("#bar", "csv")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Upload Tags").last.click()
    page.wait_for_url("**/settings/upload-tags")


def test_a_search_bar_opened_before_htmx_is_there_offers_as_soon_as_it_is(open_page):
    page = open_page(cdn=lambda route: None)  # it hangs, and our own copy takes over a second and a half later
    page.keyboard.press("Control+k")
    assert page.evaluate("window.htmx === undefined")
    expect(page.locator("#offers [role=option]")).to_have_count(11)


def test_the_search_bar_opens_pages_batches_and_customers_from_the_keyboard(open_page):
    page = open_page()
    page.wait_for_load_state("networkidle")
    page.keyboard.press("Control+k")
    bar = page.get_by_role("combobox", name="Go to a page, a batch or a customer")
    expect(bar).to_be_focused()
    expect(page.locator("#offers [role=option]")).to_have_count(11)
    page.keyboard.type("Upload tags")
    page.keyboard.press("Enter")  # faster than the answer
    page.wait_for_url("**/settings/upload-tags")

    page.wait_for_load_state("networkidle")
    page.keyboard.press("Meta+k")
    page.keyboard.type("wend")
    expect(page.locator("#offers [role=option]")).to_have_count(1)
    assert bar.get_attribute("aria-expanded") == "true"
    assert bar.get_attribute("aria-activedescendant") == page.locator("#offers [aria-selected=true]").get_attribute(
        "id"
    )
    page.keyboard.press("Enter")
    page.wait_for_url("**/customers")
    expect(page.locator("mark").first).to_have_text("Wend")
    assert "wend" not in kept(page).lower()

    page.wait_for_load_state("networkidle")
    page.keyboard.press("Control+k")
    page.keyboard.type("gdpr")
    expect(page.locator("#offers [role=option]")).to_have_count(4)
    page.keyboard.press("ArrowDown")
    chosen = page.locator("#offers [aria-selected=true]")
    expect(chosen).to_have_text(re.compile("purged|Upload"))
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    expect(chosen).to_contain_text("Find customer")
    page.keyboard.press("Escape")
    expect(page.locator("#offers")).to_be_hidden()


def test_a_file_chosen_in_the_search_bar_is_saved_and_the_page_stays_as_it_was(open_page):
    page = open_page()
    page.wait_for_load_state("networkidle")
    page.keyboard.press("Control+k")
    page.keyboard.type("template")
    with page.expect_download():
        page.keyboard.press("Enter")
    expect(page.locator("#offers")).to_be_hidden()
    assert page.url.endswith("/batches")


def test_enter_in_the_search_bar_never_jumps_later_by_itself(open_page):
    page = open_page()
    page.wait_for_load_state("networkidle")
    for keys in (["x", "Escape", "Enter"], ["Escape", "Enter"]):
        page.keyboard.press("Control+k")
        for key in keys:
            page.keyboard.press(key)
        page.get_by_role("heading", level=1).click()
        page.keyboard.press("Control+k")
        expect(page.locator("#offers [role=option]")).to_have_count(11)
        page.wait_for_timeout(300)
        assert page.url.endswith("/batches")
    page.route("**/search/offers", lambda route: route.abort())
    page.keyboard.type("upload tags")
    page.keyboard.press("Enter")
    expect(page.locator("#trouble")).to_be_visible()
    page.unroute("**/search/offers")
    page.get_by_role("heading", level=1).click()
    page.keyboard.press("Control+k")
    page.wait_for_timeout(500)
    assert page.url.endswith("/batches")


def test_the_dialog_of_somebody_purged_meanwhile_is_the_page_that_says_so(open_page, person):
    page, other = open_page(), open_page()
    for one in (page, other):
        one.goto(f"/customers/{person[0]}")
        one.wait_for_load_state("networkidle")
        one.get_by_text("Actions").click()
    other.get_by_role("link", name="Purge …").click()
    other.get_by_role("button", name="Permanently delete").click()
    expect(other.get_by_text("was permanently deleted")).to_be_visible()
    page.get_by_role("link", name="Purge …").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("This customer was purged")
    assert page.locator("dialog[open]").count() == 0


def test_a_further_page_of_somebody_purged_meanwhile_is_the_page_that_says_so(shop, open_page):
    with create_app(shop.environ).app_context():
        id = add_customer("many.events@people.com")
        event = {"customer_id": id, "kind": "an event", "happened_at": now()}
        db.session.execute(insert(TimelineEvent), [event] * 11)
        db.session.commit()
        db.session.remove()
        db.engine.dispose()
    page, other = open_page(), open_page()
    page.goto(f"/customers/{id}")
    page.wait_for_load_state("networkidle")
    other.goto(f"/customers/{id}/purge")
    other.get_by_role("button", name="Permanently delete").click()
    expect(other.get_by_text("was permanently deleted")).to_be_visible()
    page.get_by_role("link", name="Older activity").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("This customer was purged")


def test_a_server_that_does_not_answer_the_dialog_is_told_inside_it_and_a_second_try_works(open_page, person):
    page = open_page()
    page.goto(f"/customers/{person[0]}")
    page.wait_for_load_state("networkidle")
    page.get_by_text("Actions").click()
    page.get_by_role("link", name="Purge …").click()
    page.route("**/purge", lambda route: route.abort())
    page.get_by_role("button", name="Permanently delete").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("look at the batch or the customer before")
    page.unroute("**/purge")
    page.get_by_role("button", name="Permanently delete").click()
    expect(page.get_by_text("was permanently deleted")).to_be_visible()


def test_a_server_that_is_lost_after_the_confirmation_is_told_too(open_page, person):
    page = open_page()
    page.goto(f"/customers/{person[0]}")
    page.wait_for_load_state("networkidle")
    page.get_by_text("Actions").click()
    page.get_by_role("link", name="Purge …").click()
    button, trouble = page.get_by_role("button", name="Permanently delete"), page.locator("#trouble")
    page.route("**/purge", lambda route: route.abort())
    button.click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_be_visible()
    page.unroute("**/purge")
    page.route("**/customers/purging/*", lambda route: route.abort())
    button.click()
    expect(page.locator(".purging h1")).to_contain_text("is being deleted")
    expect(trouble).to_be_visible()
    expect(trouble).to_contain_text("it will be asked again")
    page.unroute("**/customers/purging/*")
    expect(page.locator(".purging h1")).to_contain_text("was permanently deleted")
    expect(trouble).to_be_hidden()


def test_what_the_server_refuses_is_told_in_its_own_words(open_page, person):
    page = open_page()
    page.goto(f"/customers/{person[0]}")
    page.wait_for_load_state("networkidle")
    page.get_by_text("Actions").click()
    page.get_by_role("link", name="Purge …").click()
    page.evaluate("() => { console.error = () => {}; }")  # where htmx reports it
    trouble = page.locator("#trouble")
    ours = page.request.get("/nowhere").text()
    answers = iter([ours, "<h1>Bad gateway</h1>"])
    page.route("**/purge", lambda route: route.fulfill(status=404, content_type="text/html", body=next(answers)))
    page.get_by_role("button", name="Permanently delete").click()
    expect(trouble).to_have_text("There is nothing here. The address may be mistyped, or what was here is gone.")
    page.get_by_role("button", name="Permanently delete").click()
    expect(trouble).to_contain_text("The server did not answer. Whether this click was done is not certain")


def test_a_refused_confirmation_stays_in_the_dialog(open_page, person):
    page = open_page()
    page.goto(f"/customers/{person[0]}")
    page.wait_for_load_state("networkidle")
    page.get_by_text("Actions").click()
    page.get_by_role("link", name="Purge …").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.evaluate("() => { document.querySelector('#purge [name=plan]').value = 'another' }")
    page.get_by_label("Reason").select_option("privacy_request")
    page.get_by_role("button", name="Permanently delete").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("alert")).to_contain_text("has changed since you looked")
    expect(dialog.get_by_label("Reason")).to_have_value("privacy_request")
    title = dialog.get_by_role("heading", level=1)
    expect(title).to_be_focused()
    expect(title).to_have_accessible_description(re.compile("has changed since you looked"))
    page.get_by_role("button", name="Permanently delete").click()
    expect(page.get_by_text("was permanently deleted")).to_be_visible()


def test_going_back_to_a_search_from_the_bar_asks_for_nothing_again(open_page):
    page = open_page()
    page.wait_for_load_state("networkidle")
    page.keyboard.press("Control+k")
    page.keyboard.type("wend")
    page.keyboard.press("Enter")
    page.wait_for_url("**/customers")
    page.wait_for_load_state("networkidle")
    page.locator("tbody a").first.click()
    page.wait_for_url(re.compile(r"/customers/\d+$"))
    asked = []
    page.on("request", lambda request: asked.append(request.method) if request.is_navigation_request() else None)
    page.go_back()
    page.wait_for_load_state("networkidle")
    assert asked == ["GET"] and page.locator("#term").input_value() == ""


def test_very_long_names_fit_a_small_screen(shop, open_page):
    long = "W" * 100
    with create_app(shop.environ).app_context():
        id = add_customer(f"{long}@people.com", first_name=long, surname=long)
        db.session.commit()
        db.session.remove()
        db.engine.dispose()
    page = open_page(viewport={"width": 320, "height": 700})
    for path in (f"/customers/{id}", f"/customers/{id}/purge"):
        page.goto(path)
        check(page, path)
    page.goto(f"/customers/{id}")
    page.wait_for_load_state("networkidle")
    page.get_by_text("Actions").click()
    page.get_by_role("link", name="Purge …").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.evaluate("() => { const d = document.querySelector('dialog'); return d.scrollWidth <= d.clientWidth }")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_the_customers_pages(open_page, person, scheme):
    page = open_page(color_scheme=scheme, viewport={"width": 320, "height": 700})
    page.goto("/customers")
    page.wait_for_load_state("networkidle")
    page.fill("#term", "wend")
    expect(page.locator("#found mark").first).to_be_visible()
    check(page, "found")
    page.fill("#term", "nobodycalledthis")
    expect(page.get_by_role("heading", name="Nobody found")).to_be_visible()
    check(page, "nobody")
    for path in (f"/customers/{person[0]}", f"/customers/{person[0]}/sections/orders", f"/customers/{person[0]}/purge"):
        page.goto(path)
        check(page, path)
    page.goto(f"/customers/{person[0]}")
    page.wait_for_load_state("networkidle")
    page.get_by_text("Actions").click()
    check(page, "menu")
    page.get_by_role("link", name="Purge …").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    check(page, "dialog")
    page.keyboard.press("Escape")
    page.focus("#bar")
    expect(page.locator("#offers [role=option]").first).to_be_visible()
    check(page, "search bar")
