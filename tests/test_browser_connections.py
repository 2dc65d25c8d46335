"""SFTP in the browser: from Add connection through Test connection to a dropped file that is a finished batch."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser import check
from tests.drops import OpenSsh


@pytest.fixture(scope="module")
def openssh():
    server = OpenSsh()
    yield server
    server.stop()


def test_from_adding_a_connection_to_a_finished_batch(shop, openssh, open_page):
    page = open_page()
    page.get_by_role("link", name="SFTP connections").click()
    page.get_by_role("link", name="Add connection").click()
    page.get_by_label("Name", exact=True).fill("The shop’s server")
    page.get_by_label("Host", exact=True).fill("127.0.0.1")
    page.get_by_label("Port", exact=True).fill(str(openssh.port))
    page.get_by_label("User", exact=True).fill(openssh.username)
    page.get_by_label("Folder", exact=True).fill(openssh.folder)
    page.get_by_label("Look every").fill("5")
    page.get_by_label("Run by itself").fill("100")
    page.get_by_role("button", name="Add connection").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("The shop’s server")
    openssh.let_in(page.locator("#our-key ~ .code").inner_text())
    page.get_by_role("button", name="Fetch the server’s keys").click()
    page.get_by_role("button", name="Pin the ticked keys").click()
    expect(page.get_by_text("No host key is pinned.")).to_be_visible()
    page.get_by_role("button", name="Fetch the server’s keys").click()
    expect(page.get_by_role("checkbox")).not_to_have_count(0)
    for box in page.get_by_role("checkbox").all():
        box.check()
    page.get_by_role("button", name="Pin the ticked keys").click()
    expect(page.get_by_text(", pinned").first).to_be_visible()
    page.get_by_role("button", name="Test connection").click()
    expect(page.get_by_role("heading", name="All of it works")).to_be_visible()
    check(page, "a tested connection")
    page.get_by_role("button", name="Start picking up").click()
    expect(page.get_by_text("running", exact=True)).to_be_visible()

    emails = [email for (email,) in shop.ask("SELECT email FROM customer LIMIT 7")]
    (openssh.files / "seven.csv").write_text(
        "\n".join(["CustomerEmail,type", *(f"{email},purge" for email in emails), ""])
    )
    answer = openssh.files / "results" / "seven.result.csv.sha256"
    for _ in range(300):
        if answer.exists():
            break
        page.wait_for_timeout(200)
    page.reload()
    page.get_by_role("row", name=re.compile("seven.csv")).get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("7 customers were permanently deleted")
    check(page, "the batch of a dropped file")
    page.goto("/batches")
    expect(page.get_by_role("row", name=re.compile("seven.csv.*SFTP"))).to_be_visible()


def test_what_is_asked_for_once_is_not_asked_for_twice(open_page):
    page, asked = open_page(), []
    page.goto("/settings/sftp-connections/new")
    page.get_by_label("Name", exact=True).fill("Not for long")
    page.get_by_label("Host", exact=True).fill("nowhere.example")
    page.get_by_label("User", exact=True).fill("purge")
    page.get_by_role("button", name="Add connection").click()
    page.on("request", lambda request: asked.append(request.url) if request.method == "POST" else None)
    for summary, words, told in (
        ("Make a new key …", "Make a new key", "A new key was made"),
        ("Remove …", "Remove for good", "The connection was removed."),
    ):
        page.get_by_text(summary).click()
        twice = "button => { button.click(); setTimeout(() => button.click(), 0); }"
        page.get_by_role("button", name=words).evaluate(twice)
        expect(page.get_by_text(told)).to_be_visible()
    assert [url.rpartition("/")[2] for url in asked] == ["key", "remove"]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_its_pages_are_accessible_and_fit(shop, open_page, theme, width):
    page = open_page(color_scheme=theme, viewport={"width": width, "height": 800})
    for path in (
        "/settings/sftp-connections",
        "/settings/sftp-connections/1",
        "/settings/sftp-connections/new",
        "/settings/integration-instructions/connecting-to-the-sftp-server",
        "/settings/integration-instructions/sending-data-via-sftp/purge-customers",
    ):
        page.goto(path)
        check(page, f"{path} {theme} {width}")


def test_what_is_wrong_in_the_form_is_said_at_its_field(shop, open_page):
    page = open_page()
    page.goto("/settings/sftp-connections/new")
    page.get_by_label("Port", exact=True).fill("99999")
    page.get_by_label("Private key").fill("nonsense")
    page.get_by_role("button", name="Add connection").click()
    expect(page.get_by_text("The port is a whole number from 1 to 65,535.")).to_be_visible()
    expect(page.get_by_text("no private key of the kinds")).to_be_visible()
    assert page.get_by_label("Port", exact=True).input_value() == "99999"
    check(page, "a form with problems")
