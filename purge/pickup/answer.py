"""What the sender finds on the server afterwards: an answer for every row, or one sentence why there is none."""

import hashlib
import tempfile
from datetime import datetime, timedelta
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

BLOCK_BYTES = 65_536
WOULD_BE = "would be purged"


def answer(connection: Row, drop: Drop, file: Row) -> None:
    """Write the answer, then take the file away, then note it. May be done again from its beginning."""
    files.try_again_later(file)
    refusal, kept_until = file.refusal, file.kept_until
    if not refusal:
        refusal = _refusal_of(file) or _carried_out(drop, file)
        if refusal:
            kept_until = files.refuse_late(file, refusal)
        elif not kept_until and (kept_for := _kept_for(connection)):
            kept_until = now() + kept_for
            files.keep_until(file, kept_until)
    if refusal:
        _tell(drop, file, refusal)
    if kept_until:
        folder = FAILED if refusal else PROCESSED
        drop.make_folder(folder)
        drop.move(claimed(file.claim), f"{folder}/{file.name}")
    else:
        drop.remove(claimed(file.claim))
    _end(file, bool(refusal), kept_until)


def throw_away(drop: Drop, file: Row) -> None:
    """It has been kept for long enough; unless its upload went on meanwhile, which is told."""
    folders = [FAILED, PROCESSED] if file.refusal else [PROCESSED]
    places = [f"{folder}/{file.name}" for folder in folders]
    found = [entry for entry in map(drop.look, places) if entry]
    if not found and not drop.look(folders[0]):
        raise NotAllowed(f"The folder {folders[0]}/ with the files to be thrown away is not there.")
    if not file.refusal and any(files.has_changed(file, entry) for entry in found):
        _tell(drop, file, _changed(file))
        files.refuse_late(file, _changed(file))
        return drop.move(places[0], f"{FAILED}/{file.name}")
    for place in places:
        drop.remove(place)
    return files.thrown_away(file)


def _kept_for(connection: Row) -> timedelta:
    rest = timedelta(seconds=current_app.config["DROP_REST_SECONDS"])
    return max(timedelta(days=connection.keep_days), rest)


def _tell(drop: Drop, file: Row, refusal: str) -> None:
    drop.make_folder(FAILED)
    drop.write(f"{FAILED}/{_stem(file)}.error.txt", [f"{refusal}\n".encode()])


def _refusal_of(file: Row) -> str | None:
    with reading(), db.engine.connect() as reader:
        state, refusal = reader.execute(select(Batch.state, Batch.refusal).where(Batch.id == file.batch_id)).one()
    if state is State.DISCARDED:
        return "The file was discarded before anything was deleted."
    return refusal if state is State.REFUSED else None


def _carried_out(drop: Drop, file: Row) -> str | None:
    """Write the answer for every row; what there is to say when the file is no longer what was read."""
    name = f"{_stem(file)}.result.csv"
    with tempfile.TemporaryFile() as results:
        digest = _results(file, results)
        drop.make_folder(RESULTS)
        drop.write(f"{RESULTS}/{name}", iter(lambda: results.read(BLOCK_BYTES), b""))
    drop.write(f"{RESULTS}/{name}.sha256", [f"{digest}  {name}\n".encode()])
    entry = drop.look(claimed(file.claim))
    return _changed(file) if entry and files.has_changed(file, entry) else None


def _changed(file: Row) -> str:
    return (
        f"The file changed on the server after it was read with {file.size:,} bytes. Only what it held then was carried "
        "out; its answer is in results/. If something was added, send that again, and rename a file when it is whole."
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


def _end(file: Row, is_refused: bool, kept_until: datetime | None) -> None:
    with db.session.begin():
        batch = db.session.get(Batch, file.batch_id) if file.batch_id else None
        if batch and batch.is_dry and batch.state is State.READY:  # its rows have been answered
            batches.discard(batch)
        same_folder = DroppedFile.refusal.is_not(None) if is_refused else DroppedFile.refusal.is_(None)
        same_place = DroppedFile.connection_id == file.connection_id, DroppedFile.name == file.name, same_folder
        if kept_until:
            others = (DroppedFile.id != file.id) & (DroppedFile.state == FileState.ENDED)
            db.session.execute(update(DroppedFile).where(*same_place, others).values(kept_until=None))  # replaced
        this = update(DroppedFile).where(DroppedFile.id == file.id)
        ended = {"state": FileState.ENDED, "ended_at": now(), "kept_until": kept_until, "trouble": None}
        db.session.execute(this.values(**ended))


def _stem(file: Row) -> str:
    return file.name[: -len(files.ENDING)]
