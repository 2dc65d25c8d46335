"""The river without its banks: open, map, check, confirm, run, account for, on a real database."""

import io
import itertools
import random
import threading
import time
from array import array
from contextlib import nullcontext
from datetime import timedelta
from importlib import import_module

import pytest
from pysqlite3 import dbapi2 as sqlite3
from sqlalchemy import delete, event, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from jobs.schedule import tidy
from purge import batches
from purge.batches import Batch, Door, NotPossible, Outcome, State
from purge.batches.block import Block, Incomplete, as_table
from purge.batches.check import MOST_ATTEMPTS
from purge.batches.model import Chunk, PurgeRequest, UploadPart
from purge.batches.upload import Lost
from purge.erasure.map import read_map
from purge.evidence.ledger import fingerprinter
from purge.extensions import db, insert_rows, now, reading
from purge.models import Customer
from tests import PATIENCE
from tests.people import add_customer, everything, hang_everything_on, refuse


def opened(*lines: str, name: str = "people.csv") -> Batch:
    batch = batches.open_csv(io.BytesIO("\n".join(["Customer Email", *lines, ""]).encode()), name, Door.CSV)
    db.session.commit()
    return batch


def checked(*lines: str) -> Batch:
    batch = opened(*lines)
    batches.map_fields(batch, 0, False)
    db.session.commit()
    work(batches.check, batch)
    db.session.expire_all()
    return batch


def work(act, batch: Batch, **options) -> None:
    """As a worker would: after our own transaction has ended."""
    batch_id = batch.id
    db.session.commit()
    try:
        act(batch_id, **options)
    finally:
        db.session.expire_all()


def confirmed(*lines: str) -> Batch:
    batch = checked(*lines)
    batches.confirm(batch, batch.plan_digest, str(batch.planned))
    db.session.commit()
    return batch


def finished(*lines: str) -> Batch:
    batch = confirmed(*lines)
    work(batches.run, batch)
    db.session.expire_all()
    return batch


def outcomes(batch: Batch) -> dict[int, Outcome | None]:
    return {number: outcome for number, outcome, _ in batches.results(batch)}


def counts(batch: Batch) -> dict[Outcome, int]:
    progress = batches.progress(batch)
    pending = sum(outcome is None for outcome in outcomes(batch).values())
    assert sum(progress.outcomes.values()) + pending == batch.rows, "rows in = outcomes out"
    return {outcome: number for outcome, number in progress.outcomes.items() if number}


def there(*ids: int) -> list[bool]:
    return [db.session.scalar(select(Customer.id).where(Customer.id == id)) is not None for id in ids]


def test_every_row_gets_its_outcome(app):
    ann, twin, other = add_customer("ann@people.com"), add_customer("twin@people.com"), add_customer("Twin@people.com")
    pair = add_customer("pair@people.com"), add_customer("Pair@people.com")
    lines = (
        "ANN@People.com ",
        "nobody@people.com",
        "ann@people.com",
        "twin@people.com",
        "no address",
        "ann,x",
        "pair@people.com",
    )
    batch = finished(*lines)
    assert outcomes(batch) == {
        2: Outcome.PURGED,
        3: Outcome.NOT_FOUND,
        4: Outcome.DUPLICATE,
        5: Outcome.HELD,
        6: Outcome.INVALID,
        7: Outcome.INVALID,
        8: Outcome.HELD,
    }
    assert there(ann, twin, other, *pair) == [False, True, True, True, True]
    assert batch.state is State.FINISHED and sum(counts(batch).values()) == 7 and batch.planned == 1


@pytest.mark.parametrize("most", [1, 20_000])
def test_a_block_may_have_no_valid_row(app, monkeypatch, most):
    monkeypatch.setattr(import_module("purge.batches.check"), "BLOCK_ROWS", most)
    batch = checked("no address", "ann,x")
    assert batch.state is State.FINISHED and outcomes(batch) == {2: Outcome.INVALID, 3: Outcome.INVALID}


def test_an_address_that_reads_as_two_shifts_nobody(app):
    block = Block(array("I", [2, 3]), ["ann@people.com\nben@people.com", "cleo@people.com"], b"a" * 64)
    with pytest.raises((Incomplete, DBAPIError)), db.engine.begin() as connection:
        block.request(connection, 1)
    assert not db.session.scalar(select(func.count()).select_from(PurgeRequest))


def test_a_local_part_in_another_case_is_the_same_person_only_for_ascii_letters(app):
    person, other = add_customer("Straße@people.com"), add_customer("STRASSE@people.com")
    finished("straße@PEOPLE.com")
    assert there(person, other) == [False, True]


def test_an_underscore_or_percent_sign_is_no_wildcard(app):
    person = add_customer("axb@people.com")
    batch = checked("a_b@people.com", "%@people.com")
    assert batch.state is State.FINISHED and counts(batch) == {Outcome.NOT_FOUND: 2} and there(person) == [True]


def test_the_first_of_repeated_rows_stands_even_when_nobody_has_the_address(app):
    batch = checked("nobody@people.com", "x@people.com", "NOBODY@people.com")
    assert outcomes(batch) == {2: Outcome.NOT_FOUND, 3: Outcome.NOT_FOUND, 4: Outcome.DUPLICATE}


@pytest.mark.parametrize("most", [1, 3, 7])
def test_repeated_rows_are_found_however_many_are_compared_at_a_time(app, monkeypatch, dice, most):
    monkeypatch.setattr("purge.batches.duplicates.COMPARED_ROWS", most)
    monkeypatch.setattr(import_module("purge.batches.check"), "BLOCK_ROWS", most)
    theirs = {f"person{number}@people.com" for number in range(10)}
    for address in theirs:
        add_customer(address)
    lines = [f"person{dice.randrange(20)}@people.com" for _ in range(60)]
    firsts = {lines.index(line) for line in lines}
    batch = checked(*lines)
    told = outcomes(batch)
    assert {row - 2 for row, outcome in told.items() if outcome is not Outcome.DUPLICATE} == firsts
    assert [*told.values()].count(Outcome.NOT_FOUND) == len(firsts) - batch.planned == len({*lines} - theirs)


def test_two_whose_fingerprints_begin_alike_are_two(app, monkeypatch):
    real = fingerprinter()
    monkeypatch.setattr("purge.batches.block.fingerprinter", lambda: lambda key: b"same" + real(key)[4:])
    add_customer("ann@people.com"), add_customer("ben@people.com")
    batch = checked("ann@people.com", "ben@people.com", "no address", "ann@people.com", "cleo@people.com")
    wanted = {2: None, 3: None, 4: Outcome.INVALID, 5: Outcome.DUPLICATE, 6: Outcome.NOT_FOUND}
    assert outcomes(batch) == wanted and batch.planned == 2


def test_a_block_arrives_as_it_was_sent(app):
    """Whatever the database's own way to quote it would make of it."""
    texts = [
        "plain@people.com",
        '"',
        "\\",
        '\\"',
        "{a,b}",
        "null",
        "NULL",
        "it's",
        "ä@ü.de",
        "1 2",
        " ",
        "%s",
        ":x",
        "[]",
        "\t",
    ]
    rows = [(number, text, bytes([number]) * 32) for number, text in enumerate(texts, 3)]
    block = Block(array("I", range(3, 3 + len(texts))), texts, b"".join(print for *_, print in rows))
    with reading(), db.engine.connect() as connection:
        sent = connection.execute(select(as_table(connection)), block.values(connection))
        assert [tuple(row) for row in sent] == rows


def test_an_address_that_changes_hands_during_the_check_stands_once(app, monkeypatch):
    monkeypatch.setattr(import_module("purge.batches.check"), "BLOCK_ROWS", 1)
    first, second = add_customer("ann@people.com"), add_customer("ben@people.com")
    batch = opened(*["ann@people.com"] * 3)
    batches.map_fields(batch, 0, False)
    db.session.commit()
    batch_id, written = batch.id, iter(range(9))
    moves = {1: (first, "away@people.com"), 2: (second, "ann@people.com")}

    def keep_going() -> bool:
        rows = next(written)
        until = time.monotonic() + PATIENCE
        while rows > ask(select(Batch.checked_rows).where(Batch.id == batch_id)):
            assert time.monotonic() < until
        if rows in moves:
            id, key = moves[rows]
            with db.engine.begin() as connection:
                connection.execute(update(Customer).where(Customer.id == id).values(email_key=key))
        return True

    work(batches.check, batch, keep_going=keep_going)
    db.session.expire_all()
    assert outcomes(batch) == {2: None, 3: Outcome.DUPLICATE, 4: Outcome.DUPLICATE} and batch.planned == 1


def ask(question):
    with reading(), db.engine.connect() as connection:
        return connection.scalar(question)


def test_a_customer_whose_address_changed_after_the_check_is_spared(app):
    person, other = add_customer("ann@people.com"), add_customer("ben@people.com")
    batch = confirmed("ann@people.com", "ben@people.com")
    db.session.execute(update(Customer).where(Customer.id == person).values(email_key="new@people.com"))
    db.session.commit()
    work(batches.run, batch)
    assert counts(batch) == {Outcome.PURGED: 1, Outcome.CHANGED: 1} and there(person, other) == [True, False]


def test_a_customer_whose_address_another_took_after_the_check_is_held(app):
    person, other = add_customer("ann@people.com"), add_customer("ben@people.com")
    batch = confirmed("ann@people.com", "ben@people.com")
    newcomer = add_customer("ann@people.com")
    db.session.commit()
    work(batches.run, batch)
    assert counts(batch) == {Outcome.PURGED: 1, Outcome.HELD: 1} and there(person, newcomer, other) == [
        True,
        True,
        False,
    ]
    assert "more than one customer has this address" in [reason for _, _, reason in batches.results(batch)]


def test_a_customer_gone_since_the_check_is_already_purged(app):
    add_customer("ann@people.com")
    first, second = checked("ann@people.com"), checked("ann@people.com")
    for batch in (first, second):
        batches.confirm(batch, batch.plan_digest)
        db.session.commit()
        work(batches.run, batch)
    assert counts(first) == {Outcome.PURGED: 1} and counts(second) == {Outcome.ALREADY_PURGED: 1}


def test_a_newcomer_with_the_purged_ones_address_is_not_deleted_by_the_old_plan(app):
    person = add_customer("ann@people.com")
    batch = confirmed("ann@people.com")
    db.session.execute(delete(Customer).where(Customer.id == person))
    newcomer = add_customer("ann@people.com")
    db.session.commit()
    work(batches.run, batch)
    assert there(newcomer) == [True] and counts(batch) == {Outcome.NOT_FOUND: 1}
    assert "deleted after the check, and not by a batch" in [reason for _, _, reason in batches.results(batch)]


def test_whom_another_batch_purged_under_a_new_address_was_purged(app):
    """And whose namesake another batch purged was not."""
    ann, ben = add_customer("ann@people.com"), add_customer("ben@people.com")
    batch = confirmed("ann@people.com", "ben@people.com")
    new = {"email": "new@people.com", "email_key": "new@people.com"}
    db.session.execute(update(Customer).where(Customer.id == ann).values(**new))
    finished("new@people.com")
    db.session.execute(delete(Customer).where(Customer.id == ben))
    add_customer("ben@people.com")
    finished("ben@people.com")
    work(batches.run, batch)
    assert counts(batch) == {Outcome.ALREADY_PURGED: 1, Outcome.NOT_FOUND: 1}


def test_who_shows_no_address_was_found_by_somebody_elses(app):
    ann = add_customer("ann@people.com")
    batch = confirmed("ann@people.com")
    db.session.execute(update(Customer).where(Customer.id == ann).values(email="n/a"))
    work(batches.run, batch)
    assert there(ann) == [True] and counts(batch) == {Outcome.CHANGED: 1}


def test_who_shows_another_address_than_they_were_found_by_is_left_alone(app):
    """Somebody's import changed the one column and not the other."""
    ann, odd = add_customer("ann@people.com"), add_customer("odd@people.com")
    batch = confirmed("ann@people.com", "odd@people.com")
    db.session.execute(update(Customer).where(Customer.id == ann).values(email="ben@people.com"))
    db.session.execute(update(Customer).where(Customer.id == odd).values(email="ODD@people.com"))
    work(batches.run, batch)
    assert there(ann, odd) == [True, False] and counts(batch) == {Outcome.CHANGED: 1, Outcome.PURGED: 1}


def test_whom_the_database_refuses_only_at_the_commit_fails_alone(app):
    people = [add_customer(f"p{n}@people.com") for n in range(5)]
    db.session.execute(text("CREATE TABLE hold (id INTEGER REFERENCES customer (id) DEFERRABLE INITIALLY DEFERRED)"))
    db.session.execute(text(f"INSERT INTO hold VALUES ({people[2]})"))
    batch = confirmed(*(f"p{n}@people.com" for n in range(5)))
    work(batches.run, batch)
    assert there(*people) == [False, False, True, False, False] and batch.state is State.FINISHED
    assert counts(batch) == {Outcome.PURGED: 4, Outcome.FAILED: 1}


def test_who_would_stay_in_the_search_index_fails_whole(app):
    ann = add_customer("ann@people.com")
    if db.engine.dialect.name == "postgresql":
        db.session.execute(text("ALTER TABLE customer DISABLE TRIGGER USER"))
    else:
        named = (
            "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'customer' AND sql LIKE '% DELETE %'"
        )
        for name in db.session.scalars(text(named)).all():
            db.session.execute(text(f"DROP TRIGGER {name}"))
    batch = confirmed("ann@people.com")
    work(batches.run, batch)
    assert there(ann) == [True] and counts(batch) == {Outcome.FAILED: 1}


def test_what_breaks_while_rows_are_copied_is_said_as_of_every_statement(app):
    with pytest.raises(DBAPIError if db.engine.dialect.name == "postgresql" else sqlite3.Error):
        insert_rows(db.session.connection(), "purge_request", ["no_column"], [(1,)])


@pytest.mark.sqlite
def test_a_commit_waits_for_the_disk(app):
    assert db.session.scalar(text("PRAGMA synchronous")) == 2


def test_the_file_is_destroyed_when_the_check_ends(app):
    add_customer("ann@people.com")
    batch = opened("ann@people.com")
    sealed = db.session.scalar(select(UploadPart.sealed))
    assert b"ann@people.com" not in sealed
    batches.map_fields(batch, 0, False)
    db.session.commit()
    work(batches.check, batch)
    assert db.session.scalar(select(func.count()).select_from(UploadPart)) == 0


def test_customers_are_counted_where_their_share_may_matter(app, monkeypatch):
    """For a row in a base of millions it would take longer than the check."""
    people = [add_customer(f"p{n}@people.com") for n in range(21)]
    assert checked("p0@people.com").customers == 21  # few are always counted
    monkeypatch.setattr(import_module("purge.batches.check"), "COUNTED", 0)
    counted = []

    def note(*arguments) -> None:
        counted.append(arguments[2].split()[-2:] == ["FROM", "customer"])

    event.listen(db.engine, "before_cursor_execute", note)
    assert checked("p0@people.com").customers is None and not any(counted)
    db.session.execute(delete(Customer).where(Customer.id == people[10]))
    assert checked("p0@people.com").customers == 20 and any(counted)


def test_a_check_begun_again_from_the_middle_counts_nothing_twice(app, monkeypatch):
    monkeypatch.setattr(import_module("purge.batches.check"), "BLOCK_ROWS", 2)
    add_customer("ann@people.com")
    batch = opened("ann@people.com", *(f"p{n}@people.com" for n in range(7)))
    batches.map_fields(batch, 0, False)
    db.session.commit()
    asked = iter([True, True])
    work(batches.check, batch, keep_going=lambda: next(asked, False))
    db.session.expire_all()
    assert (batch.state, batch.checked_rows, batch.check_attempts) == (State.CHECKING, 4, 0)
    work(batches.check, batch)
    db.session.expire_all()
    assert batch.state is State.READY and batch.checked_rows == 8 and len(outcomes(batch)) == 8


def slow_check(monkeypatch):
    """A batch of eight rows, and what makes its check pause after each two."""
    monkeypatch.setattr(import_module("purge.batches.check"), "BLOCK_ROWS", 2)
    add_customer("ann@people.com")
    batch = opened("ann@people.com", *(f"p{n}@people.com" for n in range(7)))
    batches.map_fields(batch, 0, False)
    db.session.commit()
    return batch


def test_a_check_that_is_asked_for_while_it_goes_on_leaves_it_alone(app, monkeypatch):
    batch = slow_check(monkeypatch)
    batch_id = batch.id

    def ask_again():
        batches.check(batch_id)
        return True

    work(batches.check, batch, keep_going=ask_again)
    assert batch.state is State.READY and len(outcomes(batch)) == 8 and batch.check_attempts == 1


def test_a_check_that_was_overtaken_writes_nothing_more(app, monkeypatch):
    """Its lock went with its connection, while all else goes on."""
    batch = slow_check(monkeypatch)
    batch_id, module = batch.id, import_module("purge.batches.check")

    def overtake():
        monkeypatch.undo()
        monkeypatch.setattr(module, "alone", lambda *_: nullcontext(True))
        batches.check(batch_id)
        return True

    work(batches.check, batch, keep_going=overtake)
    assert batch.state is State.READY and len(outcomes(batch)) == 8 and batch.check_attempts == 2


def held_up(app, monkeypatch, batch_id: int, meanwhile) -> None:
    """Check the batch; while its first block is about to be written, `meanwhile` begins."""
    request, begun, go_on, told = Block.request, threading.Event(), threading.Event(), []

    def wait(*arguments) -> None:
        if not begun.is_set():
            begun.set()
            go_on.wait(PATIENCE)
        request(*arguments)

    def first_check() -> None:
        with app.app_context():
            try:
                batches.check(batch_id)
            except Exception as error:
                told.append(error)

    db.session.commit()
    monkeypatch.setattr(Block, "request", wait)
    first = threading.Thread(target=first_check)
    first.start()
    assert begun.wait(PATIENCE)
    let_go = threading.Timer(0.5, go_on.set)  # SQLite's other writers wait for this one
    let_go.start()
    meanwhile()
    for thread in (let_go, first):
        thread.join(30)
        assert not thread.is_alive()
    assert not told
    db.session.expire_all()


def test_a_check_waits_until_the_one_it_overtakes_has_written_its_block(app, monkeypatch):
    batch = slow_check(monkeypatch)
    monkeypatch.setattr(import_module("purge.batches.check"), "alone", lambda *_: nullcontext(True))
    held_up(app, monkeypatch, batch.id, lambda: work(batches.check, batch))
    assert batch.state is State.READY and len(outcomes(batch)) == 8 and batch.check_attempts == 2


def test_what_is_discarded_while_a_block_is_written_leaves_no_row_behind(app, monkeypatch):
    batch = slow_check(monkeypatch)
    batch_id = batch.id

    def discard() -> None:
        batches.discard(db.session.get(Batch, batch_id))
        db.session.commit()

    held_up(app, monkeypatch, batch_id, discard)
    assert batch.state is State.DISCARDED
    assert db.session.scalar(select(func.count()).select_from(PurgeRequest)) == 0


def move_the_ledger_away(away: bool) -> None:
    """As a newer version's migration may, while this one is at work."""
    names = ("ledger_entry", "moved") if away else ("moved", "ledger_entry")
    db.session.execute(text("ALTER TABLE {} RENAME TO {}".format(*names)))
    db.session.commit()


def test_a_database_that_is_not_as_we_need_it_is_no_failed_attempt_at_a_check(app):
    batch = opened("nobody@people.com")
    batches.map_fields(batch, 0, False)
    moved_at = batch.moved_at
    move_the_ledger_away(True)
    for _ in range(MOST_ATTEMPTS + 1):
        with pytest.raises(DBAPIError):
            work(batches.check, batch)
    assert (batch.state, batch.check_attempts, batch.moved_at) == (State.CHECKING, 0, moved_at)
    assert batches.last_moved()[0] == batch.id
    move_the_ledger_away(False)
    work(batches.check, batch)
    assert batch.state is State.FINISHED and outcomes(batch) == {2: Outcome.NOT_FOUND}


def test_a_database_that_is_not_as_we_need_it_fails_nobody(app):
    add_customer("ann@people.com")
    add_customer("ben@people.com")
    batch = confirmed("ann@people.com", "ben@people.com")
    move_the_ledger_away(True)
    with pytest.raises(DBAPIError):
        work(batches.run, batch)
    assert batch.state is State.RUNNING and counts(batch) == {}
    move_the_ledger_away(False)
    work(batches.run, batch)
    assert counts(batch) == {Outcome.PURGED: 2}


def test_a_file_of_which_a_part_is_missing_is_never_ready(app, monkeypatch):
    monkeypatch.setattr(import_module("purge.batches.upload"), "PART_BYTES", 40)
    batch = opened("ann@people.com", "ben@people.com", "eve@people.com")
    batches.map_fields(batch, 0, False)
    last = db.session.scalar(select(func.max(UploadPart.number)))
    db.session.execute(delete(UploadPart).where(UploadPart.number == last))
    db.session.commit()
    for _ in range(5):
        with pytest.raises(Lost):
            work(batches.check, batch)
    work(batches.check, batch)
    assert batch.state is State.REFUSED


def test_a_check_of_fewer_rows_than_the_file_has_is_never_ready(app):
    batch = opened("ann@people.com")
    batches.map_fields(batch, 0, False)
    batch.rows += 1
    db.session.commit()
    with pytest.raises(import_module("purge.batches.check").Incomplete):
        work(batches.check, batch)
    assert batch.state is State.CHECKING


def test_what_is_discarded_while_the_file_is_read_ends_its_check_quietly(app, monkeypatch):
    module = import_module("purge.batches.upload")
    monkeypatch.setattr(module, "PART_BYTES", 40)
    batch = opened(*(f"p{n}@people.com" for n in range(7)))
    batches.map_fields(batch, 0, False)
    db.session.commit()
    batch_id, place = batch.id, module._place

    def discard_before_the_next(of: int, number: int) -> str:
        if number == 1:  # the first is open
            batches.discard(db.session.get(Batch, batch_id))
            db.session.commit()
        return place(of, number)

    monkeypatch.setattr(module, "_place", discard_before_the_next)
    work(batches.check, batch)
    assert batch.state is State.DISCARDED


def test_a_check_that_never_ends_is_refused_in_words_and_its_file_destroyed(app, monkeypatch):
    batch = opened("ann@people.com")
    batches.map_fields(batch, 0, False)
    db.session.commit()

    def broken(*_):
        raise RuntimeError

    monkeypatch.setattr("purge.batches.block.verdict", broken)
    for _ in range(5):
        with pytest.raises(RuntimeError):
            work(batches.check, batch)
    work(batches.check, batch)
    db.session.expire_all()
    assert batch.state is State.REFUSED and "nothing was deleted" in batch.refusal
    assert db.session.scalar(select(func.count()).select_from(UploadPart)) == 0


def test_a_confirmation_of_another_plan_is_refused(app):
    person = add_customer("ann@people.com")
    batch = checked("ann@people.com")
    with pytest.raises(NotPossible):
        batches.confirm(batch, "0" * 64)
    batches.confirm(batch, batch.plan_digest)
    with pytest.raises(NotPossible):
        batches.confirm(batch, batch.plan_digest)
    assert there(person) == [True]


@pytest.mark.parametrize("typed", ["", "11", "120", "twelve", "-12"])
def test_more_than_ten_customers_need_their_number_typed(app, typed):
    lines = [f"p{n}@people.com" for n in range(12)]
    for line in lines:
        add_customer(line)
    batch = checked(*lines)
    with pytest.raises(NotPossible):
        batches.confirm(batch, batch.plan_digest, typed)
    batches.confirm(batch, batch.plan_digest, " 12 ")


def test_a_paused_batch_stands_still_and_goes_on_where_it_was(app, monkeypatch):
    app.config["CHUNK_SIZE"] = 2
    for name in ("CHUNK_SECONDS", "ONE_WRITERS_CHUNK_SECONDS"):  # on a slow machine two customers may not fit
        monkeypatch.setattr(import_module("purge.batches.run"), name, 60)
    lines = [f"p{n}@people.com" for n in range(10)]
    ids = [add_customer(line) for line in lines]
    batch = confirmed(*lines)
    asked = iter([True, True])
    work(batches.run, batch, keep_going=lambda: next(asked, False))
    assert counts(batch) == {Outcome.PURGED: 4}
    batches.pause(batch)
    db.session.commit()
    work(batches.run, batch)
    assert counts(batch) == {Outcome.PURGED: 4} and batch.state is State.PAUSED
    batches.resume(batch)
    db.session.commit()
    work(batches.run, batch)
    db.session.expire_all()
    assert counts(batch) == {Outcome.PURGED: 10} and batch.state is State.FINISHED and not any(there(*ids))


def test_cancelling_the_rest_leaves_the_rest_alone(app):
    app.config["CHUNK_SIZE"] = 2
    lines = [f"p{n}@people.com" for n in range(10)]
    ids = [add_customer(line) for line in lines]
    batch = confirmed(*lines)
    asked = iter([True])
    work(batches.run, batch, keep_going=lambda: next(asked, False))
    batches.cancel(batch)
    db.session.commit()
    work(batches.run, batch)
    db.session.expire_all()
    assert counts(batch) == {Outcome.PURGED: 2, Outcome.CANCELLED: 8} and batch.state is State.FINISHED
    assert sum(there(*ids)) == 8


def test_chunks_that_take_long_are_cut_and_grow_again_when_they_do_not(app, monkeypatch):
    app.config["CHUNK_SIZE"] = 40
    lines = [f"p{n}@people.com" for n in range(200)]
    ids = [add_customer(line) for line in lines]
    batch = confirmed(*lines)
    run = import_module("purge.batches.run")
    for seconds in ("CHUNK_SECONDS", "ONE_WRITERS_CHUNK_SECONDS"):
        monkeypatch.setattr(run, seconds, 1e-4)
    asked = iter([True] * 10)
    work(batches.run, batch, keep_going=lambda: next(asked, False))
    for seconds in ("CHUNK_SECONDS", "ONE_WRITERS_CHUNK_SECONDS"):
        monkeypatch.setattr(run, seconds, 1e4)
    work(batches.run, batch)
    chunks = db.session.execute(
        select(Chunk.requests, Chunk.first_customer_id, Chunk.last_customer_id)
        .where(Chunk.batch_id == batch.id, Chunk.requests > 0)
        .order_by(Chunk.started_at)
    ).all()
    sizes = [chunk.requests for chunk in chunks]
    assert sizes[:10] == [40] + [1] * 9 and sizes[10:13] == [2, 4, 8] and sum(sizes) == 200
    bounds = sorted((chunk.first_customer_id, chunk.last_customer_id) for chunk in chunks)
    assert all(last < first for (_, last), (first, _) in itertools.pairwise(bounds))
    assert counts(batch) == {Outcome.PURGED: 200} and not any(there(*ids))


def test_one_poisonous_row_loses_only_itself(app):
    erasure = read_map(db.metadata)
    lines = [f"p{n}@people.com" for n in range(37)]
    ids = [add_customer(line) for line in lines]
    for id in ids:
        hang_everything_on(id, erasure, "x")
    poisonous = ids[23]
    refuse("DELETE", "customer", f"old.id = {poisonous}")
    before = {
        table: [row for row in rows if poisonous in (row if table == "customer" else row[1:])]
        for table, rows in everything(erasure).items()
    }
    db.session.commit()
    batch = finished(*lines)
    assert counts(batch) == {Outcome.PURGED: 36, Outcome.FAILED: 1} and batch.state is State.FINISHED
    assert [id for id, left in zip(ids, there(*ids), strict=True) if left] == [poisonous]
    after = {
        table: [row for row in rows if poisonous in (row if table == "customer" else row[1:])]
        for table, rows in everything(erasure).items()
    }
    assert after == before
    assert [reason for _, outcome, reason in batches.results(batch) if outcome is Outcome.FAILED] == [
        "the database refused to delete this customer"
    ]


def test_a_hundred_are_deleted_by_as_many_statements_as_ten(app):
    asked, told = [], []
    event.listen(db.engine, "before_cursor_execute", lambda _c, _cu, sql, *_: asked.append(sql))
    for number in (10, 100):
        lines = [f"p{n}-of-{number}@people.com" for n in range(number)]
        for line in lines:
            hang_everything_on(add_customer(line), read_map(db.metadata), "x")
        batch = confirmed(*lines)
        asked.clear()
        work(batches.run, batch)
        told.append(len(asked))
        assert counts(batch) == {Outcome.PURGED: number}
    assert told[0] == told[1] < 60


def test_two_workers_refused_the_same_chunk_fail_nobody_who_was_not_tried_alone(app):
    """The second of them halves what the first has halved already."""
    good, bad = (add_customer(f"{name}@people.com") for name in ("good", "bad"))
    refuse("DELETE", "customer", f"old.id = {bad}")
    batch = confirmed("good@people.com", "bad@people.com")
    run = import_module("purge.batches.run")
    waiting = Chunk.batch_id == batch.id, Chunk.state == "waiting"
    stale = db.session.execute(select(Chunk.__table__).where(*waiting)).one()
    db.session.commit()
    run._halve(stale)
    run._halve(stale)
    work(batches.run, batch)
    assert counts(batch) == {Outcome.PURGED: 1, Outcome.FAILED: 1} and there(good, bad) == [False, True]


def test_a_customer_whose_address_changes_while_the_check_runs_is_asked_for_once(app, monkeypatch):
    monkeypatch.setattr(import_module("purge.batches.check"), "BLOCK_ROWS", 1)
    person = add_customer("ann@people.com")
    batch = opened("ann@people.com", "anna@people.com")
    batches.map_fields(batch, 0, False)
    db.session.commit()
    blocks = itertools.count()

    def written() -> int:
        with reading(), db.engine.connect() as connection:
            return connection.scalar(select(Batch.checked_rows))

    def change() -> bool:
        if next(blocks) == 1:
            until = time.monotonic() + PATIENCE
            while not written():
                assert time.monotonic() < until
                time.sleep(0.01)
            with db.engine.begin() as connection:
                new = {"email": "anna@people.com", "email_key": "anna@people.com"}
                connection.execute(update(Customer.__table__).where(Customer.id == person).values(new))
        return True

    work(batches.check, batch, keep_going=change)
    assert batch.planned == 1 and outcomes(batch)[3] is Outcome.DUPLICATE
    batches.confirm(batch, batch.plan_digest)
    db.session.commit()
    work(batches.run, batch)
    assert counts(batch) == {Outcome.DUPLICATE: 1, Outcome.CHANGED: 1} and there(person) == [True]


def test_a_chunk_refused_in_the_middle_of_its_transaction_leaves_no_half_outcome(app, monkeypatch):
    add_customer("ann@people.com")
    batch = confirmed("ann@people.com")
    with monkeypatch.context() as broken:
        broken.setattr(import_module("purge.batches.run"), "_record", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            work(batches.run, batch)
    db.session.expire_all()
    assert outcomes(batch) == {2: None} and db.session.scalar(select(func.count()).select_from(Customer)) == 1
    work(batches.run, batch)
    assert counts(batch) == {Outcome.PURGED: 1}


def test_discarding_destroys_the_file_and_the_rows(app):
    add_customer("ann@people.com")
    for batch in (opened("ann@people.com"), checked("ann@people.com")):
        batches.discard(batch)
        db.session.commit()
        db.session.expire_all()
        assert batch.state is State.DISCARDED
    assert db.session.scalar(select(func.count()).select_from(UploadPart)) == 0
    assert db.session.scalar(select(func.count()).select_from(PurgeRequest)) == 0
    assert batches.waiting_chunks(batch) == 0


@pytest.mark.parametrize("at", ["@", "%40", "\N{FULLWIDTH COMMERCIAL AT}", "(at)", "[AT]"])
def test_no_writing_of_an_address_stays_in_a_files_name(app, at):
    batch = opened("ann@people.com", name=f"for ann{at}people.com.csv")
    assert batch.file_name == "for ….csv"


def test_what_a_file_was_called_is_forgotten_a_month_after_its_end(app):
    add_customer("ann@people.com")
    old, new, going = finished("ann@people.com"), checked("nobody@people.com"), opened("ann@people.com")
    db.session.execute(update(Batch).where(Batch.id == old.id).values(finished_at=now() - timedelta(days=31)))
    db.session.commit()
    tidy()
    db.session.expire_all()
    assert "people" not in old.file_name and new.file_name == going.file_name == "people.csv"


def test_a_file_forgotten_for_a_week_is_thrown_away(app):
    old, new = opened("ann@people.com"), opened("ben@people.com")
    db.session.execute(update(Batch).where(Batch.id == old.id).values(created_at=text("'2020-01-01 00:00:00.000000'")))
    db.session.commit()
    tidy()
    db.session.expire_all()
    assert (old.state, new.state) == (State.DISCARDED, State.UPLOADED)


def test_what_another_scheduler_threw_away_stops_no_scheduler(app, monkeypatch):
    batch = opened("ann@people.com")
    db.session.commit()
    monkeypatch.setattr(batches, "forgotten", lambda: [batch])
    tidy()
    tidy()
    db.session.expire_all()
    assert batch.state is State.DISCARDED


def test_the_same_file_is_known_again(app):
    first, second, other = opened("ann@people.com"), opened("ann@people.com"), opened("ben@people.com")
    assert batches.seen_before(second).id == first.id
    assert batches.seen_before(first) is None and batches.seen_before(other) is None


def test_a_file_name_keeps_no_address(app):
    batch = opened("ann@people.com", name="C:\\lists\\ann.smith@people.com.csv")
    assert "ann" not in batch.file_name and batch.file_name.endswith(".csv")


def test_the_preview_numbers_rows_as_a_spreadsheet_does_and_says_what_is_wrong(app):
    file = b'Name,Mail\nAnn,ann@people.com\n\n"Ben\nJr",ben.people.com\nCid\n'
    batch = batches.open_csv(io.BytesIO(file), "x.csv", Door.CSV)
    db.session.commit()
    shown = batches.preview(batch, 1)
    assert [(row.number, row.problem, row.problem_column) for row in shown.rows] == [
        (2, None, None),
        (4, "missing @", 1),
        (5, shown.rows[2].problem, None),
    ]
    assert (shown.valid, shown.invalid, shown.samples[0][0], batch.blank_rows) == (1, 2, "Ann", 1)
    assert batches.preview(batch, None).valid == 0 and batches.preview(batch, 99).column is None


def test_what_falls_is_counted_at_the_check_and_agrees_with_what_fell(app):
    erasure = read_map(db.metadata)
    for line in ("ann@people.com", "ben@people.com"):
        hang_everything_on(add_customer(line), erasure, "x")
    batch = confirmed("ann@people.com", "ben@people.com")
    foretold = {fall.words: fall.rows for fall in batches.what_falls(batch)}
    assert foretold["orders stay, without a name"] == 2 and foretold["rewards on their way are cancelled"] == 2
    work(batches.run, batch)
    fell = {fall.words: fall.rows for fall in batches.what_fell(batch)}
    assert fell == foretold and fell["addresses"] == 2


def test_progress_costs_the_same_queries_whatever_the_size(app):
    asked = []
    event.listen(db.engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    app.config["CHUNK_SIZE"] = 1
    costs = []
    for size in (2, 40):
        for n in range(size):
            add_customer(f"p{size}-{n}@people.com")
        batch = finished(*(f"p{size}-{n}@people.com" for n in range(size)))
        asked.clear()
        batches.progress(batch)
        costs.append(len(asked))
        assert db.session.scalar(select(func.count()).where(Chunk.batch_id == batch.id)) == size + 1
    assert costs[0] == costs[1]


def test_random_batches_always_add_up(app):
    app.config["CHUNK_SIZE"] = 3
    for seed in range(15):
        dice = random.Random(seed)
        known = [f"s{seed}n{n}@people.com" for n in range(dice.randrange(12))]
        for line in known:
            db.session.execute(insert(Customer), _row(line))
        db.session.commit()
        pool = [*known, *known, "nobody@people.com", "broken", " ", "a@b@c.com"]
        batch = checked("x@people.com", *(dice.choice(pool) for _ in range(dice.randrange(30))))
        if batch.state is State.READY:
            batches.confirm(batch, batch.plan_digest, str(batch.planned))
            db.session.commit()
            work(batches.run, batch)
        assert sum(counts(batch).values()) == batch.rows


def _row(line: str) -> dict:
    return {"email": line, "email_key": line, "created_at": now(), "receives_emails": True}
