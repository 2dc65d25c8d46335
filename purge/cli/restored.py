"""`flask copy-ledger` and `flask purge-again`: so that a restored backup brings nobody back for good."""

import sys
import time
from collections.abc import Iterable
from pathlib import Path

import click
from flask.cli import with_appcontext

from purge import batches
from purge.batches import NotPossible, Returned, ledger_copy
from purge.cli.purge_csv import DONE, SOME_FAILED, carry_out, make_sure_of_workers, refusals_end_it
from purge.cli.unfit import refuse_unfit
from purge.evidence import audit
from purge.extensions import db, reading

TO_LOOK_AT = SOME_FAILED  # the exit status when something is left for a person to do
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
    try:
        with reading(), db.engine.connect() as connection:
            place, entries = ledger_copy.write(connection, folder)
    except OSError as error:
        raise click.ClickException(f"No copy was written to {folder}: {error.strerror}.") from None
    click.echo(f"{place}: {entries:,} entries")


@click.command("purge-again")
@FOLDER
@click.option(
    "--dry-run", is_flag=True, help="Say what would be deleted, and stop at the review: the batch waits for a yes."
)
@click.option("--yes", is_flag=True, help="Do not ask; delete.")
@click.option("--inline", is_flag=True, help="Do the work here, without workers.")
@with_appcontext
@audit.at_the_command_line()
def purge_again(folder: Path, dry_run: bool, yes: bool, inline: bool) -> None:
    """After a restore, purge again whom the backup has brought back, as the copies of the ledger in FOLDER know.

    Of customers who share an address each is a batch of their own. Exit status: 0 when all went well, 1 when some failed, there
    is somebody to look at by hand or a copy is missing, 2 when a copy was refused or a deletion not confirmed.
    """
    refuse_unfit()
    with refusals_end_it():
        make_sure_of_workers(inline)
        try:
            copies = ledger_copy.read(folder)
        except ledger_copy.Unreadable as unreadable:
            raise NotPossible(str(unreadable)) from None
        returned = _look(copies)
        if not returned.looked_at:
            raise NotPossible("There is no customer in this database at all. Is it the right one?")
        status = _tell(copies, returned)
        tried, here = set(), returned.here
        while once := _one_for_each(one for one in here if one not in tried):
            began = time.monotonic()
            try:
                status = max(status, carry_out(batches.open_returned(once), dry_run, yes, inline, began))
            except NotPossible:
                if tried:  # the number at the first question does not tell who is left after some have gone
                    _name("were not purged", [id for id, _ in here])
                raise
            if dry_run:
                break
            tried |= set(once)
            here = _look(copies).here
        else:
            status = max(status, _name("were not purged", [id for id, _ in here]))
    sys.exit(status)


def _look(copies: ledger_copy.Copies) -> Returned:
    with reading(), db.engine.connect() as connection:
        return batches.returned(connection, copies.purged)


def _one_for_each(here: Iterable[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Of those who share an address the first: one batch enters one of them in the ledger."""
    return list({fingerprint: (id, fingerprint) for id, fingerprint in reversed([*here])}.values())


def _tell(copies: ledger_copy.Copies, returned: Returned) -> int:
    """Say what there is to know before anything is done, and the exit status it makes by itself."""
    url = db.engine.url.render_as_string()
    click.echo(f"Looked at {returned.looked_at:,} customers in {url}.", err=True)
    click.echo(f"These copies know purges until {copies.until:%-d %B %Y, %H:%M} UTC.", err=True)
    for since, until in copies.gaps:
        end = f"{until:%-d %B %Y, %H:%M} UTC"
        of = f"between {since:%-d %B %Y, %H:%M} and {end}" if since else f"before {end}"
        click.echo(
            f"A copy is missing: of purges {of} they do not know all; an older backup brings more back.", err=True
        )
    status = max(
        TO_LOOK_AT if copies.gaps else DONE,
        _name("had another address when they were purged", returned.changed),
        _name("are younger than their purge, as who signs up again is", returned.newer),
    )
    if not returned.here:
        click.echo(f"Nobody {'' if status == DONE else 'else '}is here whom these copies know as purged.")
    return status


def _name(words: str, ids: list[int]) -> int:
    """Say who stays and should be looked at, and the exit status it makes."""
    if ids:
        click.echo(f"These {words}. They stay; look at each, and purge by hand who is to go:", err=True)
    for id in ids:
        click.echo(f"  /customers/{id}", err=True)
    return TO_LOOK_AT if ids else DONE
