"""Settings & Tools > Integration Instructions > Advanced Implementation: for the engineer who has to send the file."""

from flask import Blueprint, Response, current_app, redirect, render_template, request, url_for

from purge.extensions import db
from purge.intake import sftp
from purge.pickup import SftpConnection

blueprint = Blueprint("instructions", __name__, url_prefix="/settings/integration-instructions")

TEMPLATE = "Customer Email,type\r\n"  # and nothing else: a row of example would be a request


@blueprint.get("")
def overview():
    return redirect(url_for("instructions.connecting"))


@blueprint.get("/connecting-to-the-sftp-server")
def connecting():
    return _page("connecting")


@blueprint.get("/sending-data-via-sftp/purge-customers")
def sending():
    return _page("sending")


@blueprint.get("/sending-data-via-sftp/purge-template.csv")
def template():
    headers = {"Content-Disposition": "attachment; filename=purge-template.csv"}
    return Response(TEMPLATE, mimetype="text/csv", headers=headers)


def _page(name: str) -> str:
    """With the values of one connection; `connection` is its number, or the first that runs."""
    wanted = request.args.get("connection", type=int)
    every = db.session.scalars(db.select(SftpConnection).order_by(SftpConnection.paused_at, SftpConnection.id)).all()
    chosen = next((one for one in every if one.id == wanted), every[0] if every else None)
    return render_template(
        f"instructions/{name}.html",
        page=name,
        every=every,
        connection=chosen,
        fingerprints=[(key.split()[0], sftp.fingerprint(key)) for key in chosen.host_keys] if chosen else [],
        age=current_app.config["DROP_AGE_SECONDS"],
        max_bytes=current_app.config["MAX_CSV_BYTES"],
        max_rows=current_app.config["MAX_CSV_ROWS"],
    )
