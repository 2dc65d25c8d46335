"""Receipts: a batch's own, to read and to hand on; and whether one that comes back is genuine."""

import json
from typing import Any

from flask import Blueprint, Response, abort, render_template, request

from purge import batches
from purge.batches import Batch, Door, Ground, Outcome
from purge.evidence import receipts
from purge.extensions import db
from purge.views import audit
from purge.views.stages import fetch

blueprint = Blueprint("receipts", __name__)

MOST_BYTES = 1_000_000  # a receipt has two thousand


@blueprint.get("/batches/<int:batch_id>/receipt")
def show(batch_id: int):
    batch = fetch(batch_id)
    found = batches.receipt(batch) or abort(404)
    shown = _shown(found.told) if found.is_whole else {}
    return render_template("receipts/show.html", batch=batch, is_whole=found.is_whole, **shown)


@blueprint.get("/batches/<int:batch_id>/receipt.json")
def signed(batch_id: int):
    """What does not stand in the audit trail as it was written is signed for nobody."""
    found = batches.receipt(fetch(batch_id))
    if found is None or not found.is_whole:
        abort(404)
    headers = {"Content-Disposition": f"attachment; filename=purge-receipt-{batch_id}.json"}
    return Response(json.dumps(found.signed, indent=2) + "\n", mimetype="application/json", headers=headers)


@blueprint.route("/check-a-receipt", methods=["GET", "POST"])
def check():
    """The file is read and not kept."""
    file = request.files.get("receipt")
    if file is None:
        return _checked(asked=False)
    try:
        told = receipts.read(file.stream.read(MOST_BYTES))
    except receipts.OtherKey as other:
        return _checked(other_key=str(other))
    if told is None:
        return _checked()
    batch = db.session.get(Batch, told["batch"])
    found = batches.receipt(batch) if batch else None
    return _checked(agrees=bool(found and found.told == told), **_shown(told))


def _checked(asked: bool = True, told=None, agrees: bool = False, other_key: str | None = None, **shown) -> str:
    of_file = {"asked": asked, "told": told, "agrees": agrees, "other_key": other_key}
    return render_template("receipts/check.html", key=receipts.public_key(), **of_file, **shown)


def _shown(told: dict[str, Any]) -> dict[str, Any]:
    ground, names = told.get("ground"), audit.people()
    return {
        "told": told,
        "words": {"door": Door(told["door"]).words, "ground": Ground(ground).words if ground else None},
        "outcomes": [(outcome, told["outcomes"][outcome]) for outcome in Outcome if outcome in told["outcomes"]],
        "falls": batches.in_words(told["erased"]),
        "by": lambda who: audit.by(who, names),
    }
