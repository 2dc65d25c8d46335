"""Batch, purge request and chunk: what was asked for, and what came of it."""

from calendar import monthrange
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, LargeBinary, String, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from purge.erasure.map import keep
from purge.extensions import db, now
from purge.models import User

ACCOUNT = keep("what a batch did; names nobody")
SEALED = keep("sealed under a key that is not in the database, and destroyed when the check ends")


FORGOTTEN_AFTER = timedelta(days=7)  # a file nobody confirmed is a list of people lying about


class Door(StrEnum):
    FORM = "form"
    CSV = "csv"
    SFTP = "sftp"
    CLI = "cli"
    RESTORE = "restore"

    @property
    def words(self) -> str:
        return _DOOR_WORDS[self]

    @property
    def means_one(self) -> bool:
        """Whether its requests mean one customer by their id, whoever else has the same address."""
        return self in (Door.FORM, Door.RESTORE)


_DOOR_WORDS = {
    Door.FORM: "the customer’s page",
    Door.CSV: "CSV upload",
    Door.SFTP: "SFTP",
    Door.CLI: "the command line",
    Door.RESTORE: "copies of the ledger",
}


class State(StrEnum):
    UPLOADED = "uploaded"
    CHECKING = "checking"
    READY = "ready"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    FINISHED = "finished"
    REFUSED = "refused"
    DISCARDED = "discarded"

    @property
    def words(self) -> str:
        return {"uploaded": "waiting for its mapping", "ready": "waiting for a yes"}.get(self.value, self.value)


class Outcome(StrEnum):
    PURGED = "purged"
    NOT_FOUND = "not_found"
    INVALID = "invalid"
    DUPLICATE = "duplicate"
    ALREADY_PURGED = "already_purged"
    CHANGED = "changed"
    HELD = "held"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def words(self) -> str:
        return self.value.replace("_", " ")


class Reason(StrEnum):
    """Why a request ended as it did, beside the reasons an address can be invalid (purge.email_address.Problem)."""

    RAGGED = "ragged"
    OTHER_TYPE = "other_type"
    SHARED_ADDRESS = "shared_address"
    ADDRESS_CHANGED = "address_changed"
    GONE = "gone"
    DELETED_ELSEWHERE = "deleted_elsewhere"
    PURGED_BEFORE = "purged_before"
    DATABASE_REFUSED = "database_refused"

    @property
    def words(self) -> str:
        return _REASON_WORDS[self]


_REASON_WORDS = {
    Reason.RAGGED: "not as many cells as the header",
    Reason.OTHER_TYPE: "its type is not purge",
    Reason.SHARED_ADDRESS: "more than one customer has this address",
    Reason.ADDRESS_CHANGED: "the customer's address changed after the check",
    Reason.GONE: "another batch purged this customer first",
    Reason.DELETED_ELSEWHERE: "deleted after the check, and not by a batch",
    Reason.PURGED_BEFORE: "an earlier batch purged this customer",
    Reason.DATABASE_REFUSED: "the database refused to delete this customer",
}


class Ground(StrEnum):
    """Why one customer is purged. No free text: it would outlive them, with their name in it."""

    PRIVACY_REQUEST = "privacy_request"
    ACCOUNT_CLOSED = "account_closed"
    MADE_BY_MISTAKE = "made_by_mistake"
    TEST_DATA = "test_data"
    OTHER = "other"

    @property
    def words(self) -> str:
        return _GROUND_WORDS[self]


_GROUND_WORDS = {
    Ground.PRIVACY_REQUEST: "Privacy request (GDPR, CCPA …)",
    Ground.ACCOUNT_CLOSED: "The customer closed their account",
    Ground.MADE_BY_MISTAKE: "Made twice, or by mistake",
    Ground.TEST_DATA: "A test, no real person",
    Ground.OTHER: "Another reason",
}


def due(asked_on: date) -> date:
    """One calendar month after the request, or that month's last day (GDPR 12(3); Regulation 1182/71, 3(2)(c))."""
    year, month = (asked_on.year + 1, 1) if asked_on.month == 12 else (asked_on.year, asked_on.month + 1)
    return date(year, month, min(asked_on.day, monthrange(year, month)[1]))


class NotPossible(Exception):
    """The batch is not in a state to do this; str() is one sentence for the admin."""


class ChunkState(StrEnum):
    WAITING = "waiting"
    DONE = "done"


class Batch(db.Model):
    """Purge requests that came in together through one door."""

    __tablename__ = "batch"
    __table_args__ = {"sqlite_autoincrement": True, "info": ACCOUNT}

    id: Mapped[int] = mapped_column(primary_key=True, info=ACCOUNT)
    door: Mapped[Door] = mapped_column(info=ACCOUNT)
    state: Mapped[State] = mapped_column(default=State.UPLOADED, index=True, info=ACCOUNT)
    refusal: Mapped[str | None] = mapped_column(String(300), info=ACCOUNT)  # why, in one sentence
    # Of the file; a batch of one customer has none.
    file_name: Mapped[str | None] = mapped_column(
        String(200), info=keep("anything in it that looks like an address is masked; forgotten a month after the end")
    )
    file_bytes: Mapped[int | None] = mapped_column(BigInteger, info=ACCOUNT)
    content_digest: Mapped[bytes | None] = mapped_column(
        LargeBinary(32), index=True, info=keep("keyed; knows a file seen before")
    )
    encoding: Mapped[str | None] = mapped_column(String(20), info=ACCOUNT)
    encoding_agreed: Mapped[bool] = mapped_column(
        default=True, info=ACCOUNT
    )  # False: somebody must say yes to `encoding`
    delimiter: Mapped[str | None] = mapped_column(String(1), info=ACCOUNT)
    email_column: Mapped[int | None] = mapped_column(info=ACCOUNT)  # counted from 0
    # Of a dropped file: the column that says “purge” in every row; counted from 0.
    type_column: Mapped[int | None] = mapped_column(info=ACCOUNT)
    is_dry: Mapped[bool] = mapped_column(default=False, info=ACCOUNT)  # only to be checked and answered
    # Why it does not run by itself whatever its size, in a sentence for whoever says yes.
    caution: Mapped[str | None] = mapped_column(String(300), info=ACCOUNT)
    rows: Mapped[int] = mapped_column(info=ACCOUNT)  # data rows in the file
    blank_rows: Mapped[int] = mapped_column(default=0, info=ACCOUNT)

    ground: Mapped[Ground | None] = mapped_column(info=ACCOUNT)
    asked_on: Mapped[date | None] = mapped_column(info=ACCOUNT)  # when the customer asked

    created_by_id: Mapped[int | None] = mapped_column(ForeignKey("user.id"), index=True, info=ACCOUNT)
    created_at: Mapped[datetime] = mapped_column(default=now, info=ACCOUNT)

    # A check names itself here; one that was overtaken finds another's name and stops.
    check_token: Mapped[str | None] = mapped_column(String(32), info=ACCOUNT)
    check_attempts: Mapped[int] = mapped_column(default=0, info=ACCOUNT)
    checked_rows: Mapped[int] = mapped_column(default=0, info=ACCOUNT)
    moved_at: Mapped[datetime] = mapped_column(default=now, info=ACCOUNT)

    # What the review shows, and a digest of it and of every customer frozen; the confirmation repeats the digest.
    planned: Mapped[int | None] = mapped_column(info=ACCOUNT)  # customers to delete
    customers: Mapped[int | None] = mapped_column(info=ACCOUNT)  # there were, at the check; None: too many to count
    falls: Mapped[dict[str, Any] | None] = mapped_column(JSON, info=ACCOUNT)  # as erasure.count says it
    plan_digest: Mapped[str | None] = mapped_column(String(64), info=ACCOUNT)

    confirmed_by_id: Mapped[int | None] = mapped_column(ForeignKey("user.id"), index=True, info=ACCOUNT)
    confirmed_at: Mapped[datetime | None] = mapped_column(info=ACCOUNT)
    # Who cancelled the rest, or threw it away.
    stopped_by_id: Mapped[int | None] = mapped_column(ForeignKey("user.id"), index=True, info=ACCOUNT)
    finished_at: Mapped[datetime | None] = mapped_column(info=ACCOUNT)
    cleared_at: Mapped[datetime | None] = mapped_column(info=ACCOUNT)  # the database's files hold no trace since

    created_by: Mapped[User | None] = relationship(foreign_keys=created_by_id)
    confirmed_by: Mapped[User | None] = relationship(foreign_keys=confirmed_by_id)
    stopped_by: Mapped[User | None] = relationship(foreign_keys=stopped_by_id)

    @property
    def due_on(self) -> date | None:
        """By when a privacy request must be answered."""
        return due(self.asked_on) if self.asked_on and self.ground is Ground.PRIVACY_REQUEST else None

    @property
    def forgotten_at(self) -> datetime:
        """When it is thrown away, if nobody confirms it."""
        return self.created_at + FORGOTTEN_AFTER


class UploadPart(db.Model):
    """A piece of an uploaded file, sealed; gone when the check ends."""

    __tablename__ = "upload_part"
    __table_args__ = {"info": SEALED}

    batch_id: Mapped[int] = mapped_column(ForeignKey("batch.id"), primary_key=True, info=SEALED)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, info=SEALED)
    sealed: Mapped[bytes] = mapped_column(LargeBinary, info=SEALED)


class Chunk(db.Model):
    """A run of a batch's requests, by customer id, that one transaction carries out. Number 0 holds what the check settled."""

    __tablename__ = "chunk"

    id: Mapped[int] = mapped_column(primary_key=True, info=ACCOUNT)
    batch_id: Mapped[int] = mapped_column(ForeignKey("batch.id"), info=ACCOUNT)
    state: Mapped[ChunkState] = mapped_column(info=ACCOUNT)
    first_customer_id: Mapped[int | None] = mapped_column(info=keep("a bound; the id is never given again"))
    last_customer_id: Mapped[int | None] = mapped_column(info=keep("a bound; the id is never given again"))
    requests: Mapped[int] = mapped_column(info=ACCOUNT)
    started_at: Mapped[datetime | None] = mapped_column(info=ACCOUNT)
    finished_at: Mapped[datetime | None] = mapped_column(info=ACCOUNT)
    erased: Mapped[dict[str, Any] | None] = mapped_column(JSON, info=ACCOUNT)  # as erasure.erase says it

    purged: Mapped[int] = mapped_column(default=0, info=ACCOUNT)
    not_found: Mapped[int] = mapped_column(default=0, info=ACCOUNT)
    invalid: Mapped[int] = mapped_column(default=0, info=ACCOUNT)
    duplicate: Mapped[int] = mapped_column(default=0, info=ACCOUNT)
    already_purged: Mapped[int] = mapped_column(default=0, info=ACCOUNT)
    changed: Mapped[int] = mapped_column(default=0, info=ACCOUNT)
    held: Mapped[int] = mapped_column(default=0, info=ACCOUNT)
    failed: Mapped[int] = mapped_column(default=0, info=ACCOUNT)
    cancelled: Mapped[int] = mapped_column(default=0, info=ACCOUNT)

    __table_args__ = (Index("ix_chunk_batch_id_state", "batch_id", "state", "first_customer_id"), {"info": ACCOUNT})


class PurgeRequest(db.Model):
    """The asking-away of one customer, one per row of the file, and what came of it (no outcome: pending)."""

    __tablename__ = "purge_request"

    # No foreign key: PostgreSQL would look the batch up for each row, and whoever writes the rows has it locked.
    batch_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, info=ACCOUNT)
    row_number: Mapped[int] = mapped_column(
        primary_key=True, autoincrement=False, info=ACCOUNT
    )  # as a spreadsheet counts
    # The address, as the ledger keeps it: keyed, so that it says whose it is only to one who asks with the address.
    fingerprint: Mapped[bytes | None] = mapped_column(
        LargeBinary(32), info=keep("keyed; the key is not in the database")
    )
    # Frozen at the check. No foreign key: it outlives the customer, so that the profile's address can say that they were purged.
    customer_id: Mapped[int | None] = mapped_column(
        info=keep("a number that is never given again; says whose only to one who has an older copy of the table")
    )
    outcome: Mapped[Outcome | None] = mapped_column(info=ACCOUNT)
    reason: Mapped[str | None] = mapped_column(String(40), info=ACCOUNT)

    __table_args__ = (
        Index(
            "ix_purge_request_batch_id_customer_id",
            "batch_id",
            "customer_id",
            sqlite_where=text("customer_id IS NOT NULL"),
            postgresql_where=text("customer_id IS NOT NULL"),
        ),
        {"sqlite_with_rowid": False, "info": ACCOUNT},
    )
