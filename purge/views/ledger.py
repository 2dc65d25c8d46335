"""Was this person purged? Asked with the address, answered from the ledger."""

from flask import Blueprint, render_template, request

from purge import customers
from purge.batches import Batch
from purge.evidence import ledger
from purge.extensions import db

blueprint = Blueprint("ledger", __name__)


@blueprint.route("/was-this-person-purged", methods=["GET", "POST"])
def was_purged():
    """The address travels in the form; it is shown again, for a slip to be seen, only while it is nobody's who was purged."""
    typed = request.form.get("address", "").strip()
    entries, problem = ledger.entries(typed) if typed else ([], None)
    doors = {entry.batch_id: db.session.get(Batch, entry.batch_id) for entry in entries}
    is_here = bool(typed) and customers.is_here(typed)
    shown = {"typed": "" if entries else typed, "asked": bool(typed), "entries": entries, "doors": doors}
    page = render_template("ledger/was_purged.html", problem=problem, is_here=is_here, **shown)
    return page, 422 if problem and not entries else 200
