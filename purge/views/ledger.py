"""Was this person purged? Asked with the address, answered from the ledger."""

from flask import Blueprint, render_template, request

from purge.batches import Batch
from purge.evidence import ledger
from purge.extensions import db

blueprint = Blueprint("ledger", __name__)


@blueprint.route("/was-this-person-purged", methods=["GET", "POST"])
def was_purged():
    """The address travels in the form and is in no answer: what was typed is not shown again."""
    asked = request.method == "POST"
    entries = ledger.entries(request.form.get("address", "")) if asked else []
    doors = {entry.batch_id: db.session.get(Batch, entry.batch_id) for entry in entries}
    return render_template("ledger/was_purged.html", asked=asked, entries=entries, doors=doors)
