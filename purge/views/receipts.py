"""Receipts: a batch's own, to read and to hand on; and whether one that comes back is genuine."""

import json
from typing import Any

from flask import Blueprint, Response, abort, render_template, request

from purge import batches
from purge.batches import Door, Ground, Outcome
from purge.evidence import receipts
from purge.views.audit import people
from purge.views.stages import fetch

blueprint = Blueprint("receipts", __name__)

MOST_BYTES = 1_000_000  # a receipt has two thousand


@blueprint.get("/batches/<int:batch_id>/receipt")
def show(batch_id: int):
    batch = fetch(batch_id)
    found = batches.receipt(batch_id) or abort(404)
    return render_template("receipts/show.html", batch=batch, is_sealed=found.is_sealed, **_shown(found.told))


@blueprint.get("/batches/<int:batch_id>/receipt.json")
def signed(batch_id: int):
    """What does not stand in the audit trail as it was written is signed for nobody."""
    fetch(batch_id)
    found = batches.receipt(batch_id)
    if found is None or not found.is_sealed:
        abort(404)
    headers = {"Content-Disposition": f"attachment; filename=purge-receipt-{batch_id}.json"}
    return Response(json.dumps(found.signed, indent=2) + "\n", mimetype="application/json", headers=headers)


@blueprint.route("/check-a-receipt", methods=["GET", "POST"])
def check():
    """The file is read and not kept."""
    file = request.files.get("receipt")
    if file is None:
        return render_template("receipts/check.html", asked=False, told=None, key=receipts.public_key())
    told = receipts.read(file.stream.read(MOST_BYTES))
    shown = _shown(told) if told else {"told": None}
    found = batches.receipt(told["batch"]) if told else None
    agrees = bool(found and found.is_sealed and found.told == told)
    return render_template("receipts/check.html", asked=True, agrees=agrees, key=receipts.public_key(), **shown)


def _shown(told: dict[str, Any]) -> dict[str, Any]:
    ground = told.get("ground")
    return {
        "told": told,
        "words": {"door": Door(told["door"]).words, "ground": Ground(ground).words if ground else None},
        "outcomes": [(outcome, told["outcomes"][outcome]) for outcome in Outcome if outcome in told["outcomes"]],
        "falls": batches.in_words(told["erased"]),
        "people": people(),
    }
