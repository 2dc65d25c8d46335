"""What the sender finds on the server afterwards: an answer for every row, or one sentence why there is none."""

import hashlib
from datetime import timedelta
from typing import BinaryIO

from flask import current_app
from sqlalchemy import Row, select, update

from purge import batches
from purge.batches import Batch, State
from purge.extensions import db, now, reading
from purge.intake.sftp import Drop, NotAllowed
from purge.pickup import files
from purge.pickup.connections import FAILED, PROCESSED, RESULTS
from purge.pickup.model import DroppedFile, FileState, claimed
from purge.pickup.own_copy import own_copy

BLOCK_BYTES = 65_536
WOULD_BE = "would be purged"


def answer(connection: Row, drop: Drop, file: Row) -> None:
    """Write the answer, then take the file away, then note it. May be done again from its beginning."""
    files.try_again_later(file)
    refusal = file.refusal
    if not refusal:
        refusal = _refusal_of(file) or _carried_out(drop, file)
        if refusal:
            files.refuse_late(file, refusal)
    folder, kept_for = (FAILED, files.FAILED_FOR) if refusal else (PROCESSED, _kept_for(connection))
    kept_as = file.kept_as
    if not kept_as or not kept_as.startswith(folder):  # it may have gone on since we were to take it away
        kept_as = _free_place(file) if refusal else f"{PROCESSED}/{_own_name(file)}"
    if kept_for:
        files.keep_until(file, now() + kept_for, kept_as)
    if refusal:
        _tell(drop, kept_as, refusal)
    if kept_for:
        drop.make_folder(folder)
        drop.move(claimed(file.claim), kept_as)
    else:
        drop.remove(claimed(file.claim))
    _end(file)


def throw_away(drop: Drop, file: Row) -> None:
    """It has been kept for long enough; unless its upload went on meanwhile, which is told."""
    files.try_again_later(file)
    late = f"{FAILED}/{_own_name(file)}"
    entry = drop.look(file.kept_as)
    if not file.refusal and (entry.size != file.size if entry else drop.look(late)):
        _tell(drop, late, _changed(file))
        drop.move(file.kept_as, late)
        return files.refuse_late(file, _changed(file), kept_as=late)
    if not entry and not drop.look(folder := file.kept_as.partition("/")[0]):
        raise NotAllowed(f"The folder {folder}/ with the files to be thrown away is not there.")
    drop.remove(file.kept_as)
    return files.thrown_away(file)


def _free_place(file: Row) -> str:
    """In failed/ under its own name, where no other file is kept there, or with a number."""
    plain = f"{FAILED}/{file.name}"
    return f"{FAILED}/{_own_name(file)}" if files.is_kept(file.connection_id, plain) else plain


def _own_name(file: Row) -> str:
    return f"{_stem(file)}-{file.id}{files.ENDING}"


def _kept_for(connection: Row) -> timedelta:
    rest = timedelta(seconds=current_app.config["DROP_REST_SECONDS"])
    return max(timedelta(days=connection.keep_days), rest)


def _tell(drop: Drop, kept_as: str, refusal: str) -> None:
    drop.make_folder(FAILED)
    drop.write(f"{kept_as[: -len(files.ENDING)]}.error.txt", [f"{refusal}\n".encode()])


def _refusal_of(file: Row) -> str | None:
    with reading(), db.engine.connect() as reader:
        this = select(Batch.state, Batch.refusal, Batch.caution).where(Batch.id == file.batch_id)
        state, refusal, caution = reader.execute(this).one()
    if state is State.DISCARDED:
        return " ".join(filter(None, ("The file was discarded before anything was deleted.", caution)))
    return refusal if state is State.REFUSED else None


def _carried_out(drop: Drop, file: Row) -> str | None:
    """Write the answer for every row; what there is to say when the file is no longer what was read."""
    name = f"{_stem(file)}.result.csv"
    with own_copy("answer") as results:
        digest = _results(file, results)
        drop.make_folder(RESULTS)
        drop.write(f"{RESULTS}/{name}", iter(lambda: results.read(BLOCK_BYTES), b""))
    drop.write(f"{RESULTS}/{name}.sha256", [f"{digest}  {name}\n".encode()])
    entry = drop.look(claimed(file.claim))
    return _changed(file) if entry and files.has_changed(file, entry) else None


def _changed(file: Row) -> str:
    return (
        f"The file changed on the server after it was read with {file.size:,} bytes. Only what it held then was read; "
        "its answer is in results/. If something was added, send that again, and rename a file when it is whole."
    )


def _results(file: Row, into: BinaryIO) -> str:
    """The answers in a file of our own, so that nothing is read while a server is waited for; their SHA-256."""
    digest = hashlib.sha256()
    with reading():
        batch = db.session.get(Batch, file.batch_id)
        for text in batches.results_csv(batch, WOULD_BE if batch.is_dry else "pending"):
            block = text.encode()
            digest.update(block)
            into.write(block)
        db.session.rollback()
    into.seek(0)
    return digest.hexdigest()


def _end(file: Row) -> None:
    with db.session.begin():
        batch = db.session.get(Batch, file.batch_id) if file.batch_id else None
        if batch and batch.is_dry and batch.state is State.READY:  # its rows have been answered
            batches.discard(batch)
        this = update(DroppedFile).where(DroppedFile.id == file.id)
        db.session.execute(this.values(state=FileState.ENDED, ended_at=now(), trouble=None, attempts=0))


def _stem(file: Row) -> str:
    return file.name[: -len(files.ENDING)]
