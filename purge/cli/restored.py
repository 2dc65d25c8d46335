"""`flask copy-ledger` and `flask purge-again`: so that a restored backup brings nobody back for good."""

import sys
import time
from pathlib import Path

import click
from flask.cli import with_appcontext

from purge import batches
from purge.batches import NotPossible, ledger_copy
from purge.cli.purge_csv import DONE, carry_out, make_sure_of_workers, refusals_end_it
from purge.cli.unfit import refuse_unfit
from purge.evidence import audit
from purge.extensions import db, reading

FOLDER = click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))


@click.command("copy-ledger")
@FOLDER
@with_appcontext
def copy_ledger(folder: Path) -> None:
    """Write what FOLDER does not have of the ledger yet into a new file there.

    FOLDER should be where the database's backups are not. After a restore, `flask purge-again FOLDER` finds whom the backup
    has brought back. There is no address in it, and nothing that leads to one without LEDGER_KEY.
    """
    refuse_unfit()
    with reading(), db.engine.connect() as connection:
        place, entries = ledger_copy.write(connection, folder)
    click.echo(f"{place}: {entries:,} entries")


@click.command("purge-again")
@FOLDER
@click.option("--dry-run", is_flag=True, help="Stop at the review: say what would be deleted, and delete nothing.")
@click.option("--yes", is_flag=True, help="Do not ask; delete.")
@click.option("--inline", is_flag=True, help="Do the work here, without workers.")
@with_appcontext
@audit.at_the_command_line()
def purge_again(folder: Path, dry_run: bool, yes: bool, inline: bool) -> None:
    """After a restore, purge again whom the backup has brought back, as the copies of the ledger in FOLDER know.

    Exit status as of `flask purge`.
    """
    began = time.monotonic()
    refuse_unfit()
    with refusals_end_it():
        make_sure_of_workers(inline)
        here = _look(folder)
        if not here:
            click.echo("Nobody is here whom these copies know as purged since the backup.")
            sys.exit(DONE)
        batch_id = batches.open_returned(here)
        carry_out(batch_id, dry_run, yes, inline, began)


def _look(folder: Path) -> list[tuple[int, bytes]]:
    """Who is to be purged again; what else there is to know is said."""
    with reading(), db.engine.connect() as connection:
        try:
            copies = ledger_copy.read(connection, folder)
        except ledger_copy.Unreadable as unreadable:
            raise NotPossible(str(unreadable)) from None
        returned = batches.returned(connection, copies.purged)
    click.echo(f"These copies know purges until {copies.until:%-d %B %Y, %H:%M} UTC.", err=True)
    for since, until in copies.gaps:
        begin = f"between {since:%-d %B %Y, %H:%M} and" if since else "before"
        click.echo(f"A copy is missing: of purges {begin} {until:%-d %B %Y, %H:%M} UTC they do not know all.", err=True)
    if returned.newer:
        click.echo(f"{returned.newer:,} are younger than their purge, as who signs up again is; they stay.", err=True)
    if returned.changed:
        click.echo("These had another address when they were purged. Look at each, and purge them by hand:", err=True)
    for id in returned.changed:
        click.echo(f"  /customers/{id}", err=True)
    return returned.here
