"""The walk in a real browser: upload, map, errors in red, review, confirm, progress, summary, results."""

import csv
import io
import re

import pytest
from playwright.sync_api import expect

from tests.browser import check, press_on, upload


def people(shop, start: int, number: int, *more: str) -> bytes:
    asked = "SELECT first_name, email FROM customer WHERE id >= ? ORDER BY id LIMIT ?"
    rows = [f"{name},{email}" for name, email in shop.ask(asked, start, number)]
    return "\n".join(["Name,Mail to", *more, *rows, ""]).encode()


def test_the_whole_walk(shop, open_page):
    page, asked = open_page(), []
    page.on("request", lambda request: asked.append(request.url))
    upload(page, people(shop, 100, 250, "Ann,ann.at.people.com", "Bob,nobody@people.com"))
    page.wait_for_url("**/mapping")
    expect(page.get_by_text("Choose a column first.")).to_be_visible()
    expect(page.get_by_role("button", name="Upload", exact=True)).to_have_count(0)

    page.select_option("#column", label="Name")
    expect(page.get_by_text("No row has a valid address in this column.")).to_be_visible()
    page.select_option("#column", label="Mail to")
    expect(page.get_by_text("1 row with errors will be skipped")).to_be_visible()
    wrong = page.locator("td.bad-cell")
    expect(wrong).to_have_count(1)
    expect(wrong).to_contain_text("missing @")
    assert wrong.locator("xpath=preceding-sibling::th").inner_text() == "2"
    red, green, blue = (int(part) for part in re.findall(r"\d+", wrong.evaluate("e => getComputedStyle(e).color"))[:3])
    assert red > 2 * max(green, blue)

    page.get_by_role("button", name="Upload", exact=True).click()
    page.wait_for_url("**/review")
    expect(page.get_by_role("heading", level=1)).to_have_text("250 customers will be permanently deleted")
    page.fill("#typed", "250")
    page.get_by_role("button", name="Permanently delete 250 customers").dblclick()
    page.wait_for_url("**/summary")
    expect(page.get_by_role("heading", level=1)).to_have_text("250 customers were permanently deleted")
    with page.expect_download() as download:
        page.click("text=Download the results")
    results = list(csv.reader(io.StringIO(download.value.path().read_text())))
    assert results[:4] == [
        ["Row", "Outcome", "Reason"], ["2", "invalid", "missing @"], ["3", "not found", ""], ["4", "purged", ""],
    ]  # fmt: skip
    assert len(results) == 253
    assert not [url for url in asked if "token" in url]


def test_a_row_for_something_else_turns_red_and_may_be_taken_all_the_same(shop, open_page):
    page = open_page()
    ann, ben = (email for (email,) in shop.ask("SELECT email FROM customer ORDER BY id LIMIT 2 OFFSET 90"))
    upload(page, f"Customer Email,Type\n{ann},purge\n{ben},unsubscribe\n".encode())
    page.wait_for_url("**/mapping")
    wrong = page.locator("td.bad-cell")
    expect(wrong).to_have_text("unsubscribeits type is not purge")
    page.get_by_label("Purge them as well, whatever their type").check()
    expect(wrong).to_have_count(0)
    expect(page.get_by_text("2 of the first 2 rows are valid")).to_be_visible()
    page.get_by_label("Purge them as well, whatever their type").uncheck()
    expect(wrong).to_have_count(1)
    page.get_by_role("button", name="Upload", exact=True).click()
    page.wait_for_url("**/review")
    expect(page.get_by_role("heading", level=1)).to_have_text("1 customer will be permanently deleted")


def test_closing_the_tab_changes_nothing(shop, open_page):
    page = open_page()
    upload(page, people(shop, 500, 1500))
    page.select_option("#column", label="Mail to")
    page.get_by_role("button", name="Upload", exact=True).click()
    page.wait_for_url("**/review")
    page.fill("#typed", "1,500")
    page.get_by_role("button", name="Permanently delete").click()
    page.wait_for_url(re.compile("progress|summary"))
    address = page.url.replace("summary", "progress")
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_url("**/summary")
    expect(page.get_by_text("1,500 customers were permanently deleted")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_sticks_out_at_320_pixels(shop, open_page, scheme):
    page = open_page(color_scheme=scheme, viewport={"width": 320, "height": 700})
    start = 2100 if scheme == "light" else 2200
    upload(page, b"Email\n")
    expect(page.get_by_text("no data rows")).to_be_visible()
    check(page, "refused")
    upload(page, "Email,Name\nzoe@people.com,Zoë\n".encode("cp1252"))
    page.wait_for_url("**/mapping")
    check(page, "windows-1252")
    upload(page, people(shop, start, 20, "Ann,broken"))
    page.select_option("#column", label="Mail to")
    expect(page.locator("td.bad-cell")).to_be_visible()
    check(page, "mapping")
    page.get_by_role("button", name="Upload", exact=True).click()
    page.wait_for_url("**/review")
    check(page, "review")
    page.fill("#typed", "20")
    page.get_by_role("button", name="Permanently delete").click()
    page.wait_for_url("**/summary")
    check(page, "summary")
    for path in ("/batches", "/customers", "/settings/upload-tags", "/nowhere"):
        page.goto(path)
        check(page, path)


def test_the_live_pages_pass_axe_too(shop, open_page):
    page = open_page()
    upload(page, people(shop, 2300, 30))
    page.select_option("#column", label="Mail to")
    page.get_by_role("button", name="Upload", exact=True).click()
    page.wait_for_url("**/review")
    page.route("**/live*", lambda route: route.abort())
    page.fill("#typed", "30")
    page.get_by_role("button", name="Permanently delete").click()
    page.wait_for_url(re.compile("progress|summary"))
    check(page, "progress")


def test_without_javascript_it_is_the_same_walk(shop, open_page):
    page = open_page(java_script_enabled=False)
    upload(page, people(shop, 2400, 5))
    page.select_option("#column", label="Mail to")
    page.click("text=Show the rows under this column")
    expect(page.get_by_text("5 of the first 5 rows are valid")).to_be_visible()
    page.get_by_role("button", name="Upload", exact=True).click()
    page.wait_for_url("**/review")
    page.get_by_role("button", name="Permanently delete 5 customers").click()
    page.wait_for_url("**/summary")
    expect(page.get_by_text("5 customers were permanently deleted")).to_be_visible()


def test_without_javascript_one_too_large_is_answered_in_words(open_page, tmp_path):
    with open(tmp_path / "large.csv", "wb") as file:
        file.truncate(150_000_000)
    page = open_page(java_script_enabled=False)
    page.goto("/settings/upload-tags")
    page.set_input_files("#file", tmp_path / "large.csv")
    page.click("text=Continue to the fields")
    expect(page.get_by_role("heading", level=1)).to_have_text("The file is too large")


def test_the_keyboard_alone_is_enough(shop, open_page):
    page = open_page()
    upload(page, people(shop, 2450, 3))
    page.wait_for_url("**/mapping")
    page.focus("#column")
    page.keyboard.type("Mail")
    expect(page.get_by_role("button", name="Upload", exact=True)).to_be_visible()
    press_on(page, "Upload")
    page.wait_for_url("**/review")
    press_on(page, "Permanently delete 3 customers")
    page.wait_for_url("**/summary")


def tamper(route) -> None:
    route.fulfill(body="alert(1)", content_type="text/javascript", headers={"Access-Control-Allow-Origin": "*"})


@pytest.mark.parametrize(
    "trouble", [lambda route: route.abort(), tamper, lambda route: None], ids=["away", "tampered", "hanging"]
)
def test_htmx_works_when_the_cdn_does_not(shop, open_page, trouble):
    page = open_page(cdn=trouble)
    upload(page, people(shop, 2500, 2))
    page.wait_for_url("**/mapping", wait_until="domcontentloaded")
    page.select_option("#column", label="Mail to")
    expect(page.get_by_text("2 of the first 2 rows are valid")).to_be_visible()


def test_a_file_can_be_dropped_and_one_too_large_is_refused_before_it_is_sent(open_page):
    page = open_page()
    page.goto("/settings/upload-tags")
    dropped = page.evaluate_handle(
        """() => {
            const dropped = new DataTransfer();
            dropped.items.add(new File(["Email\\nnobody@people.com\\n"], "dropped.csv", { type: "text/csv" }));
            return dropped;
        }"""
    )
    page.dispatch_event("[data-drop]", "drop", {"dataTransfer": dropped})
    expect(page.locator("[data-file-name]")).to_contain_text("dropped.csv")
    page.evaluate("() => { document.querySelector('[data-upload]').dataset.maxBytes = 10; }")
    page.dispatch_event("[data-drop]", "drop", {"dataTransfer": dropped})
    expect(page.get_by_text("Send it in parts.")).to_be_visible()
    expect(page.get_by_role("button", name="Continue to the fields")).to_be_disabled()
    page.evaluate("() => { document.querySelector('[data-upload]').dataset.maxBytes = 1000; }")
    page.dispatch_event("[data-drop]", "drop", {"dataTransfer": dropped})
    page.click("text=Continue to the fields")
    page.wait_for_url("**/mapping")
    expect(page.get_by_text("dropped.csv")).to_be_visible()


def test_several_files_dropped_at_once_are_refused_before_they_are_sent(open_page):
    page = open_page()
    page.goto("/settings/upload-tags")
    dropped = page.evaluate_handle(
        """() => {
            const dropped = new DataTransfer();
            for (const name of ["a.csv", "b.csv"]) dropped.items.add(new File(["Email\\na@people.com\\n"], name));
            return dropped;
        }"""
    )
    page.dispatch_event("[data-drop]", "drop", {"dataTransfer": dropped})
    expect(page.get_by_text("These are 2 files. Send one file at a time.")).to_be_visible()
    expect(page.get_by_role("button", name="Continue to the fields")).to_be_disabled()


def test_a_file_a_byte_too_large_is_said_to_be_larger_than_the_most(open_page):
    page = open_page()
    page.goto("/settings/upload-tags")
    page.evaluate("() => { document.querySelector('[data-upload]').dataset.maxBytes = 1_000_000; }")
    page.set_input_files("#file", {"name": "people.csv", "mimeType": "text/csv", "buffer": b"x" * 1_000_001})
    expect(page.get_by_text("This file is 1.1 MB; 1.0 MB is the most.")).to_be_visible()


def test_after_an_upload_that_was_stopped_another_file_can_be_sent(open_page):
    page = open_page()
    page.route("**/uploads", lambda route: route.abort("aborted"))
    upload(page, b"Email\na@people.com\n")
    expect(page.get_by_role("button", name="Sending and reading the file …")).to_be_disabled()
    page.unroute("**/uploads")
    page.set_input_files("#file", {"name": "other.csv", "mimeType": "text/csv", "buffer": b"Email\nb@people.com\n"})
    page.get_by_role("button", name="Continue to the fields").click()
    page.wait_for_url("**/mapping")
    expect(page.get_by_text("other.csv")).to_be_visible()


def test_how_many_rows_are_valid_is_said_aloud_when_it_changes_and_not_again(open_page):
    page = open_page()
    upload(page, "Email,Name\nzoe@people.com,Zoë\n".encode("cp1252"))
    page.wait_for_url("**/mapping")
    page.wait_for_load_state("networkidle")
    # A screen reader says what changes in a region that stood there before.
    page.evaluate(
        """() => {
            window.said = [];
            const told = document.querySelector("[role=status]");
            new MutationObserver(() => said.push(told.textContent)).observe(told, { childList: true, subtree: true });
        }"""
    )
    page.get_by_role("checkbox").check()
    expect(page.get_by_role("button", name="Upload", exact=True)).to_be_visible()
    assert page.evaluate("() => said") == []
    page.select_option("#column", label="Name")
    expect(page.get_by_text("No row has a valid address in this column.")).to_be_visible()
    assert page.evaluate("() => said") == ["0 of the first 1 row are valid; 1 row with errors will be skipped."]


def test_where_the_keyboard_is_can_be_seen_at_tables_and_at_check_boxes(open_page):
    page = open_page()
    upload(page, "Email,Name\nzoe@people.com,Zoë\n".encode("cp1252"))
    page.wait_for_url("**/mapping")
    page.wait_for_load_state("networkidle")
    seen, outline = [], "e => { const s = getComputedStyle(e); return [s.outlineStyle, parseInt(s.outlineOffset)]; }"
    # The panel around a table cuts off what is drawn around the table alone.
    for box in (page.get_by_role("checkbox"), page.get_by_role("region", name="The first rows of the file")):
        while not box.evaluate("e => e === document.activeElement"):
            page.keyboard.press("Tab")
        seen.append(box.evaluate(f"e => ({outline})(e.closest('.flush') || e)"))
    assert seen == [["solid", 2], ["solid", 2]]


def test_the_mappings_rows_are_asked_for_only_when_something_was_chosen(shop, open_page):
    """Swapped though they are the same, they take the button from under whoever presses it."""
    page, asked = open_page(), []
    page.on("request", lambda request: asked.append(request.url) if "/mapping/rows" in request.url else None)
    upload(page, people(shop, 2610, 3))
    page.wait_for_url("**/mapping")
    while not page.evaluate("() => Boolean(window.htmx)"):
        page.wait_for_timeout(50)
    page.wait_for_load_state("networkidle")
    assert not asked
    page.select_option("#column", label="Name")
    expect(page.get_by_text("0 of the first 3 rows are valid")).to_be_visible()
    assert len(asked) == 1


def test_a_column_chosen_before_htmx_is_there_shows_its_rows_as_soon_as_it_is(shop, open_page):
    page = open_page(cdn=lambda route: None)  # it hangs, and our own copy takes over a second and a half later
    upload(page, people(shop, 2620, 3))
    page.wait_for_url("**/mapping")
    page.select_option("#column", label="Name")
    expect(page.get_by_text("0 of the first 3 rows are valid")).to_be_visible()


def test_a_page_that_loses_the_server_says_so_and_recovers(shop, open_page):
    page = open_page()
    upload(page, people(shop, 2600, 3))
    page.wait_for_url("**/mapping")
    page.wait_for_load_state("networkidle")
    page.route("**/mapping/rows*", lambda route: route.abort())
    page.select_option("#column", label="Name")
    expect(page.get_by_role("alert").filter(has_text="The server did not answer")).to_be_visible()
    page.unroute("**/mapping/rows*")
    page.select_option("#column", label="Mail to")
    expect(page.get_by_text("3 of the first 3 rows are valid")).to_be_visible()
    expect(page.locator("#trouble")).to_be_hidden()
