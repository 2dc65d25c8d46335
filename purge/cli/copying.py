"""`flask copy-ledger`: what is to be kept elsewhere, so that a restored backup brings nobody back for good."""

from datetime import UTC, datetime

import click
from flask.cli import with_appcontext

from purge.cli.unfit import refuse_unfit
from purge.evidence import ledger_copy
from purge.extensions import db, reading


@click.command("copy-ledger")
@click.option("--since", type=click.DateTime(), help="Only purges from then on, UTC.")
@with_appcontext
def copy_ledger(since: datetime | None) -> None:
    """Print the ledger, to be kept where the database's backups are not.

    After a restore, `flask purge --ledger-copy` finds whom the backup has brought back. There is no address in it, and
    nothing that leads to one without LEDGER_KEY. Several copies may stand in one file, one after the other.
    """
    refuse_unfit()
    with reading(), db.engine.connect() as connection:
        for line in ledger_copy.lines(connection, since and since.replace(tzinfo=UTC)):
            click.echo(line)
