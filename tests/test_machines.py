"""Several machines, each program a process of its own: what happens when one is away, comes twice, or is another version."""

import csv
import os
import re
import signal
import time
from contextlib import closing, contextmanager, suppress

import psycopg
import pytest
import redis
from pysqlite3 import dbapi2 as sqlite3
from rq import Callback, Queue
from rq.serializers import JSONSerializer
from sqlalchemy import text

from purge.extensions import alone, db
from tests import PATIENCE
from tests.instance import Admin
from tests.machines import Machines
from tests.shop import Shop
from tests.test_health import ready


@pytest.fixture
def shop(tmp_path, stock):
    made = Shop(tmp_path, stock, Machines)
    yield made
    made.stop()


def purged_some(shop, dice, times: int = 1) -> None:
    """Some more each time, and after so many times still not all."""
    at = shop.purged() + dice.randrange(1, len(shop.planned) // (2 * times))
    shop.wait_for(lambda: shop.purged() >= at)


def write(shop, statement: str) -> None:
    """Straight into the database, past the app."""
    if url := shop.instance.environ.get("DATABASE_URL"):
        with psycopg.connect(url) as connection:
            connection.execute(statement)
        return
    with sqlite3.connect(shop.instance.folder / "purge.db", timeout=PATIENCE) as connection:
        connection.execute(statement)
    connection.close()


def well(shop) -> dict[str, bool]:
    return ready(shop.instance)["checks"]


@pytest.mark.postgresql
def test_a_file_goes_through_two_web_servers_and_a_deploy_while_it_runs(shop, dice):
    here, first = Admin(shop.instance), shop.instance
    second = first.beside()
    second.begin("web")
    second.wait_for(second.answers)
    there = Admin(second)
    batch = re.search(r"/batches/\d+", here.upload(shop.file.read_bytes()))[0]
    column = next(csv.reader(shop.file.open(encoding="utf-8"))).index("Customer Email")
    there.send(f"{batch}/mapping", {**there.fields(there.get(f"{batch}/mapping")), "column": column})
    shop.wait_for(lambda: shop.ask("SELECT state FROM batch") == [("ready",)])
    here.send(f"{batch}/confirmation", {**here.fields(here.get(f"{batch}/review")), "typed": len(shop.planned)})
    for _ in range(3):
        at = shop.purged() + dice.randrange(1, len(shop.planned) // 4)
        shop.wait_for(lambda at=at: shop.purged() >= min(at, len(shop.planned)))
        for program in ("worker", "schedule"):
            assert set(first.end(program)) <= {0, -signal.SIGTERM}, program  # the latter while it still starts
        first.start("worker", "worker", "schedule")
    shop.wait_for(lambda: shop.ask("SELECT state FROM batch") == [("finished",)])
    assert "were permanently deleted" in there.get(f"{batch}/summary")
    assert set(first.end("web")) == {0}
    shop.assert_only_the_planned_are_gone()
    assert "Traceback" not in first.output


@pytest.mark.parametrize("seconds", [6, pytest.param(60, marks=pytest.mark.soak)])
@pytest.mark.parametrize("way", ["stopped", "hanging"])
def test_redis_away_for_a_while(shop, dice, way, seconds):
    """Stopped, it comes back empty; hanging, it answers nobody and remembers everything. A job in hand would end without it, so
    their processes are killed: what is left waits for it."""
    purging, server, admin = shop.purge(), shop.instance.redis, Admin(shop.instance)
    purged_some(shop, dice)
    server.stop() if way == "stopped" else server.process.send_signal(signal.SIGSTOP)
    workers = {process.pid for process in shop.instance.of("worker")}
    for pid in shop.instance.below(workers):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)  # in which the database ends what it had been asked
    before = shop.purged()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        assert "people.csv" in admin.get("/batches") and time.monotonic() - began < 10
        time.sleep(0.5)
    assert shop.purged() == before < len(shop.planned)
    server.start() if way == "stopped" else server.process.send_signal(signal.SIGCONT)
    shop.assert_ended_as_planned(purging)
    shop.wait_for(lambda: all(well(shop).values()))
    assert len(shop.instance.of("worker")) == 2, "nobody had to be started again"


@pytest.mark.parametrize("times", [1, pytest.param(4, marks=pytest.mark.soak)])
def test_the_scheduler_dead_for_an_hour_then_two_at_once(shop, dice, times):
    """An hour in which all else died too, so that nothing in Redis and no sign of life is younger."""
    machines = shop.instance
    purging = shop.purge()
    for _ in range(times):
        purged_some(shop, dice, times)
        machines.end("schedule", signal.SIGKILL)
        machines.end("worker", signal.SIGKILL)
        machines.redis.stop()
        earlier = "datetime({}, '-1 hour')" if "DATABASE_URL" not in machines.environ else "{} - interval '1 hour'"
        for table, moment in (("batch", "moved_at"), ("batch", "confirmed_at"), ("chunk", "finished_at")):
            write(shop, f"UPDATE {table} SET {moment} = {earlier.format(moment)}")
        machines.redis.start()
        machines.start("worker", "worker")
        shop.wait_for(lambda: well(shop)["workers"])
        before = shop.purged()
        time.sleep(2)
        assert shop.purged() == before < len(shop.planned)
        assert not well(shop)["scheduler"] and not well(shop)["progress"]
        machines.start("schedule", "schedule")
    shop.assert_ended_as_planned(purging)
    shop.wait_for(lambda: well(shop)["scheduler"] and well(shop)["progress"])


def test_workers_that_were_killed_are_not_taken_for_workers(shop):
    """Whose end nobody told Redis: their names stand there until another worker of the same queue looks."""
    machines = shop.instance
    shop.wait_for(lambda: well(shop)["workers"])
    machines.end("worker-pick-up", signal.SIGKILL)
    shop.wait_for(lambda: not well(shop)["workers"])
    machines.start("worker-pick-up")
    shop.wait_for(lambda: well(shop)["workers"])
    machines.end("worker", signal.SIGKILL)
    shop.wait_for(lambda: not well(shop)["workers"])
    refused = machines.flask("purge", str(shop.file), "--yes", timeout=PATIENCE)
    assert refused.returncode == 2 and "No worker is running" in refused.stderr


def test_the_scheduler_outlives_a_ledger_of_another_key(shop):
    machines = shop.instance
    Admin(machines).upload(shop.file.read_bytes())
    shop.wait_for(lambda: well(shop)["scheduler"])
    other = "decode('00', 'hex')" if "DATABASE_URL" in machines.environ else "x'00'"
    write(shop, f"UPDATE ledger_key SET fingerprint = {other}")
    write(shop, "UPDATE batch SET created_at = '2026-01-01 00:00:00'")
    shop.wait_for(lambda: "another LEDGER_KEY" in machines.output)
    time.sleep(3)
    assert len(machines.of("schedule")) == 1 and shop.ask("SELECT state FROM batch") == [("uploaded",)]


@pytest.mark.postgresql
def test_a_server_that_ends_idle_sessions_takes_no_lock_away(app):
    name = db.engine.url.database
    db.session.execute(text(f"ALTER DATABASE {name} SET idle_session_timeout = '100ms'"))
    db.session.commit()
    db.engine.dispose()
    with alone(db.engine, "a test"):
        time.sleep(1)
        with alone(db.engine, "a test") as is_alone:
            assert not is_alone


def test_told_to_stop_a_worker_finishes_the_chunk_in_hand_and_begins_no_other(shop, dice):
    """At any moment of it; to go on is for others, of whom here are none."""
    machines = shop.instance
    purging = shop.purge()
    purged_some(shop, dice)
    make_deletions_slow(shop)
    finished = []
    for _ in range(3):
        machines.end("schedule")
        shop.wait_for(lambda: is_at_a_chunk(shop))
        time.sleep(dice.random() / 10)
        done, in_hand = shop.ask(DONE)[0][0], len(machines.of("worker"))
        ended = set(machines.end("worker"))
        assert 0 in ended and ended <= {0, -signal.SIGTERM}, "the latter while it still starts"
        finished.append(shop.ask(DONE)[0][0] - done)
        # Some may end between our question and the signal; in the ten seconds that it takes chunks there would be dozens.
        assert finished[-1] <= 8 * in_hand
        time.sleep(1)
        assert shop.ask(DONE)[0][0] == done + finished[-1]
        machines.start("worker", "worker", "schedule")
    assert len([one for one in finished if one]) >= 2, "it may have been between two chunks once"
    purging.kill()
    purging.communicate()
    write(shop, "DROP TRIGGER slow" + (" ON customer" if "DATABASE_URL" in machines.environ else ""))
    shop.wait_for(lambda: shop.ask("SELECT state FROM batch") == [("finished",)])
    shop.assert_only_the_planned_are_gone()


DONE = "SELECT count(*) FROM chunk WHERE state = 'done' AND purged > 0"


def make_deletions_slow(shop) -> None:
    """A tenth of a second for a customer."""
    if "DATABASE_URL" in shop.instance.environ:
        write(
            shop,
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.1); RETURN old; END $$;"
            "CREATE TRIGGER slow BEFORE DELETE ON customer FOR EACH ROW EXECUTE FUNCTION slow()",
        )
        return
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300000) SELECT count(*) FROM n"
    write(shop, f"CREATE TRIGGER slow BEFORE DELETE ON customer BEGIN {numbers}; END")


def is_at_a_chunk(shop) -> bool:
    """Whether somebody is deleting at this moment."""
    if "DATABASE_URL" in shop.instance.environ:
        at_it = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'DELETE FROM customer%'"
        return shop.ask(f"{at_it} AND state = 'active' AND pid <> pg_backend_pid()") != [(0,)]
    with closing(sqlite3.connect(shop.instance.folder / "purge.db", timeout=0.05, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        connection.execute("ROLLBACK")
        return False


def test_hand_made_jobs_among_ours_run_nothing_and_hold_nothing_up(shop, dice, tmp_path):
    mark, purging = tmp_path / "pwned", shop.purge()
    connection = redis.Redis.from_url(shop.instance.redis.url)
    touch, at = f"touch {mark}", sorted(dice.randrange(1, len(shop.planned)) for _ in range(6))
    for purged in at:
        shop.wait_for(lambda purged=purged: shop.purged() >= purged)
        name, serializer = dice.choice(["single", "bulk", "pick-up"]), dice.choice([JSONSerializer, None])
        strange = Queue(name, connection=connection, serializer=serializer)
        strange.enqueue("os.system", touch)
        strange.enqueue("jobs.tasks.run_batch", 1, on_success=Callback(os.system), on_failure=Callback(os.system))
        connection.rpush(strange.key, "no-such-job")
    shop.assert_ended_as_planned(purging)
    shop.wait_for(lambda: all(Queue(name, connection=connection).count == 0 for name in ("single", "bulk", "pick-up")))
    assert not mark.exists() and all(well(shop).values())


def test_redis_emptied_again_and_again_under_living_workers(shop, dice):
    purging, connection = shop.purge(), redis.Redis.from_url(shop.instance.redis.url)
    emptied, until = 0, time.monotonic() + PATIENCE
    while purging.poll() is None:
        assert time.monotonic() < until
        if shop.purged():  # before that `flask purge` may find no worker
            connection.flushall()
            emptied += 1
        time.sleep(dice.random())
    assert emptied
    shop.assert_ended_as_planned(purging)


def test_the_same_job_delivered_again_and_again(shop, dice):
    purging = shop.purge()
    shop.wait_for(lambda: shop.ask("SELECT 1 FROM batch"))
    queue = Queue("bulk", connection=redis.Redis.from_url(shop.instance.redis.url), serializer=JSONSerializer)
    until = time.monotonic() + PATIENCE
    while purging.poll() is None:
        assert time.monotonic() < until
        queue.enqueue(f"jobs.tasks.{dice.choice(['check_batch', 'run_batch', 'run_batch'])}", 1, result_ttl=0)
        time.sleep(dice.random() / 5)
    shop.assert_ended_as_planned(purging)


@pytest.mark.parametrize("times", [1, pytest.param(4, marks=pytest.mark.soak)])
def test_a_schema_change_pending_stops_new_processes_in_a_sentence_and_the_batch_waits(shop, dice, times):
    machines = shop.instance
    purging = shop.purge()
    for told in range(1, times + 1):
        purged_some(shop, dice, times)
        assert set(machines.end("worker")) <= {0, -signal.SIGTERM}
        (version,) = shop.ask("SELECT version_num FROM alembic_version")[0]
        write(shop, "UPDATE alembic_version SET version_num = '0001'")
        before = shop.purged()
        for program in ("worker", "worker-single", "schedule", "web"):
            machines.end(program)
            assert machines.begin(program).wait(PATIENCE) != 0, program
        assert machines.output.count("flask init-db") >= 4 * told and "Traceback" not in machines.output
        assert shop.purged() == before < len(shop.planned)
        write(shop, f"UPDATE alembic_version SET version_num = '{version}'")
        machines.start("web", "worker", "worker", "worker-single", "schedule")
    shop.assert_ended_as_planned(purging)


@pytest.mark.parametrize("times", [1, pytest.param(4, marks=pytest.mark.soak)])
def test_somebody_who_holds_the_tables_holds_the_batch_up_and_no_more(shop, dice, times):
    """As a migration does while it changes them."""
    purging = shop.purge()
    for _ in range(times):
        purged_some(shop, dice, times)
        with holding(shop):
            before = shop.purged()
            time.sleep(3)
            assert shop.purged() == before < len(shop.planned)
    shop.assert_ended_as_planned(purging)


@contextmanager
def holding(shop):
    if url := shop.instance.environ.get("DATABASE_URL"):
        with psycopg.connect(url) as connection:
            while True:
                try:
                    connection.execute("LOCK TABLE customer, purge_request IN ACCESS EXCLUSIVE MODE")
                    break
                except psycopg.errors.DeadlockDetected:  # one side must give way, and it may be this one
                    connection.rollback()
            yield
        return
    connection = sqlite3.connect(shop.instance.folder / "purge.db", timeout=0, isolation_level=None)
    for _ in range(1_000 * PATIENCE):
        with suppress(sqlite3.OperationalError):
            connection.execute("BEGIN IMMEDIATE")
            break
        time.sleep(0.001)  # SQLite's own waiting looks every tenth of a second, and the chunks would have passed it by
    assert connection.in_transaction
    yield
    connection.execute("COMMIT")
    connection.close()
