"""A connection to an SFTP server, and the files that were seen there."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, LargeBinary, String, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from purge.batches import Batch
from purge.erasure.map import keep
from purge.extensions import db, now

SETTING = keep("how the app reaches a server; names no customer")
ACCOUNT = keep("what a connection did; names nobody")


class SftpConnection(db.Model):
    """An SFTP server from whose folder files are picked up."""

    __tablename__ = "sftp_connection"
    __table_args__ = {"info": SETTING}

    id: Mapped[int] = mapped_column(primary_key=True, info=SETTING)
    name: Mapped[str] = mapped_column(String(100), info=SETTING)
    host: Mapped[str] = mapped_column(String(255), info=SETTING)
    port: Mapped[int] = mapped_column(default=22, info=SETTING)
    username: Mapped[str] = mapped_column(String(100), info=SETTING)
    private_key: Mapped[bytes] = mapped_column(LargeBinary, info=keep("sealed; never shown again"))
    public_key: Mapped[str] = mapped_column(String(2_000), info=SETTING)
    host_keys: Mapped[list[str]] = mapped_column(JSON, default=list, info=SETTING)  # pinned, as `type base64`
    folder: Mapped[str] = mapped_column(String(500), default=".", info=SETTING)
    every_seconds: Mapped[int] = mapped_column(default=60, info=SETTING)
    email_column: Mapped[str] = mapped_column(String(200), default="Customer Email", info=SETTING)
    runs_up_to: Mapped[int] = mapped_column(default=0, info=SETTING)  # customers a file may delete with nobody's yes
    keep_days: Mapped[int] = mapped_column(default=0, info=SETTING)  # in processed/; 0: removed
    silent_hours: Mapped[int | None] = mapped_column(info=SETTING)  # without a file for longer: its owner wants to know
    # As those who send files reach the server, where that differs.
    sender_host: Mapped[str | None] = mapped_column(String(255), info=SETTING)
    sender_port: Mapped[int | None] = mapped_column(info=SETTING)
    sender_username: Mapped[str | None] = mapped_column(String(100), info=SETTING)
    sender_folder: Mapped[str | None] = mapped_column(String(500), info=SETTING)
    is_embedded: Mapped[bool] = mapped_column(default=False, info=SETTING)  # the server that `make run` brings

    created_by_id: Mapped[int | None] = mapped_column(ForeignKey("user.id"), index=True, info=ACCOUNT)
    created_at: Mapped[datetime] = mapped_column(default=now, info=ACCOUNT)
    paused_at: Mapped[datetime | None] = mapped_column(info=ACCOUNT)
    removed_at: Mapped[datetime | None] = mapped_column(info=ACCOUNT)  # what it brought is still accounted for
    next_look_at: Mapped[datetime] = mapped_column(default=now, info=ACCOUNT)
    seen_at: Mapped[datetime | None] = mapped_column(info=ACCOUNT)  # last look that went well
    last_file_at: Mapped[datetime | None] = mapped_column(info=ACCOUNT)
    left_alone: Mapped[int] = mapped_column(default=0, info=ACCOUNT)  # entries that look like ours and are not
    failing_since: Mapped[datetime | None] = mapped_column(info=ACCOUNT)
    failures: Mapped[int] = mapped_column(default=0, info=ACCOUNT)  # in a row
    last_error: Mapped[str | None] = mapped_column(String(500), info=ACCOUNT)
    last_error_at: Mapped[datetime | None] = mapped_column(info=ACCOUNT)


class FileState(StrEnum):
    SEEN = "seen"
    CLAIMED = "claimed"  # it has a name of ours on the server
    TAKEN = "taken"  # what becomes of it is decided: by its batch, or by `refusal`
    ENDED = "ended"  # answered on the server


class DroppedFile(db.Model):
    """A file on a connection's server, from the first look to its answer."""

    __tablename__ = "dropped_file"

    id: Mapped[int] = mapped_column(primary_key=True, info=ACCOUNT)
    connection_id: Mapped[int] = mapped_column(ForeignKey("sftp_connection.id"), info=ACCOUNT)
    # As on the server until it is taken; from then on without anything in it that looks like an address.
    name: Mapped[str] = mapped_column(String(300), info=keep("masked once the file is taken; forgotten later"))
    is_dry: Mapped[bool] = mapped_column(default=False, info=ACCOUNT)  # by the name it came with
    size: Mapped[int] = mapped_column(BigInteger, info=ACCOUNT)
    changed: Mapped[int] = mapped_column(BigInteger, info=ACCOUNT)  # the server's seconds since 1970
    seen_at: Mapped[datetime] = mapped_column(default=now, info=ACCOUNT)  # first with this size and time
    state: Mapped[FileState] = mapped_column(default=FileState.SEEN, info=ACCOUNT)
    claim: Mapped[str | None] = mapped_column(String(32), info=ACCOUNT)
    attempts: Mapped[int] = mapped_column(default=0, info=ACCOUNT)  # in this state
    next_try_at: Mapped[datetime] = mapped_column(default=now, info=ACCOUNT)
    trouble: Mapped[str | None] = mapped_column(String(500), info=ACCOUNT)  # what keeps us from going on with it
    batch_id: Mapped[int | None] = mapped_column(ForeignKey("batch.id"), index=True, info=ACCOUNT)
    # What the connection allowed when the file was taken: to allow more later is no yes to a batch that waits.
    runs_up_to: Mapped[int | None] = mapped_column(info=ACCOUNT)
    refusal: Mapped[str | None] = mapped_column(String(500), info=ACCOUNT)  # why it went to failed/, in one sentence
    ended_at: Mapped[datetime | None] = mapped_column(info=ACCOUNT)
    kept_until: Mapped[datetime | None] = mapped_column(info=ACCOUNT)
    # Where, below the folder: in processed/ or failed/, and under a name that no other file has.
    kept_as: Mapped[str | None] = mapped_column(
        String(350), info=keep("masked like the name, and forgotten when it is gone")
    )

    connection: Mapped[SftpConnection] = relationship()
    batch: Mapped[Batch | None] = relationship()

    __table_args__ = (
        Index("ix_dropped_file_connection_id_state", "connection_id", "state", "name"),
        # A year of small files is a hundred thousand, and every page asks what came of yesterday's.
        Index("ix_dropped_file_connection_id_id", "connection_id", "id"),
        Index("ix_dropped_file_connection_id_ended_at", "connection_id", "ended_at"),
        Index(
            "ix_dropped_file_connection_id_kept_until",
            "connection_id",
            "kept_until",
            sqlite_where=text("kept_until IS NOT NULL"),
            postgresql_where=text("kept_until IS NOT NULL"),
        ),
        {"info": ACCOUNT},
    )


def claimed(claim: str) -> str:
    """A file's name on the server once it is ours."""
    return f".{claim}.claimed"
