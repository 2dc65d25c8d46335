"""The pages. Closed by default: what a visitor may see without signing in is listed here."""

import logging
import re
import time
import uuid
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit

from flask import Flask, Response, abort, flash, g, redirect, request, url_for
from flask_login import current_user

from purge import pickup
from purge.extensions import csrf, login_manager, only_reads
from purge.logs import request_id
from purge.models import User, users
from purge.views import (
    audit,
    batches,
    connections,
    customers,
    errors,
    formats,
    health,
    instructions,
    ledger,
    mapping,
    receipts,
    search_bar,
    sign_in,
    stages,
    uploads,
)

log = logging.getLogger(__name__)

# Posted, to keep people out of the browser's history, and changing nothing.
ASKS = {
    "ledger.was_purged",
    "receipts.check",
    "customers.every",
    "customers.found",
    "search_bar.results",
    "search_bar.offers",
}
OPEN = {
    "static",
    "bootstrap.static",
    "sign_in.login",
    "sign_in.logout",
    "health.up",
    "health.ready",
    "health.metrics",
}
REQUEST_ID = re.compile(r"[\w-]{8,64}", re.ASCII)
LARGEST_FORM = 3_000_000  # bytes; only an upload is larger, and its own limit is in the settings
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
HTMX = "https://cdn.jsdelivr.net/npm/htmx.org@2.0.11/dist/htmx.min.js"
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        f"script-src 'self' {HTMX}",
        "img-src 'self' data:",
        "object-src 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "form-action 'self'",
    )
)


def register(app: Flask) -> None:
    """Put every page on the app."""
    for module in (
        health,
        sign_in,
        search_bar,
        customers,
        ledger,
        uploads,
        connections,
        instructions,
        mapping,
        batches,
        audit,
        receipts,
    ):
        app.register_blueprint(module.blueprint)
    errors.register(app)
    formats.register(app)
    app.before_request(_begin)
    app.before_request(_closed_by_default)
    app.before_request(_viewers_change_nothing)
    csrf.init_app(app)  # after the door: to find its token it reads the whole form, a stranger's file and all
    app.after_request(_headers)
    app.teardown_request(lambda _error: only_reads.set(False))
    app.jinja_env.globals["worrying_connections"] = pickup.worrying
    app.jinja_env.globals["htmx"] = HTMX
    app.jinja_env.globals["unsure"] = errors.UNSURE
    app.jinja_env.globals["need_a_yes"] = stages.need_a_yes
    app.jinja_env.globals["runs_by_itself"] = stages.runs_by_itself
    app.jinja_env.filters["in_words"] = stages.in_words
    app.add_url_rule("/", "home", lambda: redirect(url_for("batches.every")))


@login_manager.user_loader
def load_user(user_id: str) -> User | None:
    """Who is signed in, and has not been signed out since."""
    id, _, session = user_id.partition(".")
    user = users.find(User.id == int(id))
    return user if user and user.session == session else None


def _begin() -> None:
    """A GET waits for no writer. A form has an end. A request has an id: the proxy's, or one of our own."""
    only_reads.set(_changes_nothing())
    if request.endpoint != "uploads.upload":  # or to find the token a stranger's form would be read, however large
        request.max_content_length = LARGEST_FORM
    given = request.headers.get("X-Request-ID", "")
    request_id.set(given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex)
    g.began = time.perf_counter()


def _closed_by_default() -> Response | None:
    if request.endpoint is None or request.endpoint in OPEN or current_user.is_authenticated:
        return None
    if not _changes_nothing():
        flash("Nothing was done by your last click: you had been signed out. Sign in and try again.")
    if request.headers.get("HX-Request"):
        return Response(status=401, headers={"HX-Redirect": url_for("sign_in.login", next=_page_shown())})
    here = request.full_path.rstrip("?") if request.method == "GET" else errors.page_above()
    return redirect(url_for("sign_in.login", next=here))


def _page_shown() -> str | None:
    """What the browser has in its address bar while htmx asks for a part of it."""
    with suppress(ValueError):  # it can send anything
        here = urlsplit(request.headers.get("HX-Current-URL", ""))
        return urlunsplit(("", "", here.path, here.query, "")) or None
    return None


def _viewers_change_nothing() -> None:
    if request.endpoint not in (None, *OPEN) and not _changes_nothing() and not current_user.may_purge:
        abort(403)


def _changes_nothing() -> bool:
    return request.method in SAFE_METHODS or request.endpoint in ASKS


def _headers(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    if request.endpoint not in ("static", "bootstrap.static"):
        response.headers["Cache-Control"] = "no-store"  # the back button must not show people who are gone
    if "began" not in g:  # refused before it was a request of ours
        return response
    response.headers["X-Request-ID"] = request_id.get()
    # The page's name and not its address: there are customers' numbers in addresses.
    fields = {"method": request.method, "page": request.endpoint, "status": response.status_code}
    milliseconds = round((time.perf_counter() - g.began) * 1e3, 1)
    log.info("answered", extra={"fields": {**fields, "milliseconds": milliseconds}})
    return response
