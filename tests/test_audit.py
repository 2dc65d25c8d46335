"""The audit trail: everything that is done leaves an event, and nothing in it or in the ledger is changed unseen."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from jobs import health
from purge import batches
from purge.batches import NotPossible, Outcome, State
from purge.cli.setup import add_user, init_db, upgrade_schema
from purge.evidence import audit
from purge.evidence.audit import Act, AuditEvent
from purge.evidence.ledger import LedgerEntry
from purge.extensions import db, now, reading
from purge.models import Customer, Role
from tests.people import add_customer, refuse
from tests.test_batches import checked, confirmed, finished, opened, outcomes, work
from tests.test_connections import FIELDS
from tests.test_pages import at_progress, at_review, plan

PAGE = "/audit-trail"


def told(*conditions) -> list[tuple[Act, int | None]]:
    """What was done, and by which account, the oldest first."""
    db.session.rollback()
    asked = select(AuditEvent.act, AuditEvent.user_id).where(AuditEvent.act != Act.BEGUN, *conditions)
    return [tuple(row) for row in db.session.execute(asked.order_by(AuditEvent.number))]


def flaw() -> str | None:
    with reading(), db.engine.connect() as connection:
        return audit.flaw(connection)


def words(answer) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text))


def test_a_batch_tells_who_did_what_to_it(app, signed_in):
    browser = signed_in()
    url = at_progress(browser)
    for act in ("pause", "resume", "pause", "cancellation"):
        browser.post(f"{url}/{act}", page=f"{url}/progress")
    batch_id = int(url.rpartition("/")[2])
    db.session.commit()
    batches.run(batch_id)
    (who,) = db.session.scalars(select(AuditEvent.user_id).where(AuditEvent.act == Act.OPENED))
    steps = [Act.OPENED, Act.CONFIRMED, Act.PAUSED, Act.RESUMED, Act.PAUSED, Act.CANCELLED]
    wanted = [*((act, who) for act in steps), (Act.CHUNK, None), (Act.FINISHED, None)]
    assert told(AuditEvent.batch_id == batch_id) == wanted and who
    assert flaw() is None


def test_what_was_not_possible_leaves_no_event(app):
    batch = opened("ann@people.com")
    with pytest.raises(NotPossible):
        batches.pause(batch)
    db.session.rollback()
    batches.discard(batch)
    db.session.rollback()  # as when the commit fails
    db.session.commit()
    assert told() == [(Act.OPENED, None)]


def test_without_its_event_nobody_is_deleted(app):
    for name in ("ann", "ben"):
        add_customer(f"{name}@people.com")
    batch = confirmed("ann@people.com", "ben@people.com")
    refuse("INSERT", "audit_event")
    with pytest.raises(DBAPIError):
        work(batches.run, batch)
    assert db.session.scalar(select(func.count()).select_from(Customer)) == 2
    assert outcomes(batch) == {2: None, 3: None}
    assert db.session.scalar(select(func.count()).select_from(LedgerEntry)) == 0
    db.session.execute(text(f"DROP TRIGGER refused{'' if is_sqlite() else ' ON audit_event'}"))
    work(batches.run, batch)
    assert outcomes(batch) == {2: Outcome.PURGED, 3: Outcome.PURGED} and flaw() is None


def is_sqlite() -> bool:
    return db.engine.dialect.name == "sqlite"


def test_a_chunk_tells_what_it_did(app):
    ids = [add_customer(f"person{number}@people.com") for number in range(3)]
    batch = confirmed(*(f"person{number}@people.com" for number in range(3)))
    db.session.execute(update(Customer).where(Customer.id == ids[1]).values(email_key="other@people.com"))
    work(batches.run, batch)
    (facts,) = db.session.scalars(select(AuditEvent.facts).where(AuditEvent.act == Act.CHUNK))
    assert facts["outcomes"] == {"purged": 2, "changed": 1} and facts["erased"]["customer"] == 2


CHANGES = {
    "another count": update(AuditEvent)
    .where(AuditEvent.act == Act.CHUNK)
    .values(facts={"outcomes": {}, "ledger": "0"}),
    "another user": update(AuditEvent).where(AuditEvent.act == Act.CONFIRMED).values(user_id=1),
    "another time": update(AuditEvent).where(AuditEvent.act == Act.FINISHED).values(at=now() - timedelta(days=9)),
    "another act": update(AuditEvent).where(AuditEvent.act == Act.CONFIRMED).values(act=Act.RESUMED),
    "another batch": update(AuditEvent).where(AuditEvent.act == Act.OPENED).values(batch_id=7),
    "another seal": update(AuditEvent).where(AuditEvent.act == Act.OPENED).values(seal=b"x" * 32),
    "one is missing": delete(AuditEvent).where(AuditEvent.act == Act.CONFIRMED),
    "the first is missing": delete(AuditEvent).where(AuditEvent.number == 1),
    "the last is missing": delete(AuditEvent).where(AuditEvent.act == Act.FINISHED),
    "one is made up": insert(AuditEvent).values(number=99, at=now(), act=Act.PAUSED, facts={}, seal=b"x" * 32),
    "all are missing": delete(AuditEvent),
    "a date in the ledger": update(LedgerEntry).values(purged_at=now() - timedelta(days=9)),
    "a person in the ledger": update(LedgerEntry).values(fingerprint=b"x" * 32),
    "nobody in the ledger": delete(LedgerEntry),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_in_the_database_is_found_out(app, change):
    add_user("ann.admin@company.com", Role.ADMIN)
    add_customer("ann@people.com")
    finished("ann@people.com", "nobody@people.com")
    assert is_well()
    db.session.execute(CHANGES[change])
    assert not is_well()


def is_well() -> bool:
    db.session.commit()
    return {finding.name: finding for finding in health.look(closely=True)}["audit"].is_well


def test_events_that_changed_places_are_found_out(app):
    checked("nobody@people.com")
    numbers = list(db.session.scalars(select(AuditEvent.number).order_by(AuditEvent.number)))
    first, second = numbers[-2:]
    for number, to in ((first, 1_000), (second, first), (1_000, second)):
        db.session.execute(update(AuditEvent).where(AuditEvent.number == number).values(number=to))
    assert not is_well()


def test_a_chunk_that_commits_while_all_is_read_raises_no_alarm(app, monkeypatch):
    for name in ("ann", "ben"):
        add_customer(f"{name}@people.com")
    finished("ann@people.com")
    batch = confirmed("ben@people.com")
    batch_id, read_ledger = batch.id, audit.ledger.digest_of_all
    db.session.commit()

    def read_late(connection):
        with ThreadPoolExecutor() as other:
            other.submit(run_there, app, batch_id).result()
        return read_ledger(connection)

    monkeypatch.setattr(audit.ledger, "digest_of_all", read_late)
    assert flaw() is None
    assert db.session.scalar(select(func.count()).select_from(LedgerEntry)) == 2


def test_a_chunk_that_commits_while_the_trail_begins_anew_is_in_it(app, monkeypatch):
    add_customer("ben@people.com")
    batch_id, read_ledger = confirmed("ben@people.com").id, audit.ledger.digest_of_all
    db.session.commit()
    with ThreadPoolExecutor() as other:
        running = []

        def read_while_it_runs(connection):
            found = read_ledger(connection)
            running.append(other.submit(run_there, app, batch_id))
            time.sleep(1)
            return found

        with monkeypatch.context() as patched, db.engine.begin() as connection:
            patched.setattr(audit.ledger, "digest_of_all", read_while_it_runs)
            audit.begin(connection)
        running[0].result()
    assert db.session.scalar(select(func.count()).select_from(LedgerEntry)) == 1 and flaw() is None


def run_there(app, batch_id: int) -> None:
    with app.app_context():
        batches.run(batch_id)


def test_of_many_who_act_at_once_each_has_their_event(app):
    def act(_):
        with app.app_context():
            for _ in range(10):
                with db.engine.begin() as connection:
                    audit.append(connection, Act.PAUSED)

    db.session.commit()
    with ThreadPoolExecutor(4) as crowd:
        list(crowd.map(act, range(4)))
    assert len(told()) == 40 and flaw() is None


def test_a_ledger_from_before_the_trail_is_in_it(app):
    """As after the upgrade that brings the trail."""
    add_customer("ann@people.com")
    batch_id = finished("ann@people.com").id
    db.session.execute(delete(AuditEvent))
    db.session.commit()
    assert not is_well()
    upgrade_schema()
    assert is_well() and batches.receipt(batch_id) is None
    db.session.execute(update(LedgerEntry).values(purged_at=now() - timedelta(days=9)))
    assert not is_well()


def test_another_key_begins_it_anew(app):
    checked("nobody@people.com")
    app.config["LEDGER_KEY"] = b"another" * 5
    assert "is not what was written" in flaw()
    upgrade_schema()
    checked("nobody@people.com")
    assert flaw() is None and is_well()


def test_somebody_who_knows_can_go_on_with_what_was_changed(app):
    add_customer("ann@people.com")
    finished("ann@people.com")
    db.session.execute(delete(LedgerEntry))
    assert not is_well()
    assert app.test_cli_runner().invoke(init_db, ["--accept-ledger"]).exit_code == 0
    assert is_well()


def test_connections_and_accounts_tell_too(app, signed_in):
    admin = signed_in(Role.ADMIN)
    every = "/settings/sftp-connections"
    page = admin.post(every, FIELDS, page=f"{every}/new").location
    admin.post(f"{page}/edit", {**FIELDS, "runs_up_to": "500"}, page=f"{page}/edit")
    admin.post(f"{page}/host-keys", page=page)
    admin.post(f"{page}/resume", page=page)  # is refused: no key is pinned
    admin.post(f"{page}/remove", page=page)
    email = add_user("ben@company.com", Role.VIEWER) and "ben@company.com"
    app.test_cli_runner().invoke(args=["users", "change", email, "--role", "operator"])
    app.test_cli_runner().invoke(args=["users", "change", email, "--close"])
    shown = words(admin.get(PAGE))
    for sentence in (
        "“The shop’s server”: added; up to 100 customers a file without a yes",
        "“The shop’s server”: changed (runs_up_to); up to 500 customers a file without a yes",
        "“The shop’s server”: host keys pinned: none",
        "“The shop’s server”: removed",
        "An account was added: ben@company.com, viewer",
        "An account was changed: ben@company.com, now operator",
        "An account was changed: ben@company.com, closed",
    ):
        assert sentence in shown
    assert "set to pick up" not in shown and flaw() is None


def test_the_page_shows_the_newest_first_and_chunks_on_demand(app, signed_in):
    browser = signed_in()
    add_customer("ann@people.com")
    db.session.commit()
    url = at_review(browser, "ann@people.com", "nobody@people.com")
    browser.post(f"{url}/confirmation", plan(browser, url), page=f"{url}/review")
    db.session.commit()
    batches.run(int(url.rpartition("/")[2]))
    shown = words(signed_in(Role.VIEWER).get(PAGE))
    assert "A chunk:" not in shown
    assert shown.index("Ended: 1 purged, 1 not found") < shown.index("The purge of 1 customer was confirmed")
    assert shown.index("was confirmed") < shown.index("Came in by CSV upload, 2 rows")
    assert "A chunk: 1 purged" in words(browser.get(f"{PAGE}?chunks=1"))


def test_the_page_marks_the_event_that_was_changed(app, signed_in):
    browser = signed_in()
    checked("nobody@people.com")
    assert "somebody has changed" not in words(browser.get(PAGE))
    db.session.execute(update(AuditEvent).where(AuditEvent.act == Act.OPENED).values(facts={"door": "csv", "rows": 9}))
    db.session.commit()
    assert words(browser.get(PAGE)).count("somebody has changed one of them") == 1


def test_a_long_trail_has_pages(app, signed_in):
    browser = signed_in()
    for _ in range(60):
        audit.record(Act.PAUSED, None, 1)
    db.session.commit()
    first = browser.get(PAGE)
    (older,) = re.findall(r'href="(/audit-trail\?before=\d+)">Older', first.text)
    numbers = [
        int(number) for page in (first, browser.get(older)) for number in re.findall(r'id="event-(\d+)"', page.text)
    ]
    assert numbers == list(range(max(numbers), 0, -1))


def test_a_batch_that_nobody_confirmed_says_that_it_was_thrown_away(app, signed_in):
    batch = opened("ann@people.com")
    batches.discard(batch)
    db.session.commit()
    assert batch.state is State.DISCARDED
    assert "Thrown away; nobody was deleted Batch 1 Purge itself" in words(signed_in().get(PAGE))
