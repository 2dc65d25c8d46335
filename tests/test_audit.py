"""The audit trail: everything that is done leaves an event, and nothing in it or in the ledger is changed unseen."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from flask import current_app
from flask_migrate import downgrade
from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from jobs import health
from purge import batches
from purge.batches import Batch, NotPossible, Outcome, State
from purge.batches.model import Chunk, PurgeRequest
from purge.cli.setup import add_user, init_db, upgrade_schema
from purge.evidence import audit
from purge.evidence.audit import Act, AuditEvent
from purge.evidence.ledger import LedgerEntry, LedgerKey, OtherKey
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
    found = audit.events(AuditEvent.act != Act.BEGUN, *conditions, most=1_000)
    return [(event.act, event.by) for event in reversed(found)]


def facts_of(act: Act) -> dict:
    (event,) = audit.of_act(db.session.connection(), act)
    return event.facts


def retell(act: Act, old: str, new: str):
    """Somebody's hand in the text of an event."""
    return update(AuditEvent).where(AuditEvent.act == act).values(told=func.replace(AuditEvent.told, old, new))


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
    who = facts_of(Act.USER_ADDED)["account"]
    clicked = [(act, who) for act in (Act.CONFIRMED, Act.PAUSED, Act.RESUMED, Act.PAUSED, Act.CANCELLED)]
    came_in = [(Act.OPENED, who), (Act.MAPPED, who), (Act.CHECKED, None)]
    wanted = [*came_in, *clicked, (Act.CHUNK, None), (Act.FINISHED, None)]
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
    facts = facts_of(Act.CHUNK)
    assert facts["outcomes"] == {"purged": 2, "changed": 1} and facts["erased"]["customer"] == 2


MADE_UP = {"act": Act.PAUSED, "told": "{}", "seal": b"x" * 32}
A_LEDGER_ENTRY = {"fingerprint": b"x" * 32, "batch_id": 1}
CHANGES = {
    "another count": retell(Act.CHUNK, '"purged":1', '"purged":2'),
    "another user": retell(Act.CONFIRMED, '"by":null', '"by":1'),
    "another time": retell(Act.FINISHED, '"at":"20', '"at":"19'),
    "a name twice": retell(Act.OPENED, '"rows":2', '"rows":9,"rows":2'),
    "a number that is one otherwise": retell(Act.OPENED, '"rows":2', '"rows":2.0'),
    "another act": update(AuditEvent).where(AuditEvent.act == Act.CONFIRMED).values(act=Act.RESUMED),
    "an act that is none": update(AuditEvent).where(AuditEvent.act == Act.CONFIRMED).values(act="zzz"),
    "another batch": update(AuditEvent).where(AuditEvent.act == Act.OPENED).values(batch_id=7),
    "no batch": update(AuditEvent).where(AuditEvent.act == Act.OPENED).values(batch_id=None),
    "another seal": update(AuditEvent).where(AuditEvent.act == Act.OPENED).values(seal=b"x" * 32),
    "no seal": update(AuditEvent).where(AuditEvent.act == Act.OPENED).values(seal=b""),
    "no event": update(AuditEvent).where(AuditEvent.act == Act.OPENED).values(told="[1"),
    "one is missing": delete(AuditEvent).where(AuditEvent.act == Act.CONFIRMED),
    "the first is missing": delete(AuditEvent).where(AuditEvent.number == 1),
    "the last is missing": delete(AuditEvent).where(AuditEvent.act == Act.FINISHED),
    "one is made up": insert(AuditEvent).values(number=99, **MADE_UP),
    "one before the first is made up": insert(AuditEvent).values(number=0, **MADE_UP),
    "one far away is made up": insert(AuditEvent).values(number=2**62, **MADE_UP),
    "all are missing": delete(AuditEvent),
    "a date in the ledger": update(LedgerEntry).values(purged_at=now() - timedelta(days=9)),
    "a person in the ledger": update(LedgerEntry).values(fingerprint=b"x" * 32),
    "nobody in the ledger": delete(LedgerEntry),
    "somebody more in the ledger": insert(LedgerEntry).values(purged_at=now(), **A_LEDGER_ENTRY),
    "another outcome": update(PurgeRequest).values(outcome=Outcome.NOT_FOUND),
    "another count in a chunk": update(Chunk).values(not_found=7),
    "a batch that has ended and never was": insert(Batch).values(
        door="csv", state="finished", rows=1, created_at=now(), moved_at=now()
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_in_the_database_is_found_out(app, signed_in, change):
    add_user("ann.admin@company.com", Role.ADMIN)
    add_customer("ann@people.com")
    finished("ann@people.com", "nobody@people.com")
    assert is_well()
    db.session.execute(CHANGES[change])
    assert not is_well()
    browser = signed_in()
    for page in (PAGE, f"{PAGE}?chunks=1", "/batches/1/receipt", "/batches/1/summary"):
        assert browser.get(page).status_code in (200, 404), page


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
            audit.begin(connection, last_batch=0)
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
    run_migrations(down=True)
    run_migrations(down=False)
    assert is_well() and batches.receipt(db.session.get(Batch, batch_id)) is None
    db.session.execute(update(LedgerEntry).values(purged_at=now() - timedelta(days=9)))
    assert not is_well()


def run_migrations(down: bool) -> None:
    db.session.commit()
    if down:
        downgrade(directory=current_app.extensions["migrate"].directory, revision="0007")
    else:
        upgrade_schema()


def test_a_batch_that_ended_without_a_word_of_an_older_version_raises_no_alarm(app):
    """Its clock may have been ahead, or its worker have gone on while the schema was made."""
    batch_id = checked("nobody@people.com").id
    run_migrations(down=True)
    db.session.execute(update(Batch).values(finished_at=now() + timedelta(seconds=50)))
    run_migrations(down=False)
    assert is_well() and batches.receipt(db.session.get(Batch, batch_id)) is None


def test_another_key_begins_it_anew(app, signed_in):
    checked("nobody@people.com")
    browser = signed_in()
    app.config["LEDGER_KEY"] = b"another" * 5
    assert "under this LEDGER_KEY" in flaw() and not is_well()
    upgrade_schema()
    checked("nobody@people.com")
    assert flaw() is None and is_well()
    shown = words(browser.get(PAGE))
    assert "nobody can say whether it was changed" in shown and "somebody has changed" not in shown


def test_under_another_key_nothing_is_entered(app):
    add_customer("ann@people.com")
    add_customer("ben@people.com")
    finished("ann@people.com")
    batch, key = confirmed("ben@people.com"), app.config["LEDGER_KEY"]
    app.config["LEDGER_KEY"] = b"another" * 5
    with pytest.raises(OtherKey):
        add_user("somebody@company.com", Role.ADMIN)
    db.session.rollback()
    with pytest.raises(OtherKey):
        work(batches.run, batch)
    answer = app.test_cli_runner().invoke(args=["users", "add", "somebody@company.com"])
    assert answer.exit_code == 2 and "LEDGER_KEY is not the one" in answer.output
    app.config["LEDGER_KEY"] = key
    assert is_well() and db.session.scalar(select(func.count()).select_from(Customer)) == 1


@pytest.mark.parametrize("wiped", [AuditEvent, LedgerKey])
def test_nobody_begins_it_anew_without_being_told_to(app, wiped):
    """Each start makes the schema, and would have hidden what somebody had done."""
    add_customer("ann@people.com")
    finished("ann@people.com")
    db.session.execute(update(LedgerEntry).values(purged_at=now() - timedelta(days=9)))
    db.session.execute(delete(wiped))
    db.session.commit()
    assert not is_well()
    answer = app.test_cli_runner().invoke(args=["init-db"])
    assert (answer.exit_code == 2 and "init-db" in answer.output) or "LEDGER_KEY" in answer.output
    assert not is_well()


def test_going_on_with_what_was_changed_hides_nothing_that_is_changed_later(app, signed_in):
    browser = signed_in()
    checked("nobody@people.com")
    db.session.execute(retell(Act.OPENED, '"rows":1', '"rows":9'))
    assert not is_well()
    upgrade_schema(accept_ledger=True)
    assert is_well()
    shown = words(browser.get(PAGE))
    assert "; 1 event changed before" in shown and "somebody has changed one of them" in shown
    db.session.execute(retell(Act.FINISHED, '"not_found":1', '"not_found":2'))
    assert not is_well()


def test_a_batch_that_has_ended_ends_no_second_time_and_is_not_thrown_away(app):
    """By somebody's hand in its row."""
    add_customer("ann@people.com")
    batch = finished("ann@people.com")
    for state in (State.RUNNING, State.READY):
        db.session.execute(update(Batch).values(state=state, created_at=now() - timedelta(days=9)))
        db.session.commit()
        work(batches.run, batch)
        with pytest.raises(NotPossible):
            batches.discard(batch)
        db.session.rollback()
    acts = [act for act, _ in told()]
    assert acts.count(Act.FINISHED) == 1 and Act.DISCARDED not in acts


def test_an_event_is_of_the_transaction_in_which_it_was_recorded(app):
    db.session.rollback()
    with pytest.raises(RuntimeError):
        audit.record(Act.PAUSED)
    db.session.execute(select(1))
    audit.record(Act.PAUSED)
    db.session.close()
    db.session.execute(select(1))
    audit.record(Act.RESUMED)
    db.session.commit()
    db.session.commit()
    assert told() == [(Act.RESUMED, None)]


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
    db.session.execute(retell(Act.OPENED, '"rows":1', '"rows":9'))
    db.session.commit()
    assert words(browser.get(PAGE)).count("somebody has changed one of them") == 1


def test_a_long_trail_has_pages(app, signed_in):
    browser = signed_in()
    db.session.execute(select(1))
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
