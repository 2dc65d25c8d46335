"""The search bar: pages by their names and by other words, batches by number, and the way to a customer."""

import re
from dataclasses import dataclass

from flask import Blueprint, render_template, request, url_for

from purge.batches import Batch
from purge.customers import words
from purge.extensions import db
from purge.views.stages import in_words, stage_url

blueprint = Blueprint("search_bar", __name__, url_prefix="/search")


@dataclass(frozen=True)
class Page:
    """A page one can go to, and the other words it is found by."""

    endpoint: str
    title: str
    other_words: str


@dataclass(frozen=True)
class Offer:
    """A way to go; without an address it looks the term up among the customers."""

    title: str
    hint: str
    url: str | None = None


PAGES = (
    Page(
        "customers.every",
        "Customers",
        "people find search profile person data subject erase one purge delete gdpr ccpa dsar",
    ),
    Page(
        "uploads.upload_tags",
        "Upload Tags",
        "csv file import bulk purge delete gdpr ccpa dsar erase settings tools many list",
    ),
    Page("batches.every", "Batches", "progress history purges results summary report jobs running"),
    Page(
        "ledger.was_purged",
        "Was this person purged?",
        "look up a purge ledger proof evidence gdpr ccpa dsar deleted record erased",
    ),
    Page("audit.every", "Audit trail", "log history who did what events evidence proof seal chain changes"),
    Page("receipts.check", "Check a receipt", "verify signature genuine proof evidence json"),
    Page("connections.every", "SFTP connections", "server drop folder host key pick up schedule settings tools poll"),
    Page(
        "instructions.connecting",
        "Connecting to the SFTP server",
        "integration instructions advanced implementation ssh key fingerprint filezilla winscp lftp rclone",
    ),
    Page(
        "instructions.sending",
        "Sending Data via SFTP: Purge Customers",
        "integration instructions advanced implementation csv columns results dryrun file",
    ),
    Page("instructions.template", "Template for a dropped file", "csv sftp download example columns header"),
    Page("uploads.template", "Template for an upload", "csv download example columns header sample format"),
)


@blueprint.post("")
def results():
    """The same offers as a page, where there is no JavaScript."""
    term = request.form.get("term", "").strip()
    return render_template("search_bar/results.html", term=term, offers=_offers(term))


@blueprint.post("/offers")
def offers():
    """The fragment under the bar, as somebody types."""
    term = request.form.get("term", "")
    return render_template("search_bar/_offers.html", term=term, offers=_offers(term.strip()))


def _offers(term: str) -> list[Offer]:
    wanted = words(term)
    ranked = [(_rank(page, wanted), page) for page in PAGES]
    found = sorted((one for one in ranked if one[0] is not None), key=lambda one: one[0])
    pages = [Offer(page.title, "Page", url_for(page.endpoint)) for _, page in found]
    to_customers = [Offer(f"Find customer “{term}”", "Customers")] if wanted else []
    return _batches(term) + pages + to_customers


def _rank(page: Page, wanted: list[str]) -> int | None:
    """0 for the very title, 1 for its beginning, 2 for whole words, 3 for beginnings of the title's, 4 for any; None for no way there."""
    title, others = words(page.title), words(page.other_words)

    def begin(some: list[str]) -> bool:
        return all(any(word.startswith(start) for word in some) for start in wanted)

    ways = (
        title[: len(wanted)] == wanted,
        " ".join(title).startswith(" ".join(wanted)),
        set(wanted) <= {*title, *others},
        begin(title),
        begin(title + others),
    )
    return next((rank for rank, leads_there in enumerate(ways) if leads_there), None)


def _batches(term: str) -> list[Offer]:
    number = re.fullmatch(r"(?:batch\s*)?#?(\d{1,9})", term, re.IGNORECASE)
    batch = db.session.get(Batch, int(number[1])) if number else None
    return [Offer(f"Batch {batch.id}", in_words(batch), stage_url(batch))] if batch else []
