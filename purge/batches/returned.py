"""After a restore from a backup: who had been purged since then, and is here again."""

from collections.abc import Mapping
from datetime import datetime
from itertools import chain

from sqlalchemy import Connection, select

from purge import email_address
from purge.evidence.ledger import fingerprinter
from purge.models import Customer


def returned(connection: Connection, purged: Mapping[bytes, datetime]) -> tuple[list[str], list[int]]:
    """Of the customers whose fingerprint is in `purged`, those who were there before that: their addresses, and the ids of
    such as no file can name, because they share an address or theirs is none."""
    fingerprint, ids = fingerprinter(), {}
    everybody = select(Customer.id, Customer.email_key, Customer.created_at).order_by(Customer.id)
    for id, key, created_at in connection.execute(everybody.execution_options(yield_per=5_000)):
        purged_at = purged.get(fingerprint(key))
        if purged_at and created_at <= purged_at:  # not who has come back by themselves
            ids.setdefault(key, []).append(id)
    by_hand = [theirs for key, theirs in ids.items() if len(theirs) > 1 or email_address.read(key)[1]]
    return list(ids), sorted(chain.from_iterable(by_hand))
