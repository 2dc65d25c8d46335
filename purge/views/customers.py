"""The customers there are."""

from flask import Blueprint, render_template, request

from purge.extensions import db
from purge.models import Customer

blueprint = Blueprint("customers", __name__, url_prefix="/customers")

PAGE = 50


@blueprint.get("")
def every():
    """The newest first; `before` is the id where the page before ended."""
    before = request.args.get("before", type=int)
    page = db.select(Customer).order_by(Customer.id.desc()).limit(PAGE + 1)
    found = db.session.scalars(page.where(Customer.id < before) if before else page).all()
    total = db.session.scalar(db.select(db.func.count()).select_from(Customer))
    older = found[PAGE - 1].id if len(found) > PAGE else None
    return render_template("customers/every.html", customers=found[:PAGE], total=total, older=older, before=before)
