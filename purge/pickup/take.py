"""From a file that stands in the folder to its batch: claimed by a rename, read whole, and looked at once more before it runs."""

import os
import uuid
from collections.abc import Callable
from typing import BinaryIO

from flask import current_app
from sqlalchemy import Row, exists, select

from purge import batches
from purge.batches import Batch, Door, NotPossible, State
from purge.batches.model import Chunk
from purge.extensions import db, one_at_a_time
from purge.intake import customer_csv, sftp
from purge.intake.sftp import Drop
from purge.pickup import files
from purge.pickup.model import DroppedFile, FileState, SftpConnection, claimed
from purge.pickup.own_copy import own_copy


def take(connection: Row, drop: Drop, file: Row, opened: Callable[[Batch], None]) -> None:
    """Claim a file on the server, read it whole, and open its batch."""
    claim = file.claim or uuid.uuid4().hex
    files.try_again_later(file, state=FileState.CLAIMED, claim=claim)
    entry = drop.look(claimed(claim))
    if entry is None:
        if not drop.claim(file.name, claimed(claim)):
            return files.take_back(file)
        entry = drop.look(claimed(claim))
        files.begin_attempts(file)  # what kept us from claiming it says nothing of reading it
    elif file.attempts >= files.MOST_ATTEMPTS:
        last = f" The last time: {file.trouble}" if file.trouble else ""
        sentence = f"The file could not be read whole in {files.MOST_ATTEMPTS} attempts. Send it again.{last}"
        return files.refuse(file, sentence[:500])
    if entry is None:
        raise sftp.NotWhole("The file was claimed, and was not there when it was to be read.")
    if not entry.is_file:
        return files.refuse(file, "This was no regular file any more when it was read.")
    if files.has_changed(file, entry):  # replaced between look and claim
        with db.engine.begin() as writer:
            return files.begin_anew(writer, file.id, entry)
    try:
        with own_copy("file") as copy:
            drop.read(entry, copy, current_app.config["MAX_CSV_BYTES"])
            copy.seek(0)
            batch = _open(connection, file, copy)
    except (sftp.TooLarge, customer_csv.Refused, NotPossible) as refused:
        db.session.rollback()
        return files.refuse(file, str(refused))
    opened(batch)


def let_run(drop: Drop, file: Row, opened: Callable[[Batch], None]) -> None:
    """Confirm a file's batch, unless the file is no longer what was read: an upload that rested may have gone on."""
    files.try_again_later(file)
    entry = drop.look(claimed(file.claim))
    try:
        if entry is None:
            if drop.is_gone(claimed(file.claim)):  # its sender took it back
                files.discard_batch(file)
        elif files.has_changed(file, entry):
            files.read_again(file, entry)
        elif batch := _confirmed(file):
            opened(batch)
    except NotPossible:
        return  # somebody was quicker


def _confirmed(file: Row) -> Batch | None:
    """The batch, running now; None when the connection was paused or allows less by now."""
    batch = db.session.get(Batch, file.batch_id)
    connection = db.session.get(SftpConnection, file.connection_id)
    if connection.paused_at or connection.removed_at or batch.planned > connection.runs_up_to:
        return None
    batches.confirm(batch, batch.plan_digest, str(batch.planned))
    files.went_well(db.session, file)
    db.session.commit()
    return batch


def _open(connection: Row, file: Row, copy: BinaryIO) -> Batch:
    """The batch, at its check, and the file that is now taken, in one transaction."""
    batch = batches.open_csv(copy, file.name, Door.SFTP)
    if not batch.encoding_agreed:
        raise customer_csv.Refused("The file is not UTF-8. Save it as CSV UTF-8.")
    batch.is_dry = file.is_dry
    batch.caution = None if batch.is_dry else _caution(batch, copy)
    batches.map_fields(batch, email_column(batch, connection.email_column), encoding_agreed=True)
    allowed = connection.runs_up_to if file.runs_up_to is None else min(file.runs_up_to, connection.runs_up_to)
    files.decide(db.session, file, batch_id=batch.id, runs_up_to=allowed)
    db.session.commit()
    return batch


def email_column(batch: Batch, name: str) -> int:
    """The column of this name; raises Refused, for nobody is there to be asked."""
    wanted, header = customer_csv.plain_name(name), batches.preview(batch, None).header
    found = [index for index, title in enumerate(header) if customer_csv.plain_name(title) == wanted]
    if len(found) != 1:
        how_many = "two columns" if found else "no column"
        raise customer_csv.Refused(
            f"The file has {how_many} called “{name}”. Its first row must hold the columns' names."
        )
    return found[0]


def _caution(batch: Batch, copy: BinaryIO) -> str | None:
    """Why somebody should look before it runs, however few it names."""
    told = []
    if earlier := _same_content(batch):
        told.append(
            f"The very same file was picked up at {earlier.created_at:%-d %b %Y, %H:%M} UTC, as batch {earlier.id}."
        )
    if not _ends_a_line(copy):
        told.append("The file ends within a line, so it may have been cut off, and its last address with it.")
    return " ".join(told) or None


def _ends_a_line(copy: BinaryIO) -> bool:
    copy.seek(0)
    mark = copy.read(2)
    copy.seek(-2, os.SEEK_END)
    codec = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}.get(mark, "latin-1")  # of UTF-8 a line's end is a byte
    return copy.read().decode(codec, "replace")[-1:] in ("\n", "\r")


def _same_content(batch: Batch) -> Batch | None:
    """An earlier batch with this content that nobody stopped: what was cancelled or failed may be sent again."""
    one_at_a_time(db.session.connection(), batch.content_digest)
    same = Batch.content_digest == batch.content_digest, Batch.id != batch.id
    left_over = exists().where(Chunk.batch_id == Batch.id, Chunk.cancelled + Chunk.failed > 0)
    counts = Batch.door == Door.SFTP, Batch.state.not_in([State.REFUSED, State.DISCARDED]), ~Batch.is_dry, ~left_over
    picked_up = select(Batch).join(DroppedFile, DroppedFile.batch_id == Batch.id)
    return db.session.scalar(picked_up.where(*same, *counts).limit(1))
