"""Up, ready, measured: told to machines without words, and to a person with them."""

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import closing, suppress
from importlib import import_module
from pathlib import Path

import pytest
import redis
from pysqlite3 import dbapi2 as sqlite3
from sqlalchemy import text

from app import create_app
from jobs import health, queue, schedule
from purge import batches
from purge.erasure import residue
from purge.extensions import db, reading
from purge.models import Customer
from tests import PATIENCE
from tests.people import add_customer
from tests.test_batches import checked, confirmed, finished, opened, work
from tests.test_single import open_single

PARTS = {"database", "schema", "redis", "workers", "scheduler", "progress", "pending"}


def well() -> dict[str, bool]:
    return {finding.name: finding.is_well for finding in health.look()}


def ready(instance) -> dict:
    try:
        with urllib.request.urlopen(f"{instance.url}/readyz", timeout=PATIENCE) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        assert error.code == 503
        return json.load(error)


def wait_until(instance, **checks: bool) -> None:
    until = time.monotonic() + PATIENCE
    while not checks.items() <= ready(instance)["checks"].items():
        assert time.monotonic() < until, ready(instance)
        time.sleep(0.3)


def test_a_running_installation_is_ready_and_says_so_to_machines_and_people(instance):
    instance.start()
    wait_until(instance, **dict.fromkeys(PARTS, True))
    assert (
        ready(instance)["ready"]
        and urllib.request.urlopen(f"{instance.url}/healthz", timeout=PATIENCE).read() == b"up\n"
    )
    told = instance.flask("doctor")
    assert told.returncode == 0 and "2 for files, 3 for one customer" in told.stdout, told.stdout


def test_without_anything_beside_the_database_it_is_up_and_not_ready(app, visitor):
    app.config["REDIS_URL"] = "redis://127.0.0.1:1/0"
    answer = visitor.get("/readyz")
    unwell = {"redis": False, "workers": False, "scheduler": False}
    assert answer.status_code == 503
    assert answer.json == {"ready": False, "checks": {**dict.fromkeys(PARTS, True), **unwell}}
    assert visitor.get("/healthz").status_code == 200


def test_an_older_schema_is_not_well_and_the_words_say_what_to_do(app):
    db.session.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    db.session.commit()
    found = {finding.name: finding for finding in health.look()}["schema"]
    assert not found.is_well and "flask init-db" in found.words


def test_a_batch_that_stands_still_while_no_other_moves_is_noticed(app):
    add_customer("ann@people.com")
    batch_id = confirmed("ann@people.com").id
    db.session.commit()
    assert well()["progress"]
    db.session.execute(text("UPDATE batch SET moved_at = '2026-01-01 00:00:00'"))
    db.session.commit()
    found = {finding.name: finding for finding in health.look()}["progress"]
    assert not found.is_well and f"batch {batch_id}" in found.words


def test_a_batch_that_waits_until_others_have_had_their_turn_is_well(app):
    """One worker may be at a long check, or divide its time between a dozen batches."""
    add_customer("ann@people.com")
    waiting = confirmed("ann@people.com").id
    db.session.execute(text("UPDATE batch SET moved_at = '2026-01-01 00:00:00'"))
    db.session.commit()
    batches.map_fields(opened("ben@people.com"), 0, False)
    db.session.commit()
    assert well()["progress"]
    db.session.execute(text("UPDATE batch SET moved_at = '2026-01-01 00:00:00'"))
    db.session.commit()
    assert not well()["progress"]
    checked("nobody@people.com")  # the turn of the other comes only now
    assert well()["progress"] and db.session.get(batches.Batch, waiting).state is batches.State.RUNNING
    db.session.execute(text("UPDATE batch SET finished_at = '2026-01-01 00:00:00' WHERE state = 'finished'"))
    db.session.commit()
    assert not well()["progress"]


def test_purges_of_single_customers_hide_no_file_that_stands_still(app):
    """They have a worker of their own."""
    ann, ben = add_customer("ann@people.com"), add_customer("ben@people.com")
    stuck = confirmed("ann@people.com").id
    db.session.commit()
    db.session.execute(text("UPDATE batch SET moved_at = '2026-01-01 00:00:00'"))
    work(batches.run, open_single(ben))
    open_single(ann)
    db.session.commit()
    found = {finding.name: finding for finding in health.look()}["progress"]
    assert not found.is_well and f"batch {stuck}" in found.words


def test_a_check_that_stands_still_is_noticed(app):
    batch = opened("ann@people.com")
    batches.map_fields(batch, 0, False)
    db.session.commit()
    assert well()["progress"]
    db.session.execute(text("UPDATE batch SET moved_at = '2026-01-01 00:00:00'"))
    db.session.commit()
    assert not well()["progress"]


@pytest.mark.sqlite
def test_a_file_too_large_for_the_memory_is_not_written_anew_and_doctor_says_why(app, monkeypatch):
    checked("nobody@people.com")
    db.session.commit()
    monkeypatch.setattr(residue, "free_memory", lambda: 100_000)
    batches.settle()
    found = {finding.name: finding for finding in health.look(closely=True)}["files"]
    assert not found.is_well and "0 MB are free" in found.words and not is_cleared()
    assert Path(f"{db.engine.url.database}-wal").stat().st_size == 0  # what needs no memory is done
    monkeypatch.undo()
    batches.settle()
    assert is_cleared() and not residue.lacks_memory(db.engine)


def test_a_containers_own_limit_counts_and_what_only_lies_in_its_cache_does_not(tmp_path, monkeypatch):
    of_the_machine = residue.free_memory()
    monkeypatch.setattr(residue, "CGROUP", tmp_path)
    for name, says in (("current", "900000"), ("stat", "anon 500000\nactive_file 300000\ninactive_file 100000\n")):
        (tmp_path / f"memory.{name}").write_text(says)
    (tmp_path / "memory.max").write_text("1000000\n")
    assert residue.free_memory() == 500_000 < of_the_machine
    (tmp_path / "memory.max").write_text("max\n")
    assert residue.free_memory() > 500_000


@pytest.mark.sqlite
def test_what_is_no_database_is_said_to_be_out_of_reach(app, visitor):
    db.engine.dispose()
    Path(db.engine.url.database).write_bytes(b"something else" * 1_000)
    found = {finding.name: finding for finding in health.look(closely=True)}
    assert not found["database"].is_well and "out of reach" in found["database"].words
    assert not found["files"].is_well and "not known while database is not well" in found["files"].words
    app.config["METRICS_TOKEN"] = "right"
    told = visitor.client.get("/metrics", headers={"Authorization": "Bearer right"})
    assert told.status_code == 200 and 'purge_well{part="database"} 0.0' in told.text


def test_a_database_that_is_away_is_asked_once(tmp_path):
    """Where its machine is gone each question waits in vain; whoever looks would give up before the last of them."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.settimeout(1)
        url = f"postgresql://purge@127.0.0.1:{door.getsockname()[1]}/purge?sslmode=disable&gssencmode=disable"
        app = create_app({"INSTANCE_PATH": str(tmp_path), "DATABASE_URL": url, "METRICS_TOKEN": "right"})
        asked = []

        def turn_away():
            with suppress(TimeoutError):
                while True:
                    asked.append(door.accept()[0].close())

        turning_away = threading.Thread(target=turn_away)
        turning_away.start()
        told = app.test_client().get("/metrics", headers={"Authorization": "Bearer right"}).text
        turning_away.join()
    assert len(asked) == 1
    for part in ("database", "schema", "progress", "pending"):
        assert f'purge_well{{part="{part}"}} 0.0' in told


@pytest.mark.sqlite
def test_one_batch_that_stands_still_keeps_nobody_elses_traces_in_the_file(app):
    add_customer("ann@people.com")
    add_customer("ben@people.com")
    standing = confirmed("ann@people.com").id
    finished("ben@people.com")
    batches.settle()
    assert not is_cleared(), "for one that is at work it waits"
    db.session.execute(text(f"UPDATE batch SET moved_at = '2026-01-01 00:00:00' WHERE id = {standing}"))
    db.session.commit()
    batches.settle()
    assert is_cleared()


@pytest.mark.sqlite
def test_a_paused_batch_leaves_no_trace_of_whom_it_has_purged(app):
    app.config["CHUNK_SIZE"] = 1
    people = [f"trace{number}@people.com" for number in range(3)]
    for email in people:
        add_customer(email)
    batch, turns = confirmed(*people), iter([True, True])
    work(batches.run, batch, keep_going=lambda: next(turns, False))
    batches.pause(batch)
    db.session.commit()
    left = set(db.session.scalars(db.select(Customer.email)))
    db.session.commit()
    assert len(left) == 1 and traces(people) == set(people)
    batches.settle()
    db.session.expire_all()
    assert batch.cleared_at and traces(people) == left
    batches.resume(batch)
    db.session.commit()
    assert batch.cleared_at is None, "it goes on, and leaves others"


def traces(emails: list[str]) -> set[str]:
    """Which of these addresses stand somewhere in the database's files."""
    file = Path(db.engine.url.database)
    held = b"".join(path.read_bytes() for path in (file, file.with_name(f"{file.name}-wal")) if path.exists())
    return {email for email in emails if email.encode() in held}


@pytest.mark.sqlite
def test_who_reads_for_long_keeps_nobody_from_writing_and_is_waited_for(app):
    add_customer("ann@people.com")
    finished("ann@people.com")
    db.session.commit()
    with closing(sqlite3.connect(db.engine.url.database)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM customer").fetchall()
        add_customer("ben@people.com")
        db.session.commit()
        clearing = threading.Thread(target=_in_app, args=(app, batches.settle))
        began = time.monotonic()
        clearing.start()
        while clearing.is_alive():
            add_customer()
            db.session.commit()
        assert time.monotonic() - began < 20, "of the minute that it would wait for another reason"
        assert not is_cleared()
    batches.settle()
    assert is_cleared()


@pytest.mark.sqlite
def test_who_downloads_results_slowly_is_no_such_reader(app, signed_in, monkeypatch):
    monkeypatch.setattr(import_module("purge.batches.account"), "RESULTS_BLOCK", 0)
    browser = signed_in()
    batch_id = checked("ann@people.com", "ben@people.com").id
    db.session.commit()
    lines = browser.get(f"/batches/{batch_id}/results.csv", buffered=False).response
    begun = [next(lines), next(lines)]
    assert residue.empty_log(db.engine)
    assert b"".join([*begun, *lines]).splitlines()[1:] == [b"2,not found,", b"3,not found,"]


def _in_app(app, act) -> None:
    with app.app_context():
        act()


def is_cleared() -> bool:
    with reading(), db.engine.connect() as connection:
        ended = batches.Batch.state == batches.State.FINISHED
        return connection.scalar(db.select(batches.Batch.cleared_at).where(ended)) is not None


def test_the_oldest_batch_with_waiting_chunks_is_told(app):
    assert told_pending().value == 0
    add_customer("ann@people.com")
    batch_id = confirmed("ann@people.com").id
    db.session.execute(text("UPDATE batch SET confirmed_at = '2026-01-01 00:00:00'"))
    db.session.commit()
    assert told_pending().value > 86_400 and f"batch {batch_id}" in told_pending().words


def told_pending() -> health.Finding:
    return {finding.name: finding for finding in health.look()}["pending"]


def test_a_redis_that_takes_nothing_is_not_well(app, redis_url):
    assert well()["redis"]
    server = redis.Redis.from_url(redis_url)
    server.config_set("maxmemory", 1)
    try:
        found = {finding.name: finding for finding in health.look()}
        assert not found["redis"].is_well and "OutOfMemory" in found["redis"].words
        assert "redis is not well" in found["scheduler"].words
    finally:
        server.config_set("maxmemory", 0)


def test_the_scheduler_is_forgotten_when_it_gives_no_sign_of_life(app):
    assert not well()["scheduler"]
    health.scheduler_was_here()
    assert well()["scheduler"]


@pytest.mark.sqlite
def test_the_scheduler_is_well_however_long_the_file_takes_to_be_written_anew(app, monkeypatch):
    checked("nobody@people.com")
    db.session.commit()
    app.config["CLEAR_AFTER_SECONDS"] = 0
    connection, may_end, tidy = queue.connect(), threading.Event(), schedule.tidy

    def tidy_at_length():
        with app.app_context():
            schedule.tidy_at_length()

    monkeypatch.setattr(schedule, "SIGN_SECONDS", 0.05)
    monkeypatch.setattr(schedule, "tidy", lambda: may_end.wait(PATIENCE) and tidy())
    tidying = threading.Thread(target=tidy_at_length)
    tidying.start()
    for _ in range(3):
        connection.delete(health.SCHEDULER_KEY)
        until = time.monotonic() + PATIENCE
        while not well()["scheduler"]:
            assert tidying.is_alive() and time.monotonic() < until
        # Killed now, it is missed as soon as ever.
        assert connection.ttl(health.SCHEDULER_KEY) <= health.SCHEDULER_SECONDS
    may_end.set()
    tidying.join(PATIENCE)
    assert is_cleared() and not tidying.is_alive()


@pytest.mark.parametrize("given, status", [("Bearer right", 200), ("Bearer wrong", 401), ("", 401)])
def test_metrics_need_their_token(app, visitor, given, status):
    app.config["METRICS_TOKEN"] = "right"
    assert visitor.client.get("/metrics", headers={"Authorization": given}).status_code == status


def test_metrics_count_and_name_nobody(app, visitor):
    assert visitor.get("/metrics").status_code == 404, "not there where no token is set"
    app.config["METRICS_TOKEN"] = "right"
    add_customer("ann@people.com")
    finished("ann@people.com", "nobody@people.com")
    db.session.commit()
    told = visitor.client.get("/metrics", headers={"Authorization": "Bearer right"}).text
    for line in (
        'purge_requests_total{outcome="purged"} 1.0',
        'purge_requests_total{outcome="not_found"} 1.0',
        'purge_batches{state="finished"} 1.0',
        'purge_well{part="database"} 1.0',
    ):
        assert line in told
    assert "people.com" not in told and "_created" not in told
