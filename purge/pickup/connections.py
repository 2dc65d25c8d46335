"""Connections: added, pinned, tested, paused; and which of them somebody should look at."""

import posixpath
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import PurePosixPath

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import ColumnElement, Row, delete, exists, func, select, update

from purge.batches import Batch, NotPossible, discard
from purge.batches.control import UNCONFIRMED
from purge.batches.model import Chunk
from purge.extensions import db, now
from purge.intake import sftp
from purge.intake.sftp import Address, OurOwn, Trouble
from purge.pickup.files import ENDING, IN_HAND, IS_KEPT, OPEN
from purge.pickup.model import DroppedFile, FileState, SftpConnection
from purge.pickup.note import is_plain
from purge.sealing import Seal

FAILING_FOR, A_DAY = timedelta(minutes=15), timedelta(days=1)
FOLDERS = RESULTS, FAILED, PROCESSED = "results", "failed", "processed"
PROBE = ".purge-connection-test"


@dataclass(frozen=True)
class Step:
    """One step of a test, and how it went, in words."""

    title: str
    is_well: bool
    words: str


def new_private_key() -> str:
    """An ed25519 key, as OpenSSH writes it."""
    private = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    return private.decode("ascii")


def set_private_key(connection: SftpConnection, text: str) -> None:
    """Keep it sealed, and its public half readable; raises sftp.BadKey."""
    key = sftp.read_private_key(text)
    connection.private_key = Seal("sftp").close(text.encode(), "private_key")
    connection.public_key = f"{key.get_name()} {key.get_base64()}"


def address(connection: SftpConnection | Row) -> Address:
    """How the server is reached; raises Trouble where our key cannot be read."""
    try:
        private = Seal("sftp").open(connection.private_key, "private_key").decode()
    except InvalidTag:
        raise OurOwn(
            "The private key was sealed under another SECRET_KEY. Make a new one, or paste one under Edit."
        ) from None
    keys = tuple(connection.host_keys)
    return Address(connection.host, connection.port, connection.username, private, keys)


def can_sign_in(connection: SftpConnection) -> bool:
    """Whether our key for it can be read."""
    try:
        return bool(address(connection))
    except OurOwn:
        return False


def test(connection: SftpConnection) -> list[Step]:
    """Do on the server what a pick-up does, step by step, up to the first that fails."""
    steps = []
    with suppress(Trouble):
        for title, words in _steps(connection, steps):
            steps.append(Step(title, True, words))
    return steps


def _steps(connection: SftpConnection, steps: list[Step]) -> Iterator[tuple[str, str]]:
    title = "Reach the server"
    try:
        shown = sftp.fetch_host_keys(connection.host, connection.port)
        yield title, f"{connection.host} answers on port {connection.port}."
        title = "Its host key"
        pinned = [key for key in shown if key in connection.host_keys]
        if not pinned:
            raise sftp.HostKeyUnknown(
                "It shows " + " and ".join(map(sftp.fingerprint, shown)) + ", and none of them is pinned."
                if connection.host_keys
                else "No host key is pinned yet. Fetch the keys below, compare them, and pin them."
            )
        yield title, f"It shows {sftp.fingerprint(pinned[0])}, which is pinned."
        title = "Sign in"
        with sftp.connect(address(connection), connection.folder) as drop:
            yield title, f"It lets {connection.username} in with our key."
            title = "List the folder"
            there = [entry for entry in drop.entries() if entry.is_file]
            yield title, f"{connection.folder} holds {len(there):,} {'file' if len(there) == 1 else 'files'}."
            title = "Claim a file"
            drop.remove(f"{PROBE}.claimed")  # a test that was killed left it
            drop.write(PROBE, [b"A test of the connection.\n"])
            drop.claim(PROBE, f"{PROBE}.claimed")
            drop.remove(f"{PROBE}.claimed")
            dropped = next((one for one in there if one.name.lower().endswith(ENDING) and is_plain(one.name)), None)
            if dropped:
                drop.open(dropped.name)
            opened = "; one that was dropped could be opened" if dropped else ""
            yield title, f"A file of ours was written, renamed and removed{opened}. Others’ files were not renamed."
            title = "Write an answer"
            for folder in FOLDERS:
                drop.make_folder(folder)
                drop.write(f"{folder}/{PROBE}", [b"A test of the connection.\n"])
                drop.remove(f"{folder}/{PROBE}")
            yield title, "A file in each of results/, failed/ and processed/ was written, renamed and removed."
    except Trouble as trouble:
        steps.append(Step(title, False, str(trouble)))
        raise


def every() -> list[SftpConnection]:
    """Those that were not removed, by name."""
    there = select(SftpConnection).where(SftpConnection.removed_at.is_(None))
    return list(db.session.scalars(there.order_by(SftpConnection.name, SftpConnection.id)))


def looking_into(place: dict[str, str | int], but: SftpConnection | None = None) -> SftpConnection | None:
    """The connection, other than `but`, that has this folder, or one around or within it, as this user of this server."""

    def spelled(host: str, port: int, username: str, folder: str) -> tuple:
        return (host.lower(), port, username), PurePosixPath(re.sub("^/+", "/", posixpath.normpath(folder)))

    user, here = spelled(**place)
    for one in every():
        whose, there = spelled(one.host, one.port, one.username, one.folder)
        if one is not but and whose == user and (here.is_relative_to(there) or there.is_relative_to(here)):
            return one
    return None


def bound(connection: SftpConnection) -> int:
    """How many files bind us to this very server and folder: in hand, or to be thrown away there some day."""
    return _count(connection, IN_HAND) + _count(connection, IS_KEPT, DroppedFile.state == FileState.ENDED)


def unanswered(connection: SftpConnection) -> int:
    """How many files wait for something, if only for their age."""
    return _count(connection, OPEN)


def _count(connection: SftpConnection, *which: ColumnElement[bool]) -> int:
    theirs = DroppedFile.connection_id == connection.id
    return db.session.scalar(select(func.count()).select_from(DroppedFile).where(theirs, *which))


def remove(connection: SftpConnection, leaving: bool = False, user_id: int | None = None) -> None:
    """It is nowhere any more, and its key is gone; what it brought is still accounted for. `leaving` its files where they are,
    as on a server that is no more. Raises NotPossible."""
    if connection.is_embedded:
        raise NotPossible("This installation’s own server stays; pause it if it is not wanted.")
    if not connection.paused_at:
        raise NotPossible("Pause it first.")
    if leaving:
        _leave_files(connection, user_id)
    elif files := bound(connection):
        raise NotPossible(
            f"{files:,} of its files are still in hand or kept on the server. Remove it when none is, or leave them there."
        )
    # Names that nothing came of would be looked at by nobody any more.
    seen = DroppedFile.connection_id == connection.id, DroppedFile.state == FileState.SEEN
    db.session.execute(delete(DroppedFile).where(*seen))
    connection.removed_at, connection.private_key = now(), b""


def _leave_files(connection: SftpConnection, user_id: int | None) -> None:
    theirs = DroppedFile.connection_id == connection.id
    unconfirmed = (
        select(Batch).join(DroppedFile, DroppedFile.batch_id == Batch.id).where(theirs, Batch.state.in_(UNCONFIRMED))
    )
    for batch in db.session.scalars(unconfirmed).all():
        with suppress(NotPossible):  # somebody was quicker
            discard(batch, user_id)
    here = theirs, IN_HAND | IS_KEPT
    left = {"state": FileState.ENDED, "ended_at": now(), "kept_until": None, "kept_as": None, "trouble": None}
    db.session.execute(update(DroppedFile).where(*here).values(left))


def look_soon(connection: SftpConnection) -> None:
    """As soon as a worker is free, whatever the schedule says. Raises NotPossible."""
    if connection.paused_at:
        raise NotPossible("It is paused. Start picking up first.")
    connection.next_look_at = now()


def pause(connection: SftpConnection) -> None:
    """No look is begun and no batch goes on by itself until it is resumed; one that runs already goes on."""
    connection.paused_at = now()


def resume(connection: SftpConnection) -> None:
    """Look again, at once. Raises NotPossible."""
    if not connection.host_keys:
        raise NotPossible("Pin a host key of the server first.")
    connection.paused_at, connection.failing_since, connection.failures = None, None, 0
    connection.next_look_at = now()


def worries(connection: SftpConnection) -> list[str]:
    """Why somebody should look at this connection; empty when nobody need."""
    found = []
    if connection.paused_at:
        return found
    if not connection.host_keys:
        found.append("has no host key pinned")
    if connection.failing_since and connection.failing_since < now() - FAILING_FOR:
        found.append("has failed for long")
    if connection.silent_hours and _last_heard(connection) < now() - timedelta(hours=connection.silent_hours):
        found.append(f"has brought no file for more than {connection.silent_hours} hours")
    if unusable := _unusable(connection):
        files = "file" if unusable == 1 else "files"
        found.append(f"has brought {unusable:,} {files} since yesterday that cannot be used")
    if alone := connection.left_alone:
        found.append(f"leaves {alone:,} {'entry' if alone == 1 else 'entries'} in the folder alone")
    return found


def worrying() -> int:
    """How many connections somebody should look at."""
    return sum(bool(worries(connection)) for connection in every())


def _unusable(connection: SftpConnection) -> int:
    """How many files since yesterday were refused, or have no row with an e-mail address."""
    refused = DroppedFile.batch_id.is_(None) & DroppedFile.refusal.is_not(None)
    invalid = exists().where(Batch.id == DroppedFile.batch_id, Chunk.batch_id == Batch.id, Chunk.invalid == Batch.rows)
    return _count(connection, DroppedFile.ended_at > now() - A_DAY, refused | invalid)


def _last_heard(connection: SftpConnection):
    return connection.last_file_at or connection.created_at
