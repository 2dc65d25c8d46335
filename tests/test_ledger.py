"""Who was purged is known again by their address, and kept by nobody."""

import hmac
from unittest.mock import Mock

import pytest
from sqlalchemy import delete, func, insert, select, text, update

from jobs import health
from purge import batches, schema
from purge.batches import Outcome, State
from purge.cli.setup import add_user, upgrade_schema
from purge.evidence.keys import hmac_sha256
from purge.evidence.ledger import LedgerEntry, entries
from purge.extensions import db, now, reading
from purge.models import Customer, Role, User
from tests.people import add_customer, refuse
from tests.test_batches import checked, confirmed, counts, finished, opened, outcomes, work

PAGE = "/was-this-person-purged"


def add_user_id() -> int:
    add_user("ann.admin@company.com", Role.ADMIN)
    return db.session.scalar(select(User.id))


def test_a_purge_is_entered_once_under_the_key_that_is_not_in_the_database(app):
    add_customer("Ann@people.com")
    batch = finished("ann@PEOPLE.com", "nobody@people.com")
    wanted = hmac.new(app.config["LEDGER_KEY"], b"ann@people.com", "sha256").digest()
    assert db.session.execute(select(LedgerEntry.fingerprint, LedgerEntry.batch_id)).all() == [(wanted, batch.id)]


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 200])
def test_our_hmac_is_everybodys(dice, length):
    key = dice.randbytes(length)
    for size in (0, 1, 55, 56, 64, 320):
        message = dice.randbytes(size)
        assert hmac_sha256(key)(message) == hmac.digest(key, message, "sha256")


def test_nobody_goes_on_with_a_ledger_under_another_key(app):
    """What they wrote nobody could find, and whom they looked for would be unknown to them."""
    assert not lacks()
    app.config["LEDGER_KEY"] = b"another" * 5
    assert "LEDGER_KEY" in lacks()
    upgrade_schema()
    assert not lacks()  # nobody stands in it yet
    add_customer("ann@people.com")
    finished("ann@people.com")
    app.config["LEDGER_KEY"] = b"a third" * 5
    upgrade_schema()
    assert "LEDGER_KEY" in lacks()
    upgrade_schema(another_ledger_key=True)
    assert not lacks()


def lacks() -> str:
    with reading(), db.engine.connect() as connection:
        return " ".join(schema.misfits(connection))


def test_what_was_checked_under_another_key_is_not_carried_out(app):
    """Everybody in it would be taken for one whose address has changed; of a file whose check is under way every row is read anew."""
    for number in range(3):
        add_customer(f"p{number}@people.com")
    ready, running, checking = checked("p0@people.com"), confirmed("p1@people.com"), opened("p2@people.com")
    batches.map_fields(checking, 0, False)

    def with_another_key() -> bool:
        app.config["LEDGER_KEY"] = b"another" * 5
        upgrade_schema()
        return True

    work(batches.check, checking, keep_going=with_another_key)
    assert (ready.state, running.state, checking.state) == (State.DISCARDED, State.CANCELLING, State.CHECKING)
    work(batches.run, running)
    work(batches.check, checking)
    batches.confirm(checking, checking.plan_digest)
    work(batches.run, checking)
    assert counts(running) == {Outcome.CANCELLED: 1} and counts(checking) == {Outcome.PURGED: 1}
    assert sorted(db.session.scalars(select(Customer.email))) == ["p0@people.com", "p1@people.com"]


def test_another_key_and_the_end_of_what_waits_are_one_thing(app, monkeypatch):
    add_customer("ann@people.com")
    finished("ann@people.com")
    add_customer("ben@people.com")
    batch = confirmed("ben@people.com")
    db.session.commit()
    app.config["LEDGER_KEY"] = b"another" * 5
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("purge.cli.setup.audit.begin", Mock(side_effect=KeyboardInterrupt))
        upgrade_schema(another_ledger_key=True)
    assert "LEDGER_KEY" in lacks() and batch.state is State.RUNNING
    db.session.commit()
    upgrade_schema(another_ledger_key=True)
    work(batches.run, batch)
    assert counts(batch) == {Outcome.CANCELLED: 1}


def test_told_again_to_take_the_key_that_it_has_nothing_is_ended(app):
    add_customer("ann@people.com"), add_customer("ben@people.com")
    finished("ann@people.com")
    batch = confirmed("ben@people.com")
    upgrade_schema(another_ledger_key=True)
    work(batches.run, batch)
    assert counts(batch) == {Outcome.PURGED: 1}


def test_a_ledger_that_somebody_changed_is_found_out(app, signed_in):
    add_customer("ann@people.com")
    person = db.session.scalar(select(Customer.id))
    batch_id = finished("ann@people.com", "nobody@people.com").id
    assert entries_are_whole()
    db.session.execute(insert(LedgerEntry).values(fingerprint=b"x" * 32, batch_id=batch_id, purged_at=now()))
    assert not entries_are_whole()
    db.session.execute(delete(LedgerEntry))
    assert not entries_are_whole()
    assert signed_in().get(f"/customers/{person}").status_code == 410


def entries_are_whole() -> bool:
    db.session.commit()
    return {finding.name: finding for finding in health.look(closely=True)}["ledger"].is_well


def test_a_deletion_that_is_rolled_back_is_not_entered(app):
    add_customer("ann@people.com")
    refuse("DELETE", "customer")
    finished("ann@people.com")
    assert db.session.scalar(select(func.count()).select_from(LedgerEntry)) == 0


def test_without_its_entry_nobody_is_deleted(app):
    add_customer("ann@people.com")
    batch = confirmed("ann@people.com")
    refuse("INSERT", "ledger_entry")
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
    assert len(entries("ann@people.com")[0]) == 2


def test_the_page_answers_when_and_by_which_batch_and_does_not_repeat_the_address(app, signed_in):
    add_customer("ann@people.com")
    batch = finished("ann@people.com")
    batch_id = batch.id
    db.session.commit()
    viewer = signed_in(Role.VIEWER)
    yes = viewer.post(PAGE, {"address": " ANN@people.com "}, page=PAGE)
    assert yes.status_code == 200 and f"batch {batch_id}" in yes.text and "CSV upload" in yes.text
    assert "ann@" not in yes.text.lower()
    no = viewer.post(PAGE, {"address": "ben@people.com"}, page=PAGE)
    assert no.status_code == 200 and "No record" in no.text and 'value="ben@people.com"' in no.text


def test_who_has_the_address_today_is_told_beside_who_was_purged(app, signed_in):
    browser, here = signed_in(Role.VIEWER), "A customer with this address is here today"
    add_customer("ann@people.com")
    add_customer("ben@people.com")
    finished("ann@people.com")
    db.session.commit()
    gone = browser.post(PAGE, {"address": "ann@people.com"}, page=PAGE).text
    assert "<h2>Yes</h2>" in gone and here not in gone
    add_customer("ann@people.com")
    db.session.commit()
    back = browser.post(PAGE, {"address": "Ann <ANN@people.com>"}, page=PAGE).text
    assert "<h2>Yes</h2>" in back and f"{here}: they signed up again" in back
    never = browser.post(PAGE, {"address": "ben@people.com"}, page=PAGE).text
    assert "No record" in never and f"{here}." in never
    assert here not in browser.post(PAGE, {"address": "cat@people.com"}, page=PAGE).text + browser.get(PAGE).text


PASTED = [
    "Ann Ray <ann@people.com>",
    "mailto:ann@people.com",
    "ann@people.com,",
    "\u202aann@people.com\u202c\u200b",
    "<ANN@PEOPLE.com>.",
]


@pytest.mark.parametrize("pasted", PASTED)
def test_an_address_pasted_from_elsewhere_is_looked_up_without_what_stands_around_it(app, signed_in, pasted):
    add_customer("ann@people.com")
    finished("ann@people.com")
    db.session.commit()
    assert "<h2>Yes</h2>" in signed_in(Role.VIEWER).post(PAGE, {"address": pasted}, page=PAGE).text


@pytest.mark.parametrize("typed", ["nonsense", "ann＠people.com", "ann@people.com, ben@people.com", "C-77"])
def test_what_is_no_address_is_said_to_be_none_and_not_that_nobody_was_purged(app, signed_in, typed):
    answer = signed_in(Role.VIEWER).post(PAGE, {"address": typed}, page=PAGE)
    assert answer.status_code == 422 and "cannot be read as an address" in answer.text
    assert "No record" not in answer.text and f'value="{typed}"' in answer.text


@pytest.mark.parametrize(
    "written", ["bücher@bücher.example.com", "bücher@xn--bcher-kva.example.com", "bu\u0308cher@Bücher.example.com"]
)
def test_every_writing_of_one_address_gets_the_same_answer(app, signed_in, written):
    add_customer("bücher@bücher.example.com")
    finished("bücher@bücher.example.com")
    assert len(entries(written)[0]) == 1


def test_somebody_whose_stored_address_is_none_is_known_again_by_its_text(app, signed_in):
    person = add_customer("ann@people.com")
    db.session.execute(update(Customer).values(email="weird@shop.test", email_key="weird@shop.test"))
    customer = db.session.get(Customer, person)
    batch = batches.open_single(customer, batches.preview_single(customer).digest, add_user_id())
    work(batches.run, batch)
    found, problem = entries("Weird@shop.test")
    assert len(found) == 1 and problem
