"""Settings & Tools > Integration Instructions > Advanced Implementation: for the engineer who has to send the file."""

import csv
import io
import ipaddress
from dataclasses import dataclass
from shlex import quote
from urllib.parse import quote as in_url

from flask import Blueprint, Response, current_app, redirect, render_template, request, url_for

from purge import pickup
from purge.intake import sftp
from purge.pickup import SftpConnection

blueprint = Blueprint("instructions", __name__, url_prefix="/settings/integration-instructions")

ANY_COLUMN = "Customer Email"


@dataclass(frozen=True)
class Sender:
    """A server as those who send files reach it, and how a shell and an address have to write that."""

    host: str
    port: int
    username: str
    folder: str

    @property
    def bracketed(self) -> str:
        try:
            return f"[{self.host}]" if ipaddress.ip_address(self.host).version == 6 else self.host
        except ValueError:
            return self.host

    @property
    def destination(self) -> str:
        return quote(f"{self.username}@{self.bracketed}")

    @property
    def url(self) -> str:
        return quote(f"sftp://{in_url(self.username, safe='')}:@{self.bracketed}")

    @property
    def cd(self) -> str:
        return quote(self.folder)


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
    """The columns' names and nothing else: a row of example would be a request."""
    connection, _ = _chosen()
    text = io.StringIO()
    csv.writer(text).writerow([connection.email_column if connection else ANY_COLUMN, "type"])
    headers = {"Content-Disposition": "attachment; filename=purge-template.csv"}
    return Response(text.getvalue(), mimetype="text/csv", headers=headers)


def _chosen() -> tuple[SftpConnection | None, list[SftpConnection]]:
    """The connection whose number is asked for, or the first that runs; and all of them."""
    every = sorted(pickup.every(), key=lambda one: (one.paused_at is not None, one.id))
    wanted = request.args.get("connection", type=int)
    return next((one for one in every if one.id == wanted), every[0] if every else None), every


def _page(name: str) -> str:
    connection, every = _chosen()
    return render_template(
        f"instructions/{name}.html",
        page=name,
        every=every,
        connection=connection,
        sender=_sender(connection) if connection else None,
        fingerprints=[(key.split()[0], sftp.fingerprint(key)) for key in connection.host_keys] if connection else [],
        age=current_app.config["DROP_AGE_SECONDS"],
        rest=current_app.config["DROP_REST_SECONDS"],
        max_bytes=current_app.config["MAX_CSV_BYTES"],
        max_rows=current_app.config["MAX_CSV_ROWS"],
    )


def _sender(connection: SftpConnection) -> Sender:
    return Sender(
        connection.sender_host or connection.host,
        connection.sender_port or connection.port,
        connection.sender_username or connection.username,
        connection.sender_folder or connection.folder,
    )
