"""Settings & Tools > Upload Tags: a file comes in."""

from flask import Blueprint, Response, current_app, redirect, render_template, request, url_for
from flask_login import current_user

from purge import batches
from purge.batches import Door
from purge.extensions import db
from purge.intake.customer_csv import Refused

blueprint = Blueprint("uploads", __name__)

TEMPLATE = "Customer Email\r\n"  # and nothing else: a row of example would be a request


@blueprint.get("/settings/upload-tags")
def upload_tags():
    return _page()


@blueprint.get("/settings/upload-tags/template.csv")
def template():
    headers = {"Content-Disposition": "attachment; filename=purge-template.csv"}
    return Response(TEMPLATE, mimetype="text/csv", headers=headers)


@blueprint.get("/uploads")
def refused():
    """Who comes back by the address of an upload that was refused."""
    return redirect(url_for("uploads.upload_tags"))


@blueprint.post("/uploads")
def upload():
    files = [file for file in request.files.getlist("file") if file.filename]
    if request.form.get("action") != "purge":
        return _page("Choose what should happen to the customers in the file."), 422
    if not files:
        return _page("Choose a CSV file first."), 422
    if len(files) > 1:
        return _page("Send one file at a time."), 422
    (file,) = files
    try:
        batch = batches.open_csv(file.stream, file.filename, Door.CSV, current_user.id)
    except Refused as refused:
        return _page(str(refused)), 422
    db.session.commit()
    return redirect(url_for("mapping.show", batch_id=batch.id), 303)


def _page(refusal: str | None = None) -> str:
    limits = current_app.config
    return render_template(
        "uploads/upload_tags.html", refusal=refusal, max_bytes=limits["MAX_CSV_BYTES"], max_rows=limits["MAX_CSV_ROWS"]
    )
