"""Customers: found, listed, looked at, and one of them purged."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta

from flask import Blueprint, abort, flash, make_response, redirect, render_template, request, url_for
from flask_login import current_user

from jobs.bell import ring
from purge import batches, customers
from purge.batches import Batch, Door, Ground, NotPossible
from purge.customers import SECTIONS, Asked, Side, Sort
from purge.extensions import db, now
from purge.models import Customer

blueprint = Blueprint("customers", __name__, url_prefix="/customers")

LONGEST_ID = 18  # digits; every database has such numbers
LONG = timedelta(seconds=5)  # a purge takes less when a worker is there
# Where htmx puts a refusal: in the dialog if that is open, and else on the page.
IN_PLACE = {"HX-Retarget": "#purge", "HX-Reselect": "#purge", "HX-Reswap": "outerHTML"}


@blueprint.route("", methods=["GET", "POST"])
def every():
    """The list. Filters and order may stand in the address; what is typed comes in the form and never does."""
    found = _found()
    address = _address(found["asked"])
    return render_template("customers/every.html", total=customers.total(), address=address, **found)


@blueprint.post("/found")
def found():
    """The list's fragment, as somebody types, and in a line beside it what a screen reader says."""
    found = _found()
    return render_template("customers/found.html", **found), {"HX-Replace-Url": _address(found["asked"])}


@blueprint.get("/<int:customer_id>")
def profile(customer_id: int):
    customer = _fetch(customer_id)
    sections = [customers.pageful(customer, section) for section in SECTIONS]
    shown = {"side": customers.side(customer), "sections": sections, "waiting": batches.waiting_purge(customer)}
    return render_template("customers/profile.html", customer=customer, **shown)


@blueprint.get("/<int:customer_id>/sections/<section>")
def section(customer_id: int, section: str):
    """A further page of one section."""
    if section not in SECTIONS:
        abort(404)
    customer = _fetch(customer_id)
    shown = customers.pageful(customer, section, request.args.get("page", 1, type=int))
    return render_template("customers/section.html", customer=customer, section=shown)


@blueprint.post("/<int:customer_id>/emails")
def emails(customer_id: int):
    """Turn a customer's e-mails off or on."""
    customer = _fetch(customer_id)
    wanted = request.form.get("emails")
    if wanted not in ("on", "off"):
        abort(400)
    customers.turn_emails(customer, wanted == "on")
    db.session.commit()
    flash(f"E-mails are {wanted} now.")
    return redirect(url_for("customers.profile", customer_id=customer_id), 303)


@blueprint.get("/<int:customer_id>/purge")
def purge(customer_id: int):
    """What a purge would do: a page of its own, and with JavaScript the dialog's content."""
    customer = db.session.get(Customer, customer_id)
    if customer is None:
        return redirect(url_for("customers.profile", customer_id=customer_id), 303)
    if not current_user.may_purge:
        abort(403)
    return _purge(customer)


@blueprint.post("/<int:customer_id>/purge")
def confirm_purge(customer_id: int):
    """The answer has the person's name, for the last time: no address could bring it back."""
    customer = _fetch(customer_id, for_update=True)  # the second click of two waits here for the first
    if "plan" not in request.form:  # Enter in a field; only the red button brings it
        return _purge(customer), 422, IN_PLACE
    batch = batches.pending_single(customer, current_user.id)
    if batch is None:
        try:
            batch = _open(customer)
        except NotPossible as refusal:
            return _purge(customer, str(refusal)), 422, IN_PLACE
    name, batch_id = customer.first_name or customer.surname, batch.id
    db.session.commit()
    ring(batch)
    return render_template("customers/purging.html", name=name, batch_id=batch_id, outcome=None, waits=False)


@blueprint.get("/purging/<int:batch_id>")
def purging(batch_id: int):
    """What the page of a purge polls until there is an outcome; with `waits` as it stands there, nothing while it is so."""
    batch = db.session.get(Batch, batch_id)
    if batch is None or batch.door is not Door.FORM:
        abort(404)
    outcome = batches.single_outcome(batch)
    waits = now() - batch.created_at > LONG
    if outcome is None and request.args.get("waits", type=int) == waits:
        return "", 204  # or a screen reader would say it again and again
    return render_template("customers/_purging.html", batch_id=batch_id, outcome=outcome, waits=waits)


@blueprint.get("/due")
def due():
    """By when a request of this date must be answered."""
    return render_template("customers/_due.html", due_on=_due_on(request.args), today=batches.today())


def _found() -> dict:
    asked = _asked()
    try:
        found = customers.find(asked)
    except (ValueError, OverflowError):  # a page of another order, or of nobody's
        asked = replace(asked, page=None)
        found = customers.find(asked)
    if asked.page and not found.customers:  # who stood there has been purged
        asked = replace(asked, page=None)
        found = customers.find(asked)
    return {"asked": asked, "found": found, "sides": Side, "sorts": Sort}


def _asked() -> Asked:
    form = request.form
    chosen = form if request.method == "POST" else request.args
    direction, _, rest = form.get("page", "").partition("|")
    id, _, value = rest.partition("|")
    is_id = id.isdecimal() and len(id) <= LONGEST_ID
    page = ("last", "", None) if direction == "last" else (direction, value, int(id)) if is_id else None
    return Asked(
        term=form.get("term", ""),
        side=_one_of(Side, chosen.get("side")),
        receives_emails={"on": True, "off": False}.get(chosen.get("emails", "")),
        created_from=_date(chosen.get("created_from")),
        created_to=_date(chosen.get("created_to")),
        sort=_one_of(Sort, chosen.get("sort")) or Sort.NEWEST,
        page=page,
    )


def _address(asked: Asked) -> str:
    """The list with these filters, in this order."""
    chosen = {
        "side": asked.side,
        "emails": {True: "on", False: "off"}.get(asked.receives_emails),
        "created_from": asked.created_from,
        "created_to": asked.created_to,
        "sort": None if asked.sort is Sort.NEWEST else asked.sort,
    }
    return url_for("customers.every", **chosen)


def _open(customer: Customer) -> Batch:
    form = request.form
    asked_on = _date(form.get("asked_on"))
    if form.get("asked_on") and asked_on is None:
        raise NotPossible("The date of the request is no date.")
    ground = _one_of(Ground, form.get("ground"))
    if form.get("ground") and ground is None:
        raise NotPossible("The reason is none of those offered.")
    return batches.open_single(customer, form.get("plan", ""), current_user.id, ground, asked_on)


def _purge(customer: Customer, refusal: str | None = None) -> str:
    return render_template(
        "customers/purge.html",
        customer=customer,
        preview=batches.preview_single(customer),
        refusal=refusal,
        grounds=Ground,
        today=batches.today(),
        latest=batches.today() + timedelta(days=1),  # it is tomorrow somewhere
        due_on=_due_on(request.form),
        form=request.form,
    )


def _due_on(form: Mapping[str, str]) -> date | None:
    asked_on = _date(form.get("asked_on"))
    has_due = form.get("ground") == Ground.PRIVACY_REQUEST and asked_on and asked_on.year < date.max.year
    return batches.due(asked_on) if has_due else None


def _fetch(customer_id: int, for_update: bool = False) -> Customer:
    """The customer; or 410 for who was purged: when and in which batch, and nothing else; or 404 where nobody ever was."""
    customer = db.session.get(Customer, customer_id, with_for_update=for_update)
    if customer is None:
        batch, purged_at = batches.purge_of(customer_id) or abort(404)
        too_late = request.method == "POST"
        gone = render_template("customers/gone.html", batch=batch, purged_at=purged_at, too_late=too_late)
        abort(make_response(gone, 410))
    return customer


def _one_of(kind, value: str | None):
    return kind(value) if value in set(kind) else None


def _date(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text or "")
    except ValueError:
        return None
