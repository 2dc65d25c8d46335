"""`flask worker` and `flask schedule`: what runs beside the web server."""

import logging
import signal
import socket
import sys
import threading
from pathlib import Path

import click
from flask import current_app
from flask.cli import with_appcontext

from jobs import drop_server, health, queue
from jobs import schedule as scheduler
from purge import logs
from purge.cli.unfit import refuse_unfit
from purge.config import LOOPBACK

log = logging.getLogger(__name__)


@click.command()
@click.option(
    "--single", is_flag=True, help="Only purges of one customer, so that none waits until a file's turn ends."
)
@click.option(
    "--pick-up", is_flag=True, help="Looks at SFTP servers. No other worker does: one that hangs holds up no purge."
)
@with_appcontext
def worker(single: bool, pick_up: bool) -> None:
    """Check and carry out batches, until told to stop.

    Run as many as you like, on as many machines; each needs DATABASE_URL, REDIS_URL and the secrets the web server has.
    Ctrl-C or SIGTERM finishes the chunk in hand and leaves the rest to others.
    """
    logs.begin()
    refuse_unfit(is_patient=True)
    only = [name for name, wanted in ((queue.SINGLE, single), (queue.PICK_UP, pick_up)) if wanted]
    queue.work(*(only or [queue.SINGLE, queue.BULK]))


@click.command()
@with_appcontext
def doctor() -> None:
    """Say how this installation is: one line for each part, and what to do about one that is not well.

    Exit status 0 when all is well, 1 when something is not.
    """
    findings = health.look(closely=True)
    for finding in findings:
        click.echo(f"{'ok ' if finding.is_well else 'BAD'}  {finding.name:10} {finding.words}")
    sys.exit(0 if all(finding.is_well for finding in findings) else 1)


@click.command("drop-server")
@click.option("--port", type=int, required=True)
@with_appcontext
def drop_server_command(port: int) -> None:
    """The SFTP server that `make run` brings. In production that is OpenSSH."""
    place = drop_server.Place(Path(current_app.config["INSTANCE_PATH"]) / "sftp")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with socket.create_server((LOOPBACK[0], port)) as door:
        drop_server.serve(place, door, stop, drop_server.Files)


@click.command()
@with_appcontext
def schedule() -> None:
    """Bring back work whose worker died, and throw forgotten uploads away.

    One is enough; more do no harm.
    """
    logs.begin()
    refuse_unfit(is_patient=True)
    scheduler.run()
