"""What stands in a folder: what could be taken is noted, with its size and time; what is none for us is counted."""

import re
import unicodedata
from contextlib import suppress

from sqlalchemy import Row, delete, insert, select, update

from purge.batches import Batch, NotPossible, State
from purge.erasure.engine import among
from purge.extensions import db, now, reading
from purge.intake.sftp import Drop, Entry
from purge.pickup import files
from purge.pickup.model import DroppedFile, FileState, SftpConnection, claimed

BLOCK = 1_000
MOST_NAME = 200  # bytes: its answer's name is longer, and servers take 255
JOINERS = "\N{SOFT HYPHEN}\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"  # in ordinary words, and in emoji
CLAIM = re.compile(r"\.([0-9a-f]{32})\.claimed")


def note(connection: Row, drop: Drop) -> None:
    """Keep the names, sizes and times of what could be taken; a file that has changed begins anew, also while its batch waits."""
    found, claims, left_alone = _candidates(drop)
    with reading(), db.engine.connect() as reader:
        ours = DroppedFile.connection_id == connection.id
        columns = DroppedFile.id, DroppedFile.name, DroppedFile.size, DroppedFile.changed
        seen = select(*columns).where(ours, DroppedFile.state == FileState.SEEN)
        known = {row.name: row for row in reader.execute(seen)}
        in_hand = {row.claim: row for row in reader.execute(select(DroppedFile.__table__).where(ours, files.IN_HAND))}
        waiting = set(reader.scalars(select(DroppedFile.claim).where(ours, *files.waiting())))
        overtaken = set(reader.scalars(select(DroppedFile.claim).where(ours, *files.overtaken())))
    strangers = claims.keys() - in_hand.keys()
    left_alone += len(strangers) - _bring_back(connection, strangers)
    for claim in waiting:
        with suppress(NotPossible):  # somebody was quicker
            _look_again(drop, in_hand[claim], claims.get(claim), claim in overtaken)
    # One that could not be renamed still has its name, and is in hand all the same.
    being_claimed = {
        row.name for claim, row in in_hand.items() if row.state is FileState.CLAIMED and claim not in claims
    }
    new = [entry for name, entry in found.items() if name not in known and name not in being_claimed]
    changed = [
        (known[name].id, entry)
        for name, entry in found.items()
        if name in known and files.has_changed(known[name], entry)
    ]
    gone = [row.id for name, row in known.items() if name not in found]
    if not (new or changed or gone or left_alone != connection.left_alone):
        return
    with db.engine.begin() as writer:
        if new:  # together: there may be ten thousand
            values = [
                {"name": one.name, "is_dry": files.is_dry(one.name), "size": one.size, "changed": one.changed}
                for one in new
            ]
            writer.execute(insert(DroppedFile).values(connection_id=connection.id), values)
        for id, entry in changed:
            files.begin_anew(writer, id, entry)
        these = among(DroppedFile.id, gone, writer)
        writer.execute(delete(DroppedFile).where(these, DroppedFile.state == FileState.SEEN))
        this = update(SftpConnection).where(SftpConnection.id == connection.id)
        writer.execute(this.values(left_alone=left_alone, **({"last_file_at": now()} if new else {})))


def _bring_back(connection: Row, strangers: set[str]) -> int:
    """Of claims that nobody has in hand those that are ours all the same are in hand again; how many."""
    if not strangers:
        return 0
    in_vain = (Batch.state == State.DISCARDED) & Batch.stopped_by_id.is_(None)  # by us, who thought it taken back
    is_read = DroppedFile.batch_id.is_not(None) & ~in_vain | DroppedFile.refusal.is_not(None) & Batch.id.is_(None)
    ended = select(DroppedFile.id, is_read.label("is_read")).outerjoin(Batch, Batch.id == DroppedFile.batch_id)
    theirs, claims, found = ended.where(DroppedFile.connection_id == connection.id), sorted(strangers), []
    with reading(), db.engine.connect() as reader:
        for start in range(0, len(claims), BLOCK):  # a sender may lay there more than one question can hold
            found += reader.execute(theirs.where(DroppedFile.claim.in_(claims[start : start + BLOCK])))
    for row in found:
        files.is_here_again(row, row.is_read)
    return len(found)


def _look_again(drop: Drop, file: Row, listed: Entry | None, is_overtaken: bool) -> None:
    """A file whose batch waits for a yes: its upload may go on, or its sender take it back. Some servers list times that are not
    quite those that they say of one file."""
    if listed and not files.has_changed(file, listed) and not is_overtaken:
        return
    entry = drop.look(claimed(file.claim))
    if entry and (is_overtaken or files.has_changed(file, entry)):
        files.read_again(file, entry)
    elif entry is None and drop.is_gone(claimed(file.claim)):
        files.discard_batch(file)


def _candidates(drop: Drop) -> tuple[dict[str, Entry], dict[str, Entry], int]:
    """What may be taken, by name; the claims that stand there; and how many other entries are called .csv."""
    found, claims, left_alone = {}, {}, 0
    for entry in drop.entries():
        if claim := CLAIM.fullmatch(entry.name):
            claims[claim[1]] = entry
        elif entry.name.lower().endswith(files.ENDING):
            if not (entry.is_file and is_plain(entry.name)):
                left_alone += 1
            elif not entry.name.startswith("."):
                found[entry.name] = entry
    return found, claims, left_alone


def is_plain(name: str) -> bool:
    """A name and no path, that a person could have typed; what is not UTF-8 came in as surrogates, which do not print."""
    is_path = "/" in name or "\\" in name
    return not is_path and all(map(_is_typed, name)) and len(name.encode()) <= MOST_NAME


def _is_typed(sign: str) -> bool:
    """Python prints of all spaces only one; a Mac and a Japanese keyboard type others."""
    return sign.isprintable() or sign in JOINERS or unicodedata.category(sign) == "Zs"
