"""What the sender finds on the server afterwards: an answer for every row, or one sentence why there is none."""

import hashlib
from datetime import datetime, timedelta

from sqlalchemy import Row, select

from purge import batches
from purge.batches import Batch, State
from purge.extensions import db, now, reading
from purge.intake.sftp import Drop
from purge.pickup.connections import FAILED, PROCESSED, RESULTS
from purge.pickup.model import claimed

WOULD_BE = "would be purged"


def answer(connection: Row, drop: Drop, file: Row) -> datetime | None:
    """Write it, then take the file away; until when the file is kept. May be done again from its beginning."""
    sentence = file.refusal or _refusal_of(file)
    if sentence:
        drop.make_folder(FAILED)
        drop.write(f"{FAILED}/{_stem(file)}.error.txt", [f"{sentence}\n".encode()])
        drop.move(claimed(file.claim), f"{FAILED}/{file.name}")
        return None
    drop.make_folder(RESULTS)
    name = f"{_stem(file)}.result.csv"
    digest = hashlib.sha256()
    drop.write(f"{RESULTS}/{name}", _results(file, digest))
    drop.write(f"{RESULTS}/{name}.sha256", [f"{digest.hexdigest()}  {name}\n".encode()])
    if not connection.keep_days:
        drop.remove(claimed(file.claim))
        return None
    drop.make_folder(PROCESSED)
    drop.move(claimed(file.claim), f"{PROCESSED}/{file.name}")
    return now() + timedelta(days=connection.keep_days)


def _refusal_of(file: Row) -> str | None:
    with reading(), db.engine.connect() as reader:
        state, refusal = reader.execute(select(Batch.state, Batch.refusal).where(Batch.id == file.batch_id)).one()
    if state is State.DISCARDED:
        return "The file was discarded before anything was deleted."
    return refusal if state is State.REFUSED else None


def _results(file: Row, digest):
    """Read from the database while it is sent; reading holds up no writer."""
    with reading():
        batch = db.session.get(Batch, file.batch_id)
        for text in batches.results_csv(batch, WOULD_BE if batch.is_dry else "pending"):
            block = text.encode()
            digest.update(block)
            yield block
        db.session.rollback()


def _stem(file: Row) -> str:
    return file.name[: -len(".csv")]
