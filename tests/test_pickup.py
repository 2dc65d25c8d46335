"""Picking up, against a real OpenSSH: from a dropped file to its answer."""

import hashlib
import itertools
import os
import re
from datetime import timedelta
from itertools import pairwise

import pytest
from sqlalchemy import event, func, select, update

from jobs import queue
from jobs.schedule import look_at_drops, tidy
from purge import batches, pickup
from purge.batches import Batch, NotPossible, Outcome, State
from purge.extensions import db, now
from purge.models import Customer
from purge.pickup import DroppedFile, FileState, SftpConnection
from tests.drops import OpenSsh, connect
from tests.people import add_customer


@pytest.fixture(scope="module")
def openssh():
    server = OpenSsh()
    yield server
    server.stop()


@pytest.fixture
def drop(app, openssh):
    openssh.empty()
    app.config |= {"DROP_AGE_SECONDS": 0, "DROP_REST_SECONDS": 0}
    return openssh


@pytest.fixture
def connection(drop):
    return connect(drop)


def look(connection) -> None:
    """One look, and what the workers would do of it."""
    poll(connection)
    work()


def poll(connection, opened=lambda batch: None, keep_going=lambda: True) -> None:
    """In no transaction of ours."""
    connection_id = connection.id
    db.session.commit()
    pickup.poll(connection_id, opened, keep_going)
    db.session.rollback()


def work() -> None:
    for state, act in ((State.CHECKING, batches.check), (State.RUNNING, batches.run)):
        waiting = db.session.scalars(select(Batch.id).where(Batch.state == state)).all()
        db.session.rollback()
        for batch_id in waiting:
            act(batch_id)
    db.session.expire_all()


def look_until_answered(connection, looks: int = 4) -> None:
    for _ in range(looks):
        db.session.execute(update(DroppedFile).values(next_try_at=now()))
        look(connection)


def put(drop, name: str, *lines: str, header: str = "Customer Email") -> None:
    (drop.files / name).write_text("\n".join([header, *lines, ""]))


def answer(drop, name: str) -> dict[str, str]:
    lines = (drop.files / "results" / name).read_text().splitlines()
    assert lines[0] == "Row,Outcome,Reason"
    return {line.split(",")[0]: ",".join(line.split(",")[1:]).strip(",") for line in lines[1:]}


def names(drop) -> set[str]:
    return {str(file.relative_to(drop.files)) for file in drop.files.rglob("*") if file.is_file()}


def customers() -> int:
    return db.session.scalar(select(func.count()).select_from(Customer))


def test_a_dropped_file_is_purged_and_answered_and_gone(drop, connection):
    add_customer("ann@people.com")
    add_customer("ben@people.com")
    put(drop, "people.csv", "ann@people.com", "nobody@people.com", "broken", "ann@people.com")
    look_until_answered(connection)
    assert customers() == 1
    assert answer(drop, "people.result.csv") == {
        "2": "purged",
        "3": "not found",
        "4": "invalid,missing @",
        "5": "duplicate",
    }
    assert names(drop) == {"results/people.result.csv", "results/people.result.csv.sha256"}
    content = (drop.files / "results/people.result.csv").read_bytes()
    assert (drop.files / "results/people.result.csv.sha256").read_text() == (
        f"{hashlib.sha256(content).hexdigest()}  people.result.csv\n"
    )
    assert b"@" not in content.replace(b"missing @", b"")
    batch = db.session.scalar(select(Batch))
    assert batch.door == "sftp" and batch.state is State.FINISHED and batch.confirmed_by_id is None
    assert connection.failures == 0 and connection.seen_at and connection.last_file_at


@pytest.mark.parametrize("header", ["Customer Email", "CustomerEmail", "customer_email"])
def test_the_header_may_be_written_in_several_ways(drop, connection, header):
    add_customer("ann@people.com")
    put(drop, "a.CSV", "ann@people.com", header=header)
    look_until_answered(connection)
    assert answer(drop, "a.result.csv") == {"2": "purged"}


def test_with_a_type_every_row_must_say_purge_and_other_columns_are_ignored(drop, connection):
    for name in ("ann", "ben", "cy"):
        add_customer(f"{name}@people.com")
    rows = ["x@y.com,ann@people.com,purge", ",ben@people.com,tag", "z,cy@people.com, Purge ", ",,"]
    put(drop, "people.csv", *rows, header="Email,CustomerEmail,Type")
    look_until_answered(connection)
    assert answer(drop, "people.result.csv") == {"2": "purged", "3": "invalid,its type is not purge", "4": "purged"}
    assert db.session.scalars(select(Customer.email)).all() == ["ben@people.com"]


def test_what_is_no_finished_csv_is_left_alone(drop, connection):
    add_customer("ann@people.com")
    for name in (".people.csv", "people.csv.tmp", "people.csv.part", "people.csv.filepart", "people.txt", "~people"):
        put(drop, name, "ann@people.com")
    (drop.files / "folder.csv").mkdir()
    (drop.files / "link.csv").symlink_to("people.txt")
    (drop.files / "line\nbreak.csv").write_text("Customer Email\nann@people.com\n")
    with open(os.fsencode(drop.files) + b"/latin-\xe9.csv", "wb") as file:
        file.write(b"Customer Email\nann@people.com\n")
    put(drop, "-rf.csv", "nobody@people.com")
    before = names(drop)
    look_until_answered(connection)
    assert customers() == 1 and before - names(drop) == {"-rf.csv"}
    assert answer(drop, "-rf.result.csv") == {"2": "not found"}
    assert connection.left_alone == 4 and connection.failures == 0
    assert pickup.worries(connection) == ["leaves 4 entries in the folder alone"]


@pytest.mark.parametrize("space", ["\u3000", "\xa0", "\u202f", "\u2009", "\xad", "\u200c", "\u200d"])
def test_a_name_with_any_space_or_joiner_that_keyboards_type_is_read(drop, connection, space):
    add_customer("ann@people.com")
    put(drop, f"people{space}monday.csv", "ann@people.com")
    look_until_answered(connection)
    assert answer(drop, "peoplemonday-1.result.csv") == {"2": "purged"} and not connection.left_alone


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\u202e", "\u0085", "\ufeff", "\ue000"])
def test_a_name_with_a_sign_that_turns_or_breaks_a_line_is_left_alone_and_told(drop, connection, sign):
    put(drop, f"people{sign}monday.csv", "nobody@people.com")
    look_until_answered(connection)
    assert names(drop) == {f"people{sign}monday.csv"}
    assert pickup.worries(connection) == ["leaves 1 entry in the folder alone"]


def test_a_file_is_taken_only_once_it_has_stood_still(app, drop, connection):
    add_customer("ann@people.com")
    put(drop, "people.csv", "ann@people.com")
    app.config["DROP_AGE_SECONDS"] = 3600
    look(connection)
    look(connection)
    assert names(drop) == {"people.csv"}
    put(drop, "people.csv", "ann@people.com", "more@people.com")
    app.config["DROP_AGE_SECONDS"] = 0
    db.session.execute(update(DroppedFile).values(seen_at=now() - timedelta(hours=2)))
    look(connection)  # it has changed since, so its time begins anew, and this look only notes it
    seen = db.session.scalar(select(DroppedFile))
    assert now() - seen.seen_at < timedelta(minutes=1)
    look_until_answered(connection)
    assert answer(drop, "people.result.csv") == {"2": "purged", "3": "not found"}


def test_the_very_same_file_waits_for_a_yes_when_it_would_delete_somebody_again(drop, connection, signed_in):
    add_customer("ann@people.com")
    put(drop, "monday.csv", "ann@people.com")
    look_until_answered(connection)
    put(drop, "tuesday.csv", "ann@people.com")
    look_until_answered(connection)
    assert answer(drop, "tuesday.result.csv") == {"2": "already purged,an earlier batch purged this customer"}
    add_customer("ann@people.com")  # who came back
    put(drop, "next year.csv", "ann@people.com")
    look_until_answered(connection)
    batch = db.session.scalar(select(Batch).order_by(Batch.id.desc()))
    assert batch.state is State.READY and customers() == 1
    assert "The very same file was picked up at" in signed_in().get(f"/batches/{batch.id}/review").text
    batches.confirm(batch, batch.plan_digest)
    db.session.commit()
    look_until_answered(connection)
    assert answer(drop, "next year.result.csv") == {"2": "purged"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("ending, is_whole", [("\n", True), ("\r\n", True), ("\r", True), ("", False), ("\n ", False)])
def test_a_file_that_ends_within_a_line_waits_for_a_yes(drop, connection, encoding, ending, is_whole):
    """Cut off, ann@people.com is another person's address."""
    add_customer("ann@people.co")
    (drop.files / "people.csv").write_bytes(f"Customer Email\nann@people.co{ending}".encode(encoding))
    look_until_answered(connection)
    batch = db.session.scalar(select(Batch))
    assert batch.state is (State.FINISHED if is_whole else State.READY) and customers() == (not is_whole)
    assert is_whole or "may have been cut off" in batch.caution


def test_a_letter_that_holds_the_byte_of_a_line_break_ends_no_line(drop, connection):
    add_customer("ann@people.com")
    (drop.files / "people.csv").write_bytes(
        "Customer Email,Note\nann@people.com,\N{GURMUKHI LETTER A}".encode("utf-16")
    )
    look_until_answered(connection)
    assert db.session.scalar(select(Batch.state)) is State.READY


def test_what_waits_for_a_yes_because_it_was_cut_off_is_read_again_when_the_rest_comes(drop, connection):
    add_customer("ann@people.co")
    add_customer("ann@people.com")
    (drop.files / "people.csv").write_text("Customer Email\nann@people.co")
    look_until_answered(connection)
    (claimed,) = drop.files.glob(".*.claimed")
    with claimed.open("a") as upload:
        upload.write("m\n")
    look_until_answered(connection, looks=5)
    assert answer(drop, "people.result.csv") == {"2": "purged"}
    assert db.session.scalars(select(Customer.email)).all() == ["ann@people.co"]


@pytest.mark.parametrize(
    "content, told",
    [
        (b"", "empty"),
        (b"PK\x03\x04 a spreadsheet", "spreadsheet"),
        (b"Name\nAnn\n", "no column called “Customer Email”"),
        (b"Customer Email,CustomerEmail\na@b.com,b@b.com\n", "two columns"),
        (b"Customer Email\nJos\xe9@people.com\n", "not UTF-8"),
        (b'Customer Email\n"ann@people.com\nben@people.com\n', "never closed"),
        (b"Customer Email\n", "no data rows"),
    ],
)
def test_a_file_that_cannot_be_used_is_quarantined_once(drop, connection, content, told):
    (drop.files / "people.csv").write_bytes(content)
    look_until_answered(connection)
    assert names(drop) == {"failed/people.csv", "failed/people.error.txt"}
    sentence = (drop.files / "failed/people.error.txt").read_text()
    assert told in sentence and sentence.count("\n") == 1
    written = (drop.files / "failed/people.error.txt").stat().st_mtime_ns
    look_until_answered(connection)
    assert (drop.files / "failed/people.error.txt").stat().st_mtime_ns == written
    assert not db.session.scalars(select(Batch)).all() and connection.failures == 0


def test_a_file_that_is_too_large_is_quarantined(app, drop, connection):
    app.config["MAX_CSV_BYTES"] = 100
    put(drop, "people.csv", *["ann@people.com"] * 10)
    look_until_answered(connection)
    assert "larger than" in (drop.files / "failed/people.error.txt").read_text()


def test_a_dry_run_is_answered_and_deletes_nobody(drop, connection):
    add_customer("ann@people.com")
    put(drop, "people.dryrun.csv", "ann@people.com", "nobody@people.com")
    look(connection)
    look(connection)
    batch = db.session.scalar(select(Batch))
    if batch.state is State.READY:
        with pytest.raises(NotPossible):
            batches.confirm(batch, batch.plan_digest, "1")
        db.session.rollback()
    look_until_answered(connection)
    assert answer(drop, "people.dryrun.result.csv") == {"2": "would be purged", "3": "not found"}
    assert customers() == 1 and "people.dryrun.csv" not in names(drop)
    put(drop, "people.csv", "ann@people.com", "nobody@people.com")
    look_until_answered(connection)
    assert answer(drop, "people.result.csv")["2"] == "purged" and customers() == 0


@pytest.mark.parametrize(
    "name",
    [
        "a.dryrun (1).csv",
        "b.dryrun - Copy.csv",
        "c.dry-run.CSV",
        "d_DryRun.csv",
        "e.dryrun.csv.csv",
        "dryrun.csv",
        "ｄｒｙｒｕｎ.csv",
        "DRYRÚN.csv",
    ],
)
def test_a_dry_run_is_one_however_it_is_spelled(drop, connection, name):
    add_customer("ann@people.com")
    put(drop, name, "ann@people.com")
    look_until_answered(connection)
    assert answer(drop, f"{name[:-4]}.result.csv") == {"2": "would be purged"} and customers() == 1


def test_a_dry_run_that_nobody_came_to_answer_for_a_week_is_answered_all_the_same(drop, connection):
    add_customer("ann@people.com")
    put(drop, "people.dryrun.csv", "ann@people.com")
    look(connection)
    look(connection)
    db.session.execute(update(Batch).values(created_at=now() - timedelta(days=8)))
    db.session.commit()
    tidy()
    look_until_answered(connection)
    assert answer(drop, "people.dryrun.result.csv") == {"2": "would be purged"}


def test_a_file_beyond_what_may_run_by_itself_waits_for_a_yes(drop, connection):
    connection.runs_up_to = 1
    for name in ("ann", "ben"):
        add_customer(f"{name}@people.com")
    put(drop, "people.csv", "ann@people.com", "ben@people.com")
    look_until_answered(connection)
    batch = db.session.scalar(select(Batch))
    assert batch.state is State.READY and customers() == 2 and "results/people.result.csv" not in names(drop)
    batches.confirm(batch, batch.plan_digest)
    db.session.commit()
    look_until_answered(connection)
    assert answer(drop, "people.result.csv") == {"2": "purged", "3": "purged"}


def test_allowing_more_later_is_no_yes_to_a_file_that_waits_and_allowing_less_counts_at_once(drop, connection):
    connection.runs_up_to = 0
    add_customer("ann@people.com")
    put(drop, "people.csv", "ann@people.com")
    look_until_answered(connection)
    connection.runs_up_to = 50
    look_until_answered(connection)
    assert db.session.scalar(select(Batch.state)) is State.READY and customers() == 1
    put(drop, "other.csv", "ann@people.com", "nobody@people.com")
    look(connection)
    look(connection)
    connection.runs_up_to = 0
    look_until_answered(connection)
    assert customers() == 1


def test_allowing_more_is_no_yes_to_what_waits_and_is_read_again_either(drop, connection):
    connection.runs_up_to = 0
    add_customer("ann@people.com")
    put(drop, "people.csv", "ann@people.com")
    look_until_answered(connection)
    connection.runs_up_to = 50
    (claimed,) = drop.files.glob(".*.claimed")
    with claimed.open("a") as upload:
        upload.write("ben@people.com\n")
    look_until_answered(connection, looks=6)
    states = db.session.scalars(select(Batch.state).order_by(Batch.id)).all()
    assert states == [State.DISCARDED, State.READY] and customers() == 1


def test_only_its_own_connections_limit_makes_a_waiting_file_due(drop, connection):
    connection.runs_up_to = 0
    add_customer("ann@people.com")
    put(drop, "people.csv", "ann@people.com")
    look_until_answered(connection)
    db.session.execute(update(DroppedFile).values(runs_up_to=100))
    connection.next_look_at = now() + timedelta(hours=1)
    connect(drop, name="Another", runs_up_to=1_000, next_look_at=now() + timedelta(hours=1))
    assert pickup.due() == []
    connection.runs_up_to = 1
    db.session.commit()
    assert pickup.due() == [connection.id]


def test_two_refused_files_of_one_name_are_both_kept_for_their_month(drop, connection):
    for _ in range(2):
        put(drop, "people.csv", "x", header="Name")
        look(connection)
        poll(connection)
    kept = db.session.scalars(select(DroppedFile.kept_until)).all()
    look_until_answered(connection)
    assert len(kept) == 2 and {"failed/people.csv", "failed/people-2.csv"} <= names(drop)
    assert sum(until is not None for until in db.session.scalars(select(DroppedFile.kept_until))) == 2


def test_files_whose_answers_would_have_one_name_are_each_answered(drop, connection):
    for number, name in enumerate(("a.csv", "a.CSV", "ann@people.com.CSV", "ben@people.com.csv")):
        put(drop, name, f"nobody{number}@people.com")
    look_until_answered(connection)
    answers = [name for name in names(drop) if name.endswith(".result.csv")]
    assert len(answers) == 4 and "results/a.result.csv" in answers, answers
    assert not [name for name in names(drop) if "ann" in name or "ben" in name or "/." in name]


def test_what_lies_under_the_name_of_an_answer_to_be_is_not_written_through(drop, connection):
    victim = drop.files.parent / "victim"
    victim.write_text("another's")
    (drop.files / "results").mkdir()
    (drop.files / "results/people.result.csv.tmp").symlink_to("../../victim")
    put(drop, "people.csv", "nobody@people.com")
    look_until_answered(connection)
    assert victim.read_text() == "another's" and answer(drop, "people.result.csv") == {"2": "not found"}


def test_a_name_that_leaves_no_room_for_its_answers_is_left_alone(drop, connection):
    put(drop, "é" * 100 + ".csv", "nobody@people.com")
    put(drop, "é" * 98 + ".csv", "nobody@people.com")
    look_until_answered(connection)
    assert connection.left_alone == 1 and f"results/{'é' * 98}.result.csv" in names(drop)


def test_a_claim_nobody_knows_is_counted_and_left(drop, connection):
    put(drop, f".{'a' * 32}.claimed", "ann@people.com")
    look_until_answered(connection)
    assert connection.left_alone == 1 and names(drop) == {f".{'a' * 32}.claimed"}


def test_what_was_cancelled_may_be_sent_again(drop, connection):
    connection.runs_up_to = 0
    add_customer("ann@people.com")
    put(drop, "people.csv", "ann@people.com")
    look_until_answered(connection)
    batch = db.session.scalar(select(Batch))
    batches.confirm(batch, batch.plan_digest)
    batches.cancel(batch)
    db.session.commit()
    batches.run(1)
    look_until_answered(connection)
    assert answer(drop, "people.result.csv") == {"2": "cancelled"}
    connection.runs_up_to = 10
    put(drop, "again.csv", "ann@people.com")
    look_until_answered(connection)
    assert answer(drop, "again.result.csv") == {"2": "purged"}


def test_the_next_look_comes_when_a_file_is_of_age_and_not_a_whole_turn_later(app, drop, connection):
    connection.every_seconds = 3600
    app.config["DROP_AGE_SECONDS"] = 40
    put(drop, "people.csv", "nobody@people.com")
    look(connection)
    assert timedelta(seconds=30) < connection.next_look_at - now() < timedelta(seconds=60)
    look(connection)
    assert names(drop) == {"people.csv"}
    (drop.files / "people.csv").unlink()
    look(connection)
    assert connection.next_look_at - now() > timedelta(minutes=50)


def test_the_next_look_comes_when_a_file_was_kept_for_long_enough(app, drop, connection):
    connection.every_seconds = 86_400
    app.config["DROP_REST_SECONDS"] = 1_800
    put(drop, "people.csv", "nobody@people.com")
    look_until_answered(connection)
    assert timedelta(minutes=25) < connection.next_look_at - now() < timedelta(minutes=31)


def test_a_look_that_ran_out_of_time_goes_on_at_once(drop, connection):
    connection.every_seconds = 3600
    for number in range(5):
        put(drop, f"{number}.csv", f"nobody{number}@people.com")
    look(connection)
    poll(connection, keep_going=iter([True, False, False, False]).__next__)
    assert connection.next_look_at <= now() and pickup.due() == [1]


def test_a_file_that_could_not_be_used_is_kept_for_a_month(drop, connection):
    put(drop, "people.csv", "x", header="Name")
    look_until_answered(connection)
    assert "failed/people.csv" in names(drop)
    kept_until = db.session.scalar(select(DroppedFile.kept_until))
    assert timedelta(days=29) < kept_until - now() < timedelta(days=31)
    db.session.execute(update(DroppedFile).values(kept_until=now() - timedelta(minutes=1)))
    look_until_answered(connection)
    assert names(drop) == {"failed/people.error.txt"}


def test_a_batch_somebody_discarded_is_told_to_the_sender(drop, connection):
    connection.runs_up_to = 0
    add_customer("ann@people.com")
    put(drop, "people.csv", "ann@people.com")
    look_until_answered(connection)
    batches.discard(db.session.scalar(select(Batch)))
    look_until_answered(connection)
    assert "discarded" in (drop.files / "failed/people.error.txt").read_text() and customers() == 1


def test_a_file_is_kept_for_as_long_as_the_connection_says(drop, connection):
    connection.keep_days = 3
    put(drop, "people.csv", "nobody@people.com")
    look_until_answered(connection)
    assert "processed/people-1.csv" in names(drop)
    db.session.execute(update(DroppedFile).values(kept_until=now() - timedelta(minutes=1)))
    look_until_answered(connection)
    assert "processed/people-1.csv" not in names(drop) and "results/people.result.csv" in names(drop)


def test_an_upload_that_goes_on_after_its_answer_is_told(app, drop, connection):
    app.config["DROP_REST_SECONDS"] = 3_600
    put(drop, "people.csv", "nobody@people.com")
    put(drop, "whole.csv", "nobody.else@people.com")
    look_until_answered(connection)
    assert {"processed/people-1.csv", "processed/whole-2.csv"} <= names(drop)
    os.utime(drop.files / "processed/whole-2.csv")  # as a server does whose rename is a copy
    with (drop.files / "processed/people-1.csv").open("a") as upload:
        upload.write("ben@people.com\n")
    db.session.execute(update(DroppedFile).values(kept_until=now(), next_try_at=now()))
    look(connection)
    told = "failed/people-1.error.txt"
    results = {f"results/{name}.result.csv{ending}" for name in ("people", "whole") for ending in ("", ".sha256")}
    assert names(drop) == {told, "failed/people-1.csv", *results}
    assert "changed on the server after it was read" in (drop.files / told).read_text()
    assert db.session.scalar(select(DroppedFile.refusal).where(DroppedFile.name == "people.csv"))


def test_it_is_still_told_when_we_die_while_telling(app, drop, connection, monkeypatch):
    app.config["DROP_REST_SECONDS"] = 3_600
    put(drop, "people.csv", "nobody@people.com")
    look_until_answered(connection)
    with (drop.files / "processed/people-1.csv").open("a") as upload:
        upload.write("ben@people.com\n")
    with monkeypatch.context() as patched:
        patched.setattr(pickup.files, "refuse_late", lambda *_: 1 / 0)
        db.session.execute(update(DroppedFile).values(kept_until=now(), next_try_at=now()))
        look(connection)
    db.session.execute(update(DroppedFile).values(next_try_at=now()))
    look(connection)
    assert {"failed/people-1.csv", "failed/people-1.error.txt"} <= names(drop)
    assert db.session.scalar(select(DroppedFile.kept_as)) == "failed/people-1.csv"


def test_files_of_one_name_are_kept_each_for_itself(app, drop, connection):
    """The second neither hides that the first went on, nor goes or is told of when the first does."""
    app.config["DROP_REST_SECONDS"] = 3_600
    put(drop, "people.csv", "nobody@people.com")
    look_until_answered(connection)
    with (drop.files / "processed/people-1.csv").open("a") as upload:
        upload.write("ben@people.com\n")
    put(drop, "people.csv", "somebody@people.com")
    look_until_answered(connection)
    put(drop, "people.csv", "x", header="Name")
    look_until_answered(connection)
    assert {"processed/people-1.csv", "processed/people-2.csv", "failed/people.csv"} <= names(drop)
    first = DroppedFile.id == 1
    db.session.execute(update(DroppedFile).where(first).values(kept_until=now(), next_try_at=now()))
    look(connection)
    assert {"failed/people-1.csv", "processed/people-2.csv", "failed/people.csv"} <= names(drop)
    assert "no column called" in (drop.files / "failed/people.error.txt").read_text()
    db.session.execute(update(DroppedFile).where(DroppedFile.id == 3).values(kept_until=now(), next_try_at=now()))
    look(connection)
    assert {"failed/people-1.csv", "processed/people-2.csv"} <= names(drop) and "failed/people.csv" not in names(drop)


def test_the_very_same_file_twice_at_once_waits_no_longer_than_the_first(drop, connection):
    add_customer("ann@people.com")
    put(drop, "a.csv", "ann@people.com")
    put(drop, "b.csv", "ann@people.com")
    look_until_answered(connection, looks=6)
    told = [answer(drop, f"{name}.result.csv")["2"] for name in "ab"]
    assert sorted(told) == ["already purged,an earlier batch purged this customer", "purged"]


def test_what_is_to_be_thrown_away_is_not_forgotten_while_its_folder_is_away(app, drop, connection):
    app.config["DROP_REST_SECONDS"] = 3_600
    put(drop, "people.csv", "nobody@people.com")
    look_until_answered(connection)
    (drop.files / "processed").rename(drop.files / "away")
    for _ in range(2):
        db.session.execute(update(DroppedFile).values(kept_until=now(), next_try_at=now()))
        look(connection)
    assert db.session.scalar(select(DroppedFile.kept_until)) and "processed/" in connection.last_error
    (drop.files / "away").rename(drop.files / "processed")
    look_until_answered(connection)
    assert not db.session.scalar(select(DroppedFile.kept_until)) and "processed/people-1.csv" not in names(drop)


@pytest.mark.parametrize("folder", ["processed", "failed"])
@pytest.mark.parametrize("is_link", [True, False])
def test_a_folder_of_ours_that_is_none_is_told_and_not_answered_into_for_ever(app, drop, connection, folder, is_link):
    app.config["DROP_REST_SECONDS"] = 3_600
    place = drop.files / folder
    if is_link:
        place.symlink_to("nowhere")
    else:
        place.touch()
    put(drop, "people.csv", "nobody@people.com", header="Customer Email" if folder == "processed" else "Name")
    look_until_answered(connection)
    assert f"into {folder}" in connection.last_error and connection.failing_since
    assert db.session.scalar(select(DroppedFile.state)) is FileState.TAKEN
    last = pickup.test(connection)[-1]
    assert last.title == "Write an answer" and not last.is_well and folder in last.words
    place.unlink()
    look_until_answered(connection)
    assert db.session.scalar(select(DroppedFile.state)) is FileState.ENDED and connection.failing_since is None
    assert pickup.test(connection)[-1].is_well


def test_two_columns_called_type_are_one_too_many(drop, connection):
    add_customer("ann@people.com")
    put(drop, "people.csv", "ann@people.com,purge,tag", header="Customer Email,Type_,type")
    look_until_answered(connection)
    assert customers() == 1 and "two columns called “type”" in (drop.files / "failed/people.error.txt").read_text()


def test_nobodys_name_is_in_the_sentence_about_a_file_without_a_header(drop, connection):
    put(drop, "people.csv", header="Jane Doe,Jane Doe,ann")
    look_until_answered(connection)
    told = (drop.files / "failed/people.error.txt").read_text()
    assert told == "Columns 1 and 2 have the same name. Rename or remove one of them.\n"


def test_a_connection_that_brings_files_nobody_can_use_is_marked(drop, connection, signed_in):
    add_customer("ann@people.com")
    for name in ("monday.csv", "tuesday.csv"):
        put(drop, name, "x", header="Name")
    put(drop, "numbers.csv", "4711", "4712")
    put(drop, "mixed.csv", "4711", "ann@people.com")
    look_until_answered(connection)
    assert (
        "has brought 3 files since yesterday that cannot be used"
        in signed_in().get(f"/settings/sftp-connections/{connection.id}").text
    )
    db.session.execute(update(DroppedFile).values(ended_at=now() - timedelta(days=2)))
    assert not pickup.worries(connection)


def test_an_address_in_a_files_name_does_not_outlive_it(drop, connection):
    put(drop, "ann@people.com.csv", "ann@people.com")
    look_until_answered(connection)
    assert not [name for name in names(drop) if "ann" in name]
    assert "@" not in db.session.scalar(select(DroppedFile.name)) + db.session.scalar(select(Batch.file_name))


def test_what_a_file_was_called_is_forgotten_a_month_after_it_is_on_no_server(drop, connection):
    put(drop, "ann-ray.csv", "ann@people.com")
    look_until_answered(connection)
    db.session.execute(update(DroppedFile).values(ended_at=now() - timedelta(days=31), kept_until=now()))
    db.session.commit()
    tidy()
    assert db.session.scalar(select(DroppedFile.name)) == "ann-ray.csv"  # it has to be found there
    db.session.execute(update(DroppedFile).values(kept_until=None))
    db.session.commit()
    tidy()
    assert "ann" not in db.session.scalar(select(DroppedFile.name))


@pytest.mark.sqlite
def test_a_year_of_files_is_looked_up_and_not_read_through(drop, connection, signed_in):
    put(drop, "people.csv", "ann@people.com")
    browser, asked = signed_in(), {}
    event.listen(db.engine, "before_cursor_execute", lambda _c, _cu, sql, values, *_: asked.update({sql: values}))
    for _ in range(4):
        look(connection)
    assert (drop.files / "results" / "people.result.csv").exists()
    for page in ("", f"/{connection.id}", f"/{connection.id}?before=9"):
        browser.get(f"/settings/sftp-connections{page}")
    told = []
    for sql, values in [(sql, values) for sql, values in asked.items() if "dropped_file" in sql]:
        plan = db.session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values)
        told += [(step[3], sql) for step in plan if re.search(r"\bdropped_file\b", step[3].partition(" USING ")[0])]
    assert len(told) > 20
    for step, sql in told:
        # By the connection alone only pages of the history are read, newest first.
        by = re.search(r"\((.*)\)", step)
        assert by and (by[1] != "connection_id=?" or "LIMIT" in sql), (step, sql)


def test_ten_thousand_files_are_listed_and_taken_bit_by_bit(drop, connection):
    for number in range(10_000):
        (drop.files / f"{number:05}.csv").write_text(f"Customer Email\n{number}@people.com\n")
    poll(connection)
    asked = itertools.chain(itertools.repeat(True, 20), itertools.repeat(False))
    poll(connection, keep_going=lambda: next(asked))
    states = select(DroppedFile.state, func.count()).group_by(DroppedFile.state)
    counted = dict(db.session.execute(states).all())
    assert sum(counted.values()) == 10_000 and connection.failures == 0
    assert counted.get(FileState.TAKEN, 0) > 10


def test_a_changed_host_key_stops_everything_and_a_rotation_does_not(drop, connection):
    put(drop, "people.csv", "nobody@people.com")
    stranger = OpenSsh(host_key_kinds=("ed25519",))
    stranger.stop()
    connection.host_keys = stranger.host_keys
    look(connection)
    assert connection.failures == 1 and "not pinned" in connection.last_error and names(drop) == {"people.csv"}
    assert connection.next_look_at > now()
    connection.host_keys = [*stranger.host_keys, *drop.host_keys]
    look_until_answered(connection)
    assert connection.failures == 0 and "results/people.result.csv" in names(drop)


@pytest.mark.parametrize("number", [0, 1])
def test_each_kind_of_host_key_can_be_the_only_one_pinned(drop, number):
    connection = connect(drop, host_keys=[drop.host_keys[number]])
    look(connection)
    assert connection.seen_at, connection.last_error


def test_a_key_the_server_does_not_know_is_a_stated_failure_with_growing_pauses(drop, connection):
    pickup.set_private_key(connection, pickup.new_private_key())
    pauses = []
    for _ in range(4):
        look(connection)
        pauses.append((connection.next_look_at - now()).total_seconds())
    assert "refused the key" in connection.last_error and connection.failures == 4
    assert all(later > 1.5 * earlier for earlier, later in pairwise(pauses))


def test_a_folder_that_is_not_there_is_a_stated_failure(drop, connection):
    connection.folder = "/nowhere"
    look(connection)
    assert "folder is not there" in connection.last_error and connection.failing_since


def test_two_schedulers_ring_once_and_two_looks_do_not_meet(drop, connection):
    db.session.commit()
    assert pickup.due() == [1] and pickup.due() == [1], "due until a look has ended, or one lost bell would cost a turn"
    for _ in range(2):
        look_at_drops()
    assert queue.queue(queue.connect(), queue.PICK_UP).count == 1
    inner = []

    def look_inside(batch):
        db.session.rollback()
        pickup.poll(1, opened=lambda one: inner.append(one))

    put(drop, "people.csv", "nobody@people.com")
    look(connection)
    poll(connection, look_inside)
    db.session.rollback()
    assert inner == [] and db.session.scalar(select(func.count()).select_from(Batch)) == 1


def test_a_paused_connection_is_not_looked_at(drop, connection):
    pickup.pause(connection)
    put(drop, "people.csv", "nobody@people.com")
    look_until_answered(connection)
    assert names(drop) == {"people.csv"}
    db.session.commit()
    assert pickup.due() == []
    pickup.resume(connection)
    look_until_answered(connection)
    assert "results/people.result.csv" in names(drop)


def test_what_was_picked_up_before_a_pause_does_not_run_by_itself(drop, connection):
    add_customer("ann@people.com")
    put(drop, "people.csv", "ann@people.com")
    look(connection)
    poll(connection)
    pickup.pause(connection)
    db.session.commit()
    work()
    assert db.session.scalar(select(Batch.state)) is State.READY and customers() == 1
    pickup.resume(connection)
    look_until_answered(connection)
    assert answer(drop, "people.result.csv") == {"2": "purged"}


def test_a_connection_that_fails_for_long_or_is_silent_for_long_is_marked(drop, connection, signed_in):
    browser = signed_in()
    assert "to look at" not in browser.get("/batches").text
    connection.failing_since = now() - timedelta(hours=1)
    db.session.commit()
    assert "to look at" in browser.get("/batches").text
    connection.failing_since, connection.silent_hours, connection.last_file_at = None, 24, now() - timedelta(hours=25)
    db.session.commit()
    assert pickup.worries(connection) == ["has brought no file for more than 24 hours"]
    assert db.session.get(SftpConnection, connection.id).failures == 0


def test_every_outcome_is_answered_for(drop, connection):
    add_customer("ann@people.com")
    put(drop, "people.csv", "ann@people.com", "x@people.com")
    look_until_answered(connection)
    batch = db.session.scalar(select(Batch))
    counted = batches.outcomes([batch.id])[batch.id]
    assert sum(counted.values()) == batch.rows == len(answer(drop, "people.result.csv"))
    assert counted[Outcome.PURGED] == 1
