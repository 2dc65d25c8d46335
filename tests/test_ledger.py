"""Who was purged is known again by their address, and kept by nobody."""

import hmac

from sqlalchemy import func, select, text

from purge import batches
from purge.batches import Outcome
from purge.evidence.ledger import LedgerEntry, entries
from purge.extensions import db
from purge.models import Role
from tests.people import add_customer
from tests.test_batches import checked, confirmed, finished, outcomes, work

PAGE = "/was-this-person-purged"


def test_a_purge_is_entered_once_under_the_key_that_is_not_in_the_database(app):
    add_customer("Ann@people.com")
    batch = finished("ann@PEOPLE.com", "nobody@people.com")
    wanted = hmac.new(app.config["LEDGER_KEY"], b"ann@people.com", "sha256").digest()
    assert db.session.execute(select(LedgerEntry.fingerprint, LedgerEntry.batch_id)).all() == [(wanted, batch.id)]


def test_a_deletion_that_is_rolled_back_is_not_entered(app):
    add_customer("ann@people.com")
    db.session.execute(text("CREATE TRIGGER no BEFORE DELETE ON customer BEGIN SELECT RAISE(ABORT, 'no'); END"))
    finished("ann@people.com")
    assert db.session.scalar(select(func.count()).select_from(LedgerEntry)) == 0


def test_without_its_entry_nobody_is_deleted(app):
    add_customer("ann@people.com")
    batch = confirmed("ann@people.com")
    db.session.execute(text("CREATE TRIGGER no BEFORE INSERT ON ledger_entry BEGIN SELECT RAISE(ABORT, 'no'); END"))
    work(batches.run, batch)
    assert outcomes(batch) == {2: Outcome.FAILED}
    assert db.session.scalar(text("SELECT count(*) FROM customer")) == 1


def test_who_was_purged_before_is_told_apart_from_who_never_was(app):
    add_customer("ann@people.com")
    finished("ann@people.com")
    batch = checked("ann@people.com", "nobody@people.com", "ann@people.com")
    assert outcomes(batch) == {2: Outcome.ALREADY_PURGED, 3: Outcome.NOT_FOUND, 4: Outcome.DUPLICATE}
    assert "an earlier batch purged this customer" in [reason for _, _, reason in batches.results(batch)]


def test_a_newcomer_with_a_purged_ones_address_can_be_purged_in_turn(app):
    for _ in range(2):
        add_customer("ann@people.com")
        finished("ann@people.com")
    assert len(entries("ann@people.com")) == 2


def test_the_page_answers_when_and_by_which_batch_and_does_not_repeat_the_address(app, signed_in):
    add_customer("ann@people.com")
    batch = finished("ann@people.com")
    batch_id = batch.id
    db.session.commit()
    viewer = signed_in(Role.VIEWER)
    yes = viewer.post(PAGE, {"address": " ANN@people.com "}, page=PAGE)
    assert yes.status_code == 200 and f"batch {batch_id}" in yes.text and "CSV upload" in yes.text
    no = viewer.post(PAGE, {"address": "ben@people.com"}, page=PAGE)
    assert "No record" in no.text and "No record" in viewer.post(PAGE, {"address": "nonsense"}, page=PAGE).text
    assert "people.com" not in (yes.text + no.text).lower()
