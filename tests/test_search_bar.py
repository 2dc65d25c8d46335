"""The search bar over HTTP: what is offered, in which order, with and without JavaScript."""

import re

import pytest

from purge.extensions import db
from purge.models import Role
from tests.people import add_customer
from tests.test_batches import finished


def offered(browser, term: str, path: str = "/search/offers") -> list[str]:
    return re.findall(r"<span>([^<]+)</span>", browser.post(path, {"term": term}, page="/customers").text)


@pytest.mark.parametrize("term", ["Upload tags", "upload", "upl", "tags", "csv", "bulk delete", "import"])
def test_upload_tags_is_offered_first(app, signed_in, term):
    assert offered(signed_in(), term)[0] == "Upload Tags"


def test_pages_are_found_by_other_words(app, signed_in):
    browser = signed_in()
    assert {"Upload Tags", "Was this person purged?"} <= set(offered(browser, "gdpr"))
    for term in ("delete", "gdpr", "purge"):
        assert offered(browser, term)[:2] == ["Customers", "Upload Tags"], term
    assert offered(browser, "delete customer")[0] == "Customers"
    assert offered(browser, "proof")[0] == "Was this person purged?"


def test_an_empty_bar_offers_every_page_and_no_customer(app, signed_in):
    assert len(offered(signed_in(), "")) == 11


def test_a_batch_is_offered_by_its_number(app, signed_in):
    add_customer("ann@people.com")
    batch_id = finished("ann@people.com").id
    db.session.commit()
    browser = signed_in(Role.VIEWER)
    for term in (f"{batch_id}", f"batch {batch_id}", f"#{batch_id}"):
        assert offered(browser, term)[0] == f"Batch {batch_id}"
    assert not any(title.startswith("Batch 9") for title in offered(browser, "batch 9"))


def test_who_is_no_page_is_looked_for_among_the_customers(app, signed_in):
    add_customer("wendy@people.com", first_name="Wendy")
    db.session.commit()
    browser = signed_in()
    assert offered(browser, "wendy") == ["Find customer “wendy”"]
    page = browser.post("/search", {"term": "wendy"}, page="/customers").text
    assert 'action="/customers"' in page and 'name="term" value="wendy"' in page and "Find customer" in page


def test_without_javascript_the_offers_are_a_page(app, signed_in):
    page = signed_in().post("/search", {"term": "csv"}, page="/customers").text
    assert '<a href="/settings/upload-tags">Upload Tags</a>' in page


def test_what_is_typed_is_shown_as_text(app, signed_in):
    assert "<script>" not in signed_in().post("/search/offers", {"term": "<script>"}, page="/customers").text
