"""`flask purge FILE.csv`: the river from the command line."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click
from sqlalchemy.exc import InternalError, OperationalError

from jobs.bell import ring, workers
from purge import batches
from purge.batches import Batch, Door, NotPossible, Outcome, State
from purge.cli.unfit import refuse_unfit
from purge.evidence import audit
from purge.extensions import db, reading
from purge.intake import customer_csv

POLL_SECONDS = 0.25
DONE, SOME_FAILED, REFUSED = 0, 1, 2
READ_ONLY = "25006"  # as PostgreSQL says it of a server that was the one before


@click.command("purge")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--column", metavar="NAME", help="The column that holds the e-mail addresses, where its header is not plain."
)
@click.option(
    "--windows-1252", "agreed", is_flag=True, help="The file is not UTF-8, and its accents read right as windows-1252."
)
@click.option(
    "--any-type", is_flag=True, help="Purge every row, whatever its column “type” says, and not only “purge”."
)
@click.option(
    "--dry-run", is_flag=True, help="Say what would be deleted, and stop at the review: the batch waits for a yes."
)
@click.option("--yes", is_flag=True, help="Do not ask; delete.")
@click.option("--json", "as_json", is_flag=True, help="Print one object: batch, state, rows, outcomes, seconds.")
@click.option("--inline", is_flag=True, help="Do the work here, without workers.")
@audit.at_the_command_line()
def purge(
    file: Path,
    column: str | None,
    agreed: bool,
    any_type: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    inline: bool,
) -> None:
    """Permanently delete the customers whose e-mail addresses are in FILE.

    Exit status: 0 when all went well, 1 when some rows failed in the deletion itself or were cancelled, 2 when the file
    was refused or discarded, or the deletion not confirmed.
    """
    began = time.monotonic()
    refuse_unfit()
    with refusals_end_it():
        make_sure_of_workers(inline)
        with file.open("rb") as stream:
            batch_id = _open(stream, file.name, column, agreed, any_type)
        _follow(batch_id, State.CHECKING, "Checking", batches.check if inline else None)
        status = carry_out(batch_id, dry_run, yes, inline, began, as_json)
    sys.exit(status)


@contextmanager
def refusals_end_it() -> Iterator[None]:
    """With one sentence, and the exit status that says so."""
    try:
        yield
    except (customer_csv.Refused, NotPossible) as refused:
        click.echo(f"Refused: {refused}", err=True)
        sys.exit(REFUSED)


def make_sure_of_workers(inline: bool) -> None:
    """Raises NotPossible when nobody would do the work."""
    if not inline and not workers():
        raise NotPossible("No worker is running. Start one with `flask worker`, or add --inline.")


def carry_out(batch_id: int, dry_run: bool, yes: bool, inline: bool, began: float, as_json: bool = False) -> int:
    """From the review to the end: ask, delete, say what came of it; the exit status. Raises NotPossible when nobody said yes."""
    batch = _fetch(batch_id)
    if batch.state is State.READY and not dry_run:
        _confirm(batch, yes)
        _follow(batch_id, State.RUNNING, "Deleting", batches.run if inline else None)
    if inline:
        batches.settle()
    with reading():
        batch = db.session.get(Batch, batch_id, populate_existing=True)
        _tell(batch, as_json, time.monotonic() - began)
        state, outcomes = batch.state, batches.progress(batch).outcomes
        db.session.rollback()
    if state in (State.REFUSED, State.DISCARDED):
        return REFUSED
    return SOME_FAILED if outcomes.get(Outcome.FAILED) or outcomes.get(Outcome.CANCELLED) else DONE


def _open(stream: BinaryIO, name: str, column: str | None, agreed: bool, any_type: bool) -> int:
    """The batch, handed to the check; refused, nothing of it is stored."""
    try:
        batch = batches.open_csv(stream, name, Door.CLI)
        index = _column(batch, column)
        if not (batch.encoding_agreed or agreed):
            raise NotPossible(
                "The file is not UTF-8. Save it as UTF-8, or say --windows-1252 if you know that it is that."
            )
        if batches.preview(batch, None).types and not any_type:
            click.echo("Only rows whose “type” is purge count; with --any-type all do.", err=True)
        batches.map_fields(batch, index, agreed, any_type)
    except Exception:
        db.session.rollback()
        raise
    batch_id = batch.id
    db.session.commit()
    return batch_id


def _column(batch: Batch, name: str | None) -> int:
    header = batches.preview(batch, None).header
    if name is None and batch.email_column is not None:
        return batch.email_column
    plain = [title.strip().casefold() for title in header]
    if name is not None and name.strip().casefold() in plain:
        return plain.index(name.strip().casefold())
    raise NotPossible(
        "Say which column holds the e-mail addresses: " + ", ".join(f'--column "{title}"' for title in header)
    )


def _confirm(batch: Batch, yes: bool) -> None:
    """Say what goes and ask; a no throws the batch away."""
    with reading():
        _review(batch)
        db.session.rollback()  # nobody else should wait while a person thinks
    typed = str(batch.planned)
    if not yes:
        words = f"Type {batch.planned} to permanently delete {batch.planned:,} customers"
        typed = click.prompt(words, default="", show_default=False, err=True)
    if typed.strip() != str(batch.planned):
        batches.discard(batch)
        db.session.commit()
        raise NotPossible(f"Batch {batch.id} was not confirmed; it deleted nobody.")
    batches.confirm(batch, batch.plan_digest, typed)
    db.session.commit()


def _review(batch: Batch) -> None:
    of_all = f"of {batch.customers:,} customers" if batch.customers else "of your customers, less than 5 %,"
    click.echo(f"Batch {batch.id}: {batch.planned:,} {of_all} will be permanently deleted.", err=True)
    for outcome, reasons in batches.failures(batch).items():
        click.echo(f"  {sum(reasons.values()):>11,} rows {outcome.words}", err=True)
    for fall in batches.what_falls(batch):
        click.echo(f"  {fall.rows:>11,} {fall.words}", err=True)


def _follow(batch_id: int, state: State, doing: str, work) -> None:
    """Until the batch has left this state, with a progress bar; `work` is what does it here, without workers."""
    batch, has_told = _fetch(batch_id), False
    if work is None:
        ring(batch)
    with click.progressbar(length=batch.rows, label=f"{doing:9}", file=sys.stderr) as bar:

        def show() -> bool:
            bar.update(_done(batch_id) - bar.pos)
            return True

        while True:
            try:
                if _fetch(batch_id).state not in (state, State.PAUSED, State.CANCELLING):
                    show()
                    return
                if work is not None:
                    work(batch_id, keep_going=show)
                show()
            except (OperationalError, InternalError) as error:  # a worker would have its next turn
                db.session.rollback()
                if isinstance(error, InternalError) and getattr(error.orig, "sqlstate", None) != READ_ONLY:
                    raise
                if not has_told:
                    click.echo("\nThe database is away, or somebody holds a customer; trying again …", err=True)
                has_told = True
            time.sleep(POLL_SECONDS)


def _tell(batch: Batch, as_json: bool, seconds: float) -> None:
    outcomes = {outcome.value: 0 for outcome in Outcome} | batches.progress(batch).outcomes
    if as_json:
        told = {
            "batch": batch.id,
            "state": batch.state,
            "rows": batch.rows,
            "outcomes": outcomes,
            "seconds": round(seconds, 3),
        }
        return click.echo(json.dumps(told))
    if batch.refusal:
        return click.echo(f"Batch {batch.id} was refused. {batch.refusal}")
    if batch.state is State.READY:
        return _review(batch)
    click.echo(f"Batch {batch.id} is {batch.state}: {batch.rows:,} rows in {seconds:.1f} s.")
    for outcome, rows in outcomes.items():
        if rows:
            click.echo(f"  {rows:>11,} {Outcome(outcome).words}")


def _fetch(batch_id: int) -> Batch:
    """The batch as it is now, read in a transaction that has already ended."""
    with reading():
        batch = db.session.get(Batch, batch_id, populate_existing=True)
        db.session.expunge(batch)
        db.session.rollback()
    return batch


def _done(batch_id: int) -> int:
    with reading():
        done = batches.progress(db.session.get(Batch, batch_id, populate_existing=True)).done
        db.session.rollback()
    return done
