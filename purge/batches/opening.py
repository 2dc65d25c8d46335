"""A file comes in: looked through once, and stored with its batch, or refused."""

import re
from typing import BinaryIO

from flask import current_app

from purge.batches import upload
from purge.batches.model import Batch, Door, State
from purge.evidence import audit
from purge.evidence.audit import Act
from purge.extensions import db
from purge.intake import customer_csv

# As people write it where it may not stand.
_AT = re.compile(r"%40|[\N{FULLWIDTH COMMERCIAL AT}\N{SMALL COMMERCIAL AT}]|[(\[{<]at[)\]}>]", re.IGNORECASE)


def open_csv(stream: BinaryIO, file_name: str, door: Door, user_id: int | None = None) -> Batch:
    """A new batch with this file, its e-mail column mapped where it is plain; raises customer_csv.Refused, with nothing stored."""
    limits = current_app.config
    shape = customer_csv.inspect(stream, max_bytes=limits["MAX_CSV_BYTES"], max_rows=limits["MAX_CSV_ROWS"])
    file_bytes = stream.tell()
    stream.seek(0)
    digest = upload.content_digest(stream)
    stream.seek(0)
    batch = Batch(
        door=door,
        file_name=masked(file_name),
        file_bytes=file_bytes,
        content_digest=digest,
        encoding=shape.encoding,
        encoding_agreed=shape.encoding != customer_csv.NEEDS_AGREEMENT,
        delimiter=shape.delimiter,
        email_column=customer_csv.match_email_column(shape.header),
        rows=shape.rows,
        blank_rows=shape.blank_rows,
        created_by_id=user_id,
    )
    db.session.add(batch)
    db.session.flush()
    upload.store(db.session.connection(), batch.id, stream)
    file = {"file_bytes": file_bytes, "file_digest": digest.hex()}
    audit.record(Act.OPENED, user_id, batch.id, door=door, rows=batch.rows, **file)
    return batch


def seen_before(batch: Batch) -> Batch | None:
    """The last earlier batch with the very same file."""
    return db.session.scalar(
        db.select(Batch)
        .where(Batch.content_digest == batch.content_digest, Batch.id < batch.id, Batch.state != State.DISCARDED)
        .order_by(Batch.id.desc())
        .limit(1)
    )


def masked(file_name: str) -> str:
    """A file's own name, without its folder and without anything that looks like an address."""
    name = re.split(r"[/\\]", file_name)[-1]
    name = _AT.sub("@", "".join(c for c in name if c.isprintable()))
    return re.sub(r"[^\s@]+@[^\s@]+(?=\.csv$)|[^\s@]+@[^\s@]+", "…", name, flags=re.IGNORECASE)[:200]
