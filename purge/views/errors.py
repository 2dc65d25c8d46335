"""When something cannot be shown: one sentence, and what to do."""

import errno
import sys
import time
from contextlib import suppress
from http import HTTPStatus

from flask import Flask, current_app, flash, g, redirect, render_template, request, url_for
from flask_login import current_user
from flask_wtf.csrf import CSRFError
from sqlalchemy.exc import DataError, InternalError, OperationalError
from werkzeug.exceptions import BadRequest, Conflict, HTTPException, NotFound, SecurityError, ServiceUnavailable

from purge.extensions import db, login_manager
from purge.views.sign_in import going_to

HEARD_SECONDS = 60
BLOCK = 1 << 16  # bytes
LOCKED, READ_ONLY = "55P03", "25006"  # to PostgreSQL
UNSURE = "Whether this click was done is not certain: look at the batch or the customer before you try again."
SENTENCES = {
    400: ("This request could not be read", "Go back, reload the page and try again."),
    401: ("This needs a token", "See METRICS_TOKEN."),
    403: ("You may look, but not change", "Ask an admin for the role that may, if this is your task."),
    404: ("There is nothing here", "The address may be mistyped, or what was here is gone."),
    405: ("That is not how this page works", "Go back and use the buttons on the page."),
    409: (
        "Somebody else is changing this just now",
        "Another program holds it in the database. Nothing was changed; wait a moment, then try again.",
    ),
    413: ("This is too large", "It is more than this page takes, and it was not read."),
    429: ("Too many tries", "Wait a minute, then try again."),
    500: (
        "Something went wrong on our side",
        f"{UNSURE} If it stays, tell your administrator.",
    ),
    503: (
        "The database does not take this now",
        f"It may be starting again, or its disk is full. {UNSURE} If it stays, tell your administrator.",
    ),
}
UPLOAD_TOO_LARGE = "The file is too large", "Send it in parts; the limits stand on the Upload Tags page."


def register(app: Flask) -> None:
    """Show our own page for every error."""
    app.register_error_handler(HTTPException, _show)
    app.register_error_handler(CSRFError, _stale)
    app.register_error_handler(OverflowError, lambda _: _show(NotFound()))  # a number SQLite does not have
    app.register_error_handler(DataError, _impossible)
    app.register_error_handler(OperationalError, _in_trouble)
    app.register_error_handler(InternalError, _in_trouble)
    app.register_error_handler(OSError, _no_room)
    app.register_error_handler(SecurityError, lambda _: ("This is not an address of ours. See ALLOWED_HOSTS.", 400))


def _show(error: HTTPException):
    db.session.rollback()
    if error.code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        _hear_out()
    g.setdefault("_login_user", login_manager.anonymous_user())  # or the page asks the database who is signed in
    if error.code == HTTPStatus.METHOD_NOT_ALLOWED and request.method == "GET":
        return redirect(page_above())
    title, advice = SENTENCES.get(error.code, (error.name, "Go back and try again."))
    if error.code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and request.endpoint == "uploads.upload":
        title, advice = UPLOAD_TOO_LARGE
    return render_template("error.html", code=error.code, title=title, advice=advice), error.code


def page_above() -> str:
    """Of an address that only takes clicks: where its button stands. Somebody opened it by hand, or out of the history."""
    routes, path = current_app.create_url_adapter(request), request.path
    while path and not routes.test(path, "GET"):
        path = path.rpartition("/")[0]
    return path or "/"


def _impossible(error: DataError):
    """What PostgreSQL does not have: so large a number, or a text with a NUL in it."""
    if getattr(error.orig, "sqlstate", None) == "22003":
        return _show(NotFound())
    if "NUL" in str(error.orig):
        return _show(BadRequest())
    raise error


def _in_trouble(error: OperationalError | InternalError):
    state = getattr(error.orig, "sqlstate", None)
    if state == LOCKED:
        return _show(Conflict())
    if isinstance(error, InternalError) and state != READ_ONLY:
        raise error
    return _out_of_reach()


def _out_of_reach():
    current_app.log_exception(sys.exc_info())
    return _show(ServiceUnavailable())


def _no_room(error: OSError):
    """For an upload that is larger than what stays in memory, and for locks."""
    if error.errno != errno.ENOSPC:
        raise error
    _hear_out()
    return _out_of_reach()


def _hear_out() -> None:
    """Read what is still being sent: a proxy whose file is cut off shows an error of its own instead of our answer.

    Only for those the door let in, and not for ever; gunicorn says where a body ends.
    """
    if "_login_user" not in g or not g._login_user.is_authenticated or not request.environ.get("wsgi.input_terminated"):
        return
    db.session.rollback()  # nobody waits for us meanwhile
    until = time.monotonic() + HEARD_SECONDS
    with suppress(OSError):  # they have gone
        while time.monotonic() < until and request.environ["wsgi.input"].read(BLOCK):
            pass


def _stale(_error: CSRFError):
    if "HX-Request" in request.headers:  # a part of a page cannot show it, and asked again it would fail again
        flash(
            "The page was out of date: you signed in again meanwhile, or it was open for too long. Nothing was done; here it is anew."
        )
        return "", 400, {"HX-Refresh": "true"}
    if request.endpoint == "sign_in.login" and current_user.is_authenticated:
        return redirect(going_to(), 303)  # it was the second click of two, or they signed in in another tab
    if request.endpoint in ("sign_in.login", "sign_in.logout") and not current_user.is_authenticated:
        if request.endpoint == "sign_in.login":
            flash("The page was out of date. Here it is anew: sign in once more.")
        return redirect(url_for("sign_in.login", next=request.args.get("next")), 303)
    advice = "The page was open for too long, or you signed in again meanwhile. Go back and try again."
    return render_template("error.html", code=400, title="This page is out of date", advice=advice), 400
