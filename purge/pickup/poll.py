"""One look at a connection's folder: what has ended is answered, what is new is noted, what is ripe is taken.

Between two steps anything may die. What is decided stands in the database before it is done on the server, and every
step can be done twice: a claim is a rename that one can win, a batch and its file's state are written in one
transaction, and an answer replaces the same answer.
"""

import logging
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import timedelta

from flask import current_app
from sqlalchemy import Row, delete, exists, insert, or_, select, update

from purge import batches
from purge.batches import Batch, Door, NotPossible, State
from purge.extensions import alone, db, now, reading
from purge.intake import customer_csv, sftp
from purge.intake.sftp import Drop, Entry, Trouble, Unreachable
from purge.pickup.answer import answer
from purge.pickup.columns import columns
from purge.pickup.connections import PROCESSED, address
from purge.pickup.model import DroppedFile, FileState, SftpConnection, claimed

log = logging.getLogger(__name__)

DRY = ".dryrun.csv"
POLL_SECONDS = 60  # then the next look goes on
MOST_ENTRIES = 50_000
MOST_NAME = 250
MOST_ATTEMPTS = 8
PAUSE, LONGEST_PAUSE = timedelta(seconds=5), timedelta(hours=1)
ENDED = (State.FINISHED, State.REFUSED, State.DISCARDED)


def due() -> list[int]:
    """Connections whose look is due now, by their ids; the next is set, so that of several schedulers one has each."""
    at = now()
    answerable = exists().where(DroppedFile.connection_id == SftpConnection.id, *_answerable())
    wanted = (
        SftpConnection.paused_at.is_(None),
        or_(SftpConnection.next_look_at <= at, answerable & (SftpConnection.failures == 0)),
    )
    with reading(), db.engine.connect() as connection:
        found = connection.execute(
            select(SftpConnection.id, SftpConnection.next_look_at, SftpConnection.every_seconds).where(*wanted)
        ).all()
    ours = []
    for id, was, every in found:
        this = update(SftpConnection).where(SftpConnection.id == id, SftpConnection.next_look_at == was)
        with db.engine.begin() as connection:
            if connection.execute(this.values(next_look_at=at + timedelta(seconds=every))).rowcount:
                ours.append(id)
    return ours


def let_run() -> list[Batch]:
    """Confirm what came by SFTP and may run with nobody's yes; commits, and returns the batches that run now."""
    waiting = (
        select(Batch)
        .join(DroppedFile, DroppedFile.batch_id == Batch.id)
        .join(SftpConnection, SftpConnection.id == DroppedFile.connection_id)
        .where(Batch.state == State.READY, ~Batch.is_dry, Batch.planned <= SftpConnection.runs_up_to)
        .where(SftpConnection.paused_at.is_(None))  # whoever pauses may have seen the wrong file come in
    )
    with reading():
        found = db.session.scalars(waiting).all()
        plans = [(batch, batch.plan_digest, str(batch.planned)) for batch in found]
        db.session.rollback()
    running = []
    for batch, plan, planned in plans:
        try:
            batches.confirm(batch, plan, planned)
            db.session.commit()
            running.append(batch)
        except NotPossible:
            db.session.rollback()  # somebody was quicker
    return running


def poll(connection_id: int, opened: Callable[[Batch], None], keep_going: Callable[[], bool] = lambda: True) -> None:
    """Look once, unless somebody else is looking; `opened` hears of each new batch, once it is committed."""
    with alone(db.engine, f"poll-{connection_id}") as is_ours:
        connection = _fetch(connection_id) if is_ours else None
        if connection is None or connection.paused_at or not connection.host_keys:
            return
        troubles = []
        try:
            with sftp.connect(address(connection), connection.folder) as drop:
                _look(connection, drop, opened, keep_going, troubles)
        except Trouble as trouble:
            troubles.append(str(trouble))
        _came_to_an_end(connection, troubles)


def _look(connection: Row, drop: Drop, opened, keep_going, troubles: list[str]) -> None:
    until = time.monotonic() + POLL_SECONDS

    def each(files: Iterable[Row], act) -> None:
        """One file's trouble is no other's, unless the connection is gone."""
        for file in files:
            if not keep_going() or time.monotonic() > until:
                return
            try:
                act(file)
            except Unreachable:
                raise
            except Trouble as trouble:
                troubles.append(str(trouble))

    each(_files(connection, *_answerable()), lambda file: _answer(connection, drop, file))
    old = now() - timedelta(seconds=current_app.config["DROP_AGE_SECONDS"])  # before this look, at the latest
    _note(connection, drop)
    ripe = DroppedFile.state.in_([FileState.SEEN, FileState.CLAIMED]), DroppedFile.seen_at < old
    each(_files(connection, *ripe), lambda file: _take(connection, drop, file, opened))
    each(_files(connection, *_answerable()), lambda file: _answer(connection, drop, file))
    each(_files(connection, DroppedFile.kept_until < now()), lambda file: _throw_away(drop, file))


def _note(connection: Row, drop: Drop) -> None:
    """Keep the names, sizes and times of what could be taken; a file that has changed begins anew."""
    found, left_alone = _candidates(drop)
    with reading(), db.engine.connect() as reader:
        seen = (DroppedFile.connection_id == connection.id, DroppedFile.state == FileState.SEEN)
        columns = DroppedFile.id, DroppedFile.name, DroppedFile.size, DroppedFile.changed
        known = {row.name: row for row in reader.execute(select(*columns).where(*seen))}
    new = [entry for name, entry in found.items() if name not in known]
    changed = [
        (known[name].id, entry)
        for name, entry in found.items()
        if name in known and (known[name].size, known[name].changed) != (entry.size, entry.changed)
    ]
    gone = [row.id for name, row in known.items() if name not in found]
    if not (new or changed or gone or left_alone != connection.left_alone):
        return
    with db.engine.begin() as writer:
        for entry in new:
            values = {"name": entry.name, "size": entry.size, "changed": entry.changed}
            writer.execute(insert(DroppedFile).values(connection_id=connection.id, **values))
        for id, entry in changed:
            _begin_anew(writer, id, entry)
        for id in gone:
            writer.execute(delete(DroppedFile).where(DroppedFile.id == id, DroppedFile.state == FileState.SEEN))
        this = update(SftpConnection).where(SftpConnection.id == connection.id)
        writer.execute(this.values(left_alone=left_alone, **({"last_file_at": now()} if new else {})))


def _candidates(drop: Drop) -> tuple[dict[str, Entry], int]:
    """What may be taken, by name, and how many other entries are called .csv."""
    found, left_alone = {}, 0
    for number, entry in enumerate(drop.entries()):
        if number == MOST_ENTRIES:
            break
        if not entry.name.lower().endswith(".csv"):
            continue
        if not (entry.is_file and _is_plain(entry.name)):
            left_alone += 1
        elif not entry.name.startswith("."):
            found[entry.name] = entry
    return found, left_alone


def _is_plain(name: str) -> bool:
    """A name and no path, that a person could have typed; what is not UTF-8 came in as surrogates, which do not print."""
    return "/" not in name and "\\" not in name and name.isprintable() and len(name.encode()) <= MOST_NAME


def _take(connection: Row, drop: Drop, file: Row, opened: Callable[[Batch], None]) -> None:
    """Claim a file on the server, read it whole, and open its batch."""
    place = claimed(_claim(file))
    entry = drop.look(place)
    if entry is None:
        if not drop.claim(file.name, place):
            return _forget(file)
        entry = drop.look(place)
    elif file.attempts >= MOST_ATTEMPTS:
        return _refuse(file, f"The file could not be read whole in {MOST_ATTEMPTS} attempts. Send it again.")
    if entry is None or not entry.is_file:
        return _refuse(file, "This was no regular file any more when it was read.")
    if (entry.size, entry.changed) != (file.size, file.changed):  # replaced between look and claim
        with db.engine.begin() as writer:
            return _begin_anew(writer, file.id, entry)
    with tempfile.TemporaryFile() as copy:
        try:
            drop.read(entry, copy, current_app.config["MAX_CSV_BYTES"])
            copy.seek(0)
            batch = _open(connection, file, copy)
        except (sftp.TooLarge, customer_csv.Refused, NotPossible) as refused:
            db.session.rollback()
            return _refuse(file, str(refused))
    opened(batch)
    db.session.rollback()  # whoever hears of it may have read


def _open(connection: Row, file: Row, copy) -> Batch:
    """The batch, at its check, and the file that is now taken, in one transaction."""
    batch = batches.open_csv(copy, file.name, Door.SFTP)
    if not batch.encoding_agreed:
        raise customer_csv.Refused("The file is not UTF-8. Save it as CSV UTF-8.")
    batch.is_dry = file.name.lower().endswith(DRY)
    earlier = None if batch.is_dry else _same_content(batch)
    if earlier:
        raise customer_csv.Refused(
            f"The very same file was picked up before, at {earlier.created_at:%-d %b %Y, %H:%M} UTC, as batch {earlier.id}. "
            "It was not run again."
        )
    email_column, type_column = columns(batch, connection.email_column)
    batches.map_fields(batch, email_column, encoding_agreed=True, type_column=type_column)
    _decide(db.session, file, batch_id=batch.id)
    db.session.commit()
    return batch


def _same_content(batch: Batch) -> Batch | None:
    same = Batch.content_digest == batch.content_digest, Batch.id != batch.id
    counts = Batch.door == Door.SFTP, Batch.state.not_in([State.REFUSED, State.DISCARDED]), ~Batch.is_dry
    picked_up = select(Batch).join(DroppedFile, DroppedFile.batch_id == Batch.id)
    return db.session.scalar(picked_up.where(*same, *counts).limit(1))


def _answer(connection: Row, drop: Drop, file: Row) -> None:
    with db.engine.begin() as writer:
        _try_again_later(writer, file)
    kept_until = answer(connection, drop, file)
    with db.session.begin():
        batch = db.session.get(Batch, file.batch_id) if file.batch_id else None
        if batch and batch.state is State.READY:  # a dry run: its rows have been answered
            batches.discard(batch)
        same_name = DroppedFile.connection_id == connection.id, DroppedFile.name == file.name
        db.session.execute(update(DroppedFile).where(*same_name).values(kept_until=None))  # it was replaced
        this = update(DroppedFile).where(DroppedFile.id == file.id)
        db.session.execute(this.values(state=FileState.ENDED, ended_at=now(), kept_until=kept_until))


def _throw_away(drop: Drop, file: Row) -> None:
    drop.remove(f"{PROCESSED}/{file.name}")
    with db.engine.begin() as writer:
        writer.execute(update(DroppedFile).where(DroppedFile.id == file.id).values(kept_until=None))


def _answerable() -> tuple:
    """Files whose batch has come to its end, or that were refused."""
    ended = exists().where(
        Batch.id == DroppedFile.batch_id,
        or_(Batch.state.in_(ENDED), Batch.is_dry & (Batch.state == State.READY)),
    )
    decided = DroppedFile.state == FileState.TAKEN, DroppedFile.next_try_at <= now()
    return *decided, or_(DroppedFile.refusal.is_not(None), ended)


def _claim(file: Row) -> str:
    """Counted before it is tried, so that what kills us is counted too."""
    claim = file.claim or uuid.uuid4().hex
    with db.engine.begin() as writer:
        _try_again_later(writer, file, state=FileState.CLAIMED, claim=claim)
    return claim


def _try_again_later(writer, file: Row, **values) -> None:
    pause = min(PAUSE * 2**file.attempts, LONGEST_PAUSE) if file.attempts < 20 else LONGEST_PAUSE
    this = update(DroppedFile).where(DroppedFile.id == file.id)
    writer.execute(this.values(attempts=file.attempts + 1, next_try_at=now() + pause, **values))


def _begin_anew(writer, file_id: int, entry: Entry) -> None:
    this = update(DroppedFile).where(DroppedFile.id == file_id)
    writer.execute(this.values(size=entry.size, changed=entry.changed, seen_at=now(), attempts=0, next_try_at=now()))


def _refuse(file: Row, sentence: str) -> None:
    with db.engine.begin() as writer:
        _decide(writer, file, refusal=sentence)


def _decide(writer, file: Row, **values) -> None:
    """What becomes of a claimed file, once and for all; from here on its name holds nothing personal."""
    this = update(DroppedFile).where(DroppedFile.id == file.id, DroppedFile.state == FileState.CLAIMED)
    decided = {"state": FileState.TAKEN, "name": batches.masked(file.name), "attempts": 0, "next_try_at": now()}
    if not writer.execute(this.values(**decided, **values)).rowcount:
        raise Trouble("Another look had the file first.")


def _forget(file: Row) -> None:
    """Neither its name nor our claim is on the server: its sender took it back."""
    with db.engine.begin() as writer:
        writer.execute(delete(DroppedFile).where(DroppedFile.id == file.id))


def _came_to_an_end(connection: Row, troubles: list[str]) -> None:
    at = now()
    values = {"seen_at": at, "failing_since": None, "failures": 0}
    if troubles:
        pause = min(timedelta(seconds=connection.every_seconds) * 2 ** min(connection.failures, 12), LONGEST_PAUSE)
        values = {
            "failing_since": connection.failing_since or at,
            "failures": connection.failures + 1,
            "last_error": troubles[-1][:500],
            "last_error_at": at,
            "next_look_at": at + pause,
        }
        log.warning("connection %s: %s", connection.id, troubles[-1])
    with db.engine.begin() as writer:
        writer.execute(update(SftpConnection).where(SftpConnection.id == connection.id).values(**values))


def _fetch(connection_id: int) -> Row | None:
    """As it is now, read in a transaction that has ended: none may stand while we wait for a server."""
    with reading(), db.engine.connect() as reader:
        this = select(SftpConnection.__table__).where(SftpConnection.id == connection_id)
        return reader.execute(this).one_or_none()


def _files(connection: Row, *conditions) -> list[Row]:
    """Whose turn it is, those tried least first, then the oldest."""
    wanted = DroppedFile.connection_id == connection.id, DroppedFile.next_try_at <= now(), *conditions
    order = DroppedFile.attempts, DroppedFile.changed, DroppedFile.name
    with reading(), db.engine.connect() as reader:
        return list(reader.execute(select(DroppedFile.__table__).where(*wanted).order_by(*order)))
