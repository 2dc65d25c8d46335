"""After a restore from a backup: who had been purged since then, and is here again."""

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, insert, select

from purge.batches import ledger_copy
from purge.batches.block import COLUMNS
from purge.batches.check import draw_up, questions
from purge.batches.model import Batch, Door, PurgeRequest, State
from purge.evidence import audit
from purge.evidence.audit import Act
from purge.evidence.ledger import fingerprinter
from purge.extensions import db, giving_way, insert_rows
from purge.models import Customer


class Returned(NamedTuple):
    """Of the customers who are here, those who had been purged; `here` are ids and fingerprints."""

    here: list[tuple[int, bytes]]
    changed: list[int]  # with another address than they had then
    newer: list[int]  # with their address, and younger than their purge
    looked_at: int


def returned(connection: Connection, purged: Mapping[bytes, tuple[bytes, datetime]]) -> Returned:
    """Look for everybody by their id, and by their address too: who shares it with somebody purged was never purged.

    An id may have been given again since the restore, to somebody new.
    """
    person, fingerprint = ledger_copy.persons(), fingerprinter()
    here, changed, newer, looked_at = [], [], [], 0
    everybody = select(Customer.id, Customer.email_key, Customer.created_at).order_by(Customer.id)
    for id, key, created_at in connection.execute(everybody, execution_options={"yield_per": 5_000}):
        looked_at += 1
        entry = purged.get(person(id))
        if entry is None:
            continue
        is_theirs, is_newer = fingerprint(key) == entry[0], created_at > entry[1]
        if is_theirs and is_newer:
            newer.append(id)
        elif is_theirs:
            here.append((id, entry[0]))
        elif not is_newer:
            changed.append(id)
    return Returned(here, changed, newer, looked_at)


def open_returned(here: list[tuple[int, bytes]]) -> int:
    """The number of a new batch of these customers, frozen by their ids, that waits for its yes; all of it or nothing is stored.

    No two may have one fingerprint: the ledger has one entry for each in a batch.
    """
    token, rows = uuid.uuid4().hex, len(here)
    checked = {"state": State.CHECKING, "check_token": token, "rows": rows, "checked_rows": rows}
    with giving_way(db.engine), db.engine.begin() as connection:
        opened = insert(Batch).values(door=Door.RESTORE, **checked)
        batch_id = connection.execute(opened).inserted_primary_key[0]
        requests = ((batch_id, number, print, id, None, None) for number, (id, print) in enumerate(here, start=1))
        insert_rows(connection, PurgeRequest.__tablename__, COLUMNS, requests)
        if connection.dialect.name == "postgresql":  # or it would take them for few
            connection.exec_driver_sql("ANALYZE (SKIP_LOCKED) purge_request (batch_id, customer_id, outcome)")
        answers = [question(connection) for question in questions(batch_id, rows)]
        audit.append(connection, Act.OPENED, batch_id=batch_id, door=Door.RESTORE, rows=rows)
        draw_up(connection, batch_id, rows, token, answers)
    return batch_id
