"""Several machines, each program a process of its own: what happens when one is away, comes twice, or is another version."""

import csv
import os
import re
import signal
import time
from contextlib import contextmanager, suppress

import psycopg
import pytest
import redis
from pysqlite3 import dbapi2 as sqlite3
from rq import Queue
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


def purged_some(shop, dice) -> None:
    at = dice.randrange(1, len(shop.planned) // 2)
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


def test_the_scheduler_dead_for_an_hour_then_two_at_once(shop, dice):
    """An hour in which all else died too, so that nothing in Redis and no sign of life is younger."""
    machines = shop.instance
    purging = shop.purge()
    purged_some(shop, dice)
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
    assert shop.purged() == before and not well(shop)["scheduler"] and not well(shop)["progress"]
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


def test_a_schema_change_pending_stops_new_processes_in_a_sentence_and_the_batch_waits(shop, dice):
    machines = shop.instance
    purging = shop.purge()
    purged_some(shop, dice)
    assert set(machines.end("worker")) <= {0, -signal.SIGTERM}
    (version,) = shop.ask("SELECT version_num FROM alembic_version")[0]
    write(shop, "UPDATE alembic_version SET version_num = '0001'")
    before = shop.purged()
    for program in ("worker", "worker-single", "schedule", "web"):
        machines.end(program)
        assert machines.begin(program).wait(PATIENCE) != 0, program
    assert machines.output.count("flask init-db") >= 4 and "Traceback" not in machines.output
    assert shop.purged() == before
    write(shop, f"UPDATE alembic_version SET version_num = '{version}'")
    machines.start()
    shop.assert_ended_as_planned(purging)


def test_somebody_who_holds_the_tables_holds_the_batch_up_and_no_more(shop, dice):
    """As a migration does while it changes them."""
    purging = shop.purge()
    purged_some(shop, dice)
    with holding(shop):
        before = shop.purged()
        time.sleep(3)
        assert shop.purged() == before
    shop.assert_ended_as_planned(purging)


@contextmanager
def holding(shop):
    if url := shop.instance.environ.get("DATABASE_URL"):
        with psycopg.connect(url) as connection:
            connection.execute("LOCK TABLE customer, purge_request IN ACCESS EXCLUSIVE MODE")
            yield
        return
    connection = sqlite3.connect(shop.instance.folder / "purge.db", timeout=PATIENCE, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.execute("COMMIT")
    connection.close()
