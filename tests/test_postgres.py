"""What only PostgreSQL can do to us: stop, cut connections, see a deadlock, take too long, be another one than we need."""

import re
import signal
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from importlib import import_module

import psycopg
import pytest
from sqlalchemy import event, func, insert, select, text
from sqlalchemy.exc import DBAPIError, OperationalError

from app import create_app
from jobs import health
from purge import batches, schema
from purge.batches import Outcome, State
from purge.batches.check import BLOCK_ROWS, FEW_ROWS
from purge.batches.model import Chunk
from purge.cli import purge_csv
from purge.config import SESSION
from purge.customers import Asked, Sort, find
from purge.erasure.engine import NotErased, among, erase
from purge.erasure.map import read_map
from purge.extensions import alone, db, for_one_question, now, reading
from purge.models import Customer, Reward, RewardStatus
from tests import PATIENCE
from tests.instance import CHECKOUT, FLASK, Admin, Instance, free_port
from tests.people import add_customer, hang_everything_on, refuse
from tests.postgres import Postgres
from tests.shop import Shop, make_stock
from tests.test_batches import checked, confirmed, counts, opened, work

pytestmark = pytest.mark.postgresql


@pytest.fixture
def own_server():
    server = Postgres()  # with fsync: what it says is committed is so after a crash too
    yield server
    if server.process.poll() is not None:
        server.start()
    server.remove()


@pytest.fixture
def shop(tmp_path, own_server):
    stock = make_stock(tmp_path, DATABASE_URL=own_server.url(own_server.make()))
    made = Shop(tmp_path, stock, DATABASE_URL=own_server.url(own_server.make(stock.database)))
    yield made
    made.stop()


def wait_until_finished(shop) -> None:
    def is_finished() -> bool:
        with suppress(psycopg.OperationalError):
            return shop.ask("SELECT state FROM batch") == [("finished",)]
        return False

    shop.wait_for(is_finished)
    shop.assert_only_the_planned_are_gone()


def test_what_was_let_go_is_free_at_once(app):
    """However long the server process that held it would take to end."""
    with db.engine.begin() as connection:
        for number in range(1_000):
            connection.execute(text(f"CREATE TEMPORARY TABLE t{number} ()"))
    for _ in range(2):
        with alone(db.engine, "a test") as is_alone:
            assert is_alone


def test_what_was_lost_with_its_session_is_free_too(app):
    cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
    with alone(db.engine, "a test"), db.engine.begin() as other:
        assert other.execute(text(cut)).all() == [(True,)]
    with alone(db.engine, "a test") as is_alone:
        assert is_alone


@pytest.mark.parametrize("way", [signal.SIGQUIT, signal.SIGINT], ids=["crash", "stop"])
def test_the_server_is_away_in_the_middle_of_a_batch_and_comes_back(shop, own_server, dice, way):
    purging = shop.purge()
    for at in sorted(dice.randrange(1, len(shop.planned) // 2) for _ in range(3)):
        shop.wait_for(lambda at=at: shop.purged() >= at)
        assert shop.purged() < len(shop.planned)
        own_server.stop(way)
        time.sleep(dice.random() * 2)
        own_server.start()
    purging.kill()
    purging.communicate()
    wait_until_finished(shop)


def test_inline_goes_on_when_the_server_is_back(shop, own_server, dice):
    purging = shop.purge("--inline")
    at = dice.randrange(1, len(shop.planned) // 2)
    shop.wait_for(lambda: shop.purged() >= at)
    own_server.stop()
    time.sleep(2)
    own_server.start()
    shop.assert_ended_as_planned(purging)


def test_while_the_server_is_away_every_page_says_so(shop, own_server):
    admin = Admin(shop.instance)
    own_server.stop()
    for page in ("/", "/batches", "/customers", "/login"):
        assert "The database does not take this now" in admin.get(page), page
    assert "There is nothing here" in admin.get("/nowhere")
    own_server.start()
    assert "<h1>Batches" in admin.get("/batches")


def test_connections_cut_again_and_again_while_it_runs_lose_and_double_nothing(shop, own_server, dice):
    database = shop.instance.environ["DATABASE_URL"].rpartition("/")[2]
    purging = shop.purge()
    shop.wait_for(lambda: shop.purged() > 0)
    ours = "FROM pg_stat_activity WHERE datname = %s AND application_name = 'purge' AND state <> 'idle'"
    cut = 0
    for _ in range(40):
        time.sleep(dice.random() / 10)
        cut += len(own_server.ask("postgres", f"SELECT pg_terminate_backend(pid) {ours}", database))
    assert cut
    purging.kill()
    purging.communicate()
    wait_until_finished(shop)


def test_connections_cut_during_commit_after_the_server_has_committed(shop, own_server, dice):
    """A standby that never answers holds every commit up when it has been written and nobody has been told."""
    database = shop.instance.environ["DATABASE_URL"].rpartition("/")[2]
    purging = shop.purge()
    untold = "FROM pg_stat_activity WHERE datname = %s AND application_name = 'purge' AND wait_event = 'SyncRep'"
    for _ in range(6):
        at = shop.purged() + dice.randrange(1, len(shop.planned) // 12)
        shop.wait_for(lambda at=at: shop.purged() >= at)
        own_server.set("synchronous_standby_names", "nobody")
        shop.wait_for(lambda: own_server.ask("postgres", f"SELECT 1 {untold} AND query LIKE 'COMMIT%%'", database))
        before = shop.purged()
        assert own_server.ask("postgres", f"SELECT pg_terminate_backend(pid) {untold}", database)
        own_server.set("synchronous_standby_names", "")
        assert before < len(shop.planned)
    purging.kill()
    purging.communicate()
    wait_until_finished(shop)


def test_a_deadlock_is_tried_again(app):
    first, second = (add_customer(f"{name}@people.com") for name in ("ann", "ben"))
    batch = confirmed("ann@people.com", "ben@people.com")
    url = app.config["SQLALCHEMY_DATABASE_URI"].replace("+psycopg", "")
    lock = "SELECT 1 FROM customer WHERE id = %s FOR UPDATE"
    with psycopg.connect(url) as other:
        other.execute("SET deadlock_timeout = '1h'")  # the other one is not the one to give up
        other.execute(lock, [second])
        running = threading.Thread(target=_in_app, args=(app, batches.run, batch.id))
        db.session.commit()
        running.start()
        time.sleep(0.3)  # it holds the first by now, and waits for the second
        other.execute(lock, [first])
        other.commit()
    running.join(30)
    db.session.expire_all()
    assert not running.is_alive() and counts(batch) == {Outcome.PURGED: 2} and batch.state is State.FINISHED


def refuse_with(code: str, id: int, unless: str = "false") -> None:
    """From now on PostgreSQL refuses to delete this customer, and calls it so; not where `unless` is true."""
    refuse("DELETE", "customer", f"old.id = {id}")
    does = f"BEGIN IF {unless} THEN RETURN old; END IF; RAISE 'no' USING ERRCODE = '{code}'; END"
    db.session.execute(text(f"CREATE OR REPLACE FUNCTION refused() RETURNS trigger LANGUAGE plpgsql AS $$ {does} $$"))


@pytest.mark.parametrize("code", ["P0001", "LH001", "21000", "38001"])
def test_whatever_a_refusal_is_called_it_loses_only_its_row(app, code):
    ids = [add_customer(f"p{n}@people.com") for n in range(8)]
    batch = confirmed(*(f"p{n}@people.com" for n in range(8)))
    refuse_with(code, ids[5])
    work(batches.run, batch)
    assert counts(batch) == {Outcome.PURGED: 7, Outcome.FAILED: 1} and batch.state is State.FINISHED


@pytest.mark.parametrize("code", ["25006", "26000", "42501", "53100", "54000", "57P01", "58030", "XX000"])
def test_trouble_of_the_servers_fails_nobody_and_the_chunk_waits(app, code):
    ids = [add_customer(f"p{n}@people.com") for n in range(8)]
    batch = confirmed(*(f"p{n}@people.com" for n in range(8)))
    refuse_with(code, ids[5])
    with pytest.raises(DBAPIError):
        work(batches.run, batch)
    whole = select(Chunk.requests).where(Chunk.batch_id == batch.id, Chunk.state == "waiting")
    assert counts(batch) == {} and db.session.scalars(whole).all() == [8]
    db.session.execute(text("DROP TRIGGER refused ON customer"))
    work(batches.run, batch)
    assert counts(batch) == {Outcome.PURGED: 8}


@pytest.mark.parametrize("code", ["XX001", "53400", "25P04"])
def test_one_for_whom_even_a_chunk_of_one_is_too_much_waits_and_holds_up_nobody(app, code):
    ids = [add_customer(f"p{n}@people.com") for n in range(8)]
    batch = confirmed(*(f"p{n}@people.com" for n in range(8)))
    refuse_with(code, ids[5])
    db.session.commit()
    until = time.monotonic() + PATIENCE
    while counts(batch) != {Outcome.PURGED: 7}:
        assert time.monotonic() < until
        with pytest.raises(DBAPIError):
            work(batches.run, batch)
    assert batch.state is State.RUNNING


@pytest.mark.parametrize("code", ["40001", "40P01"])
def test_what_got_in_the_way_is_tried_again_and_not_for_ever(app, monkeypatch, code):
    person, tries = add_customer("ann@people.com"), import_module("purge.batches.run").MOST_RETRIES
    batch = confirmed("ann@people.com")
    db.session.execute(text("CREATE SEQUENCE tried"))  # which no rollback takes back
    refuse_with(code, person, unless=f"nextval('tried') > {tries + 3}")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(OperationalError):
        work(batches.run, batch)
    assert db.session.scalar(text("SELECT last_value FROM tried")) == 1 + tries and counts(batch) == {}
    work(batches.run, batch)
    assert counts(batch) == {Outcome.PURGED: 1}


def test_a_check_waits_a_moment_for_a_table_that_somebody_vacuums(app, monkeypatch, caplog):
    """As a VACUUM or a REINDEX of an administrator's has it for hours."""
    monkeypatch.setattr(import_module("purge.batches.check"), "TELL_SECONDS", 0.2)
    person = add_customer("p0@people.com")
    with psycopg.connect(app.config["SQLALCHEMY_DATABASE_URI"].replace("+psycopg", "")) as other:
        db.session.commit()
        other.execute("LOCK TABLE purge_request IN SHARE UPDATE EXCLUSIVE MODE")
        batch = checked(*(f"p{n}@people.com" for n in range(FEW_ROWS + 1)))
    assert batch.planned == 1 and "without statistics" in caplog.text
    db.session.commit()
    with ExitStack() as opened:
        pooled = [opened.enter_context(db.engine.connect()) for _ in range(db.engine.pool.checkedin())]
        assert pooled and {one.scalar(text("SHOW lock_timeout")) for one in pooled} == {SESSION["lock_timeout"]}
    batches.confirm(batch, batch.plan_digest)
    work(batches.run, batch)
    assert not db.session.get(Customer, person)


def test_a_check_whose_connection_is_cut_while_it_waits_for_the_table_counts_as_no_attempt(app):
    """With five of them the file would be refused."""
    batch = opened(*(f"p{n}@people.com" for n in range(FEW_ROWS + 1)))
    batches.map_fields(batch, 0, False)
    db.session.commit()
    told = []

    def check() -> None:
        with app.app_context(), pytest.raises(OperationalError) as cut:
            batches.check(batch_id)
        told.append(cut)

    batch_id = batch.id
    url = app.config["SQLALCHEMY_DATABASE_URI"].replace("+psycopg", "")
    waits = "query LIKE '%ANALYZE%' AND wait_event_type = 'Lock'"
    with psycopg.connect(url) as holder, psycopg.connect(url, autocommit=True) as other:
        holder.execute("LOCK TABLE purge_request IN SHARE UPDATE EXCLUSIVE MODE")
        checking = threading.Thread(target=check)
        checking.start()
        until = time.monotonic() + PATIENCE
        while not other.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {waits}").fetchall():
            assert time.monotonic() < until and checking.is_alive()
    checking.join(PATIENCE)
    db.session.expire_all()
    assert told and (batch.state, batch.check_attempts) == (State.CHECKING, 0)
    work(batches.check, batch)
    assert batch.state is State.FINISHED


def test_a_long_check_gives_signs_of_life_to_its_end(app, monkeypatch):
    module = import_module("purge.batches.check")
    monkeypatch.setattr(module, "SIGN_SECONDS", 0)
    monkeypatch.setattr(module, "FROM_ROWS", 0)
    moves, move = [], module._move
    monkeypatch.setattr(module, "_move", lambda *given, **values: moves.append(values) or move(*given, **values))
    checked("nobody@people.com")
    assert moves.count({}) > len(read_map(db.metadata).tables)


def test_a_reward_that_is_sent_on_its_way_meanwhile_is_cancelled_too(app):
    person = add_customer("ann@people.com")
    db.session.execute(
        insert(Reward),
        {"customer_id": person, "status": RewardStatus.SENT, "amount": 5, "currency": "EUR", "created_at": now()},
    )
    batch = confirmed("ann@people.com")
    url = app.config["SQLALCHEMY_DATABASE_URI"].replace("+psycopg", "")
    with psycopg.connect(url) as other:
        other.execute("UPDATE reward SET status = 'pending'")
        running = threading.Thread(target=_in_app, args=(app, batches.run, batch.id))
        db.session.commit()
        running.start()
        while not other.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
            time.sleep(0.01)
        other.commit()
    running.join(30)
    assert not running.is_alive()
    assert db.session.execute(select(Reward.customer_id, Reward.status)).all() == [(None, RewardStatus.CANCELLED)]


@pytest.mark.parametrize(
    "away", ["ALTER TABLE customer DISABLE TRIGGER ALL", "ALTER TABLE device DROP CONSTRAINT fk_device_customer_id"]
)
def test_where_no_foreign_key_looks_we_look_ourselves(app, away):
    erasure, person = read_map(db.metadata), add_customer("half@people.com")
    hang_everything_on(person, erasure, "half")
    db.session.execute(text(away))
    db.session.commit()
    refuse("DELETE", "device", silently=True)
    with pytest.raises(NotErased, match=r"device\.customer_id still leads"):
        erase(db.session.connection(), erasure, [person])


def test_what_a_foreign_key_has_looked_at_is_not_looked_at_again(app):
    erasure, person, asked = read_map(db.metadata), add_customer("whole@people.com"), []
    hang_everything_on(person, erasure, "whole")
    event.listen(db.engine, "before_cursor_execute", lambda _c, _cu, sql, *_: asked.append(sql))
    erase(db.session.connection(), erasure, [person])
    looked = [re.search(r"WHERE (.+?) = ANY", sql)[1] for sql in asked if sql.startswith("SELECT") and "= ANY" in sql]
    assert looked == ["customer.id", "referral.referrer_id", "referral.friend_id"]  # these are put off until the end


def test_one_who_takes_too_long_is_deleted_alone_and_holds_up_nobody(app, monkeypatch):
    monkeypatch.setattr(import_module("purge.batches.run"), "STATEMENT_SECONDS", 0.3)
    ids = [add_customer(f"p{n}@people.com") for n in range(8)]
    refuse("DELETE", "customer", f"old.id = {ids[5]}")
    slow = "BEGIN PERFORM pg_sleep(1); RETURN old; END"
    db.session.execute(text(f"CREATE OR REPLACE FUNCTION refused() RETURNS trigger LANGUAGE plpgsql AS $$ {slow} $$"))
    batch = confirmed(*(f"p{n}@people.com" for n in range(8)))
    work(batches.run, batch)
    assert counts(batch) == {Outcome.PURGED: 8} and batch.state is State.FINISHED
    alone = select(func.count()).where(Chunk.batch_id == batch.id, Chunk.requests == 1, Chunk.purged == 1)
    assert db.session.scalar(alone) >= 1


def test_what_was_halved_is_tried_before_another_whole_chunk(app, monkeypatch, caplog):
    """Two fit into the time that a statement may take; by chance among the chunks, most would be tried whole first."""
    monkeypatch.setattr(import_module("purge.batches.run"), "STATEMENT_SECONDS", 2)
    people = [f"p{n}@people.com" for n in range(80)]
    for email in people:
        add_customer(email)
    app.config["CHUNK_SIZE"] = 8
    refuse("DELETE", "customer")
    slow = "BEGIN PERFORM pg_sleep(0.6); RETURN old; END"
    db.session.execute(text(f"CREATE OR REPLACE FUNCTION refused() RETURNS trigger LANGUAGE plpgsql AS $$ {slow} $$"))
    batch = confirmed(*people)
    purged = select(func.sum(Chunk.purged)).where(Chunk.batch_id == batch.id)

    def is_nobody_gone() -> bool:
        with reading(), db.engine.connect() as connection:
            return not connection.scalar(purged)

    work(batches.run, batch, keep_going=is_nobody_gone)
    refused = [record for record in caplog.records if "was rolled back" in record.message]
    assert len(refused) <= 3 and 1 <= counts(batch)[Outcome.PURGED] <= 2


def test_no_statistics_hold_a_value_of_who_was_purged(app):
    """Whoever may read a table may read them; the server would keep them for months, and of a table that is empty then for ever."""
    erasure, people = read_map(db.metadata), [f"canary{number}@people.com" for number in range(3)]
    for email in people:
        hang_everything_on(add_customer(email, surname=email), erasure, email)
    for number in range(3):
        add_customer(f"other{number}@people.com", surname=f"Other {number}")
    batch = confirmed(*people)
    db.session.commit()
    held = select(text("tablename || '.' || attname")).select_from(text("pg_stats"))
    held = held.where(text("concat(most_common_vals, histogram_bounds) ILIKE '%canary%'"))
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")
        there = {"customer.email", "team_note.body", "share_link.slug", "customer_search.text", "order.order_number"}
        assert there <= set(connection.scalars(held))
        work(batches.run, batch)
        assert there <= set(connection.scalars(held))
        batches.settle()
        assert connection.scalars(held).all() == []
        collation = text("SELECT collation_name FROM information_schema.columns WHERE column_name = 'email_key'")
        assert connection.scalar(collation) == "C"
    assert batch.cleared_at


def test_statistics_wait_for_a_table_that_is_being_vacuumed(app):
    """Whoever waited for it would end the vacuum, and a large table would never see one to its end."""
    add_customer("ann@people.com")
    batch = confirmed("ann@people.com")
    work(batches.run, batch)
    db.session.commit()
    with psycopg.connect(app.config["SQLALCHEMY_DATABASE_URI"].replace("+psycopg", "")) as other:
        other.execute("LOCK TABLE team_note IN SHARE UPDATE EXCLUSIVE MODE")
        assert not batches.settle()
    db.session.expire_all()
    assert batch.cleared_at is None
    db.session.commit()
    assert batches.settle()
    db.session.expire_all()
    assert batch.cleared_at


def test_a_paused_batch_is_not_cleared_before_its_chunk_in_hand_has_ended(app):
    add_customer("ann@people.com")
    batch = confirmed("ann@people.com")
    batches.pause(batch)
    db.session.commit()
    with psycopg.connect(app.config["SQLALCHEMY_DATABASE_URI"].replace("+psycopg", "")) as worker:
        worker.execute("SELECT 1 FROM chunk WHERE state = 'waiting' FOR UPDATE")
        batches.settle()
        db.session.expire_all()
        assert batch.cleared_at is None
        db.session.commit()
    batches.settle()
    db.session.expire_all()
    assert batch.cleared_at


@contextmanager
def held(app, person: int):
    """Somebody else's program holds this customer, for longer than we wait."""

    @event.listens_for(db.engine, "connect")
    def connect(connection, _record):
        connection.execute("SET lock_timeout = '200ms'")
        connection.commit()

    db.session.commit()
    db.engine.dispose()
    with psycopg.connect(app.config["SQLALCHEMY_DATABASE_URI"].replace("+psycopg", "")) as other:
        other.execute("SELECT 1 FROM customer WHERE id = %s FOR UPDATE", [person])
        yield


def test_one_whom_somebody_else_holds_waits_and_holds_up_nobody(app):
    ids = [add_customer(f"p{n}@people.com") for n in range(8)]
    batch = confirmed(*(f"p{n}@people.com" for n in range(8)))
    with held(app, ids[5]):
        until = time.monotonic() + PATIENCE
        while counts(batch) != {Outcome.PURGED: 7}:
            assert time.monotonic() < until
            with pytest.raises(OperationalError):
                work(batches.run, batch)
    work(batches.run, batch)
    assert counts(batch) == {Outcome.PURGED: 8} and batch.state is State.FINISHED


def test_inline_waits_for_one_whom_somebody_else_holds(app, tmp_path):
    """No sweeper rings for whoever works without workers."""
    people = [f"p{n}@people.com" for n in range(4)]
    ids, file, answers = [add_customer(email) for email in people], tmp_path / "people.csv", []
    file.write_text("\n".join(["Customer Email", *people, ""]))

    def purge() -> None:
        answers.append(app.test_cli_runner().invoke(purge_csv.purge, [str(file), "--inline", "--yes"]))

    with held(app, ids[1]):
        purging = threading.Thread(target=_in_app, args=(app, purge))
        purging.start()
        until = time.monotonic() + PATIENCE
        while db.session.scalar(select(func.sum(Chunk.purged))) != 3:
            db.session.rollback()
            assert time.monotonic() < until
        time.sleep(1)  # in which the last one is tried, in vain
    purging.join(60)
    assert answers[0].exit_code == 0 and answers[0].stderr.count("trying again") == 1, answers[0].output
    assert db.session.scalar(select(func.count()).select_from(Customer)) == 0


def test_a_click_on_one_whom_somebody_else_holds_is_answered(app, signed_in):
    browser, person = signed_in(), add_customer("ann@people.com")
    with held(app, person):
        answer = browser.post(f"/customers/{person}/purge", {}, page=f"/customers/{person}/purge")
        assert answer.status_code == 409 and "Nothing was changed" in answer.text


def test_a_server_that_takes_no_changes_is_said_to_people_and_machines(app, signed_in):
    browser, person = signed_in(), add_customer("ann@people.com")
    name = db.engine.url.database
    db.session.execute(text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
    db.session.commit()
    db.engine.dispose()
    assert browser.post(f"/customers/{person}/purge", {}, page=f"/customers/{person}/purge").status_code == 503
    assert not {finding.name: finding for finding in health.look()}["database"].is_well


def test_two_clicks_at_the_same_moment_are_one_purge(app):
    """On SQLite there is one writer; here the second waits for the customer."""
    add_customer("ann@people.com")
    first = confirmed("ann@people.com")
    second = confirmed("ann@people.com")
    db.session.commit()
    threads = [threading.Thread(target=_in_app, args=(app, batches.run, one.id)) for one in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    db.session.expire_all()
    ended = sorted(outcome for batch in (first, second) for outcome in counts(batch))
    assert ended == [Outcome.ALREADY_PURGED, Outcome.PURGED]


@pytest.mark.parametrize(
    ("made_with", "words"),
    [("ENCODING 'SQL_ASCII'", "encoding is SQL_ASCII"), ("ENCODING 'UTF8'", "run `flask init-db`")],
    ids=["another encoding", "no schema"],
)
def test_a_database_that_does_not_fit_is_said_before_anything_starts(tmp_path, postgres, made_with, words):
    postgres.ask("postgres", "DROP DATABASE IF EXISTS unfit")
    postgres.ask("postgres", f"CREATE DATABASE unfit TEMPLATE template0 LOCALE 'C' {made_with}")
    instance = Instance(tmp_path / "unfit", DATABASE_URL=postgres.url("unfit"))
    for command in (["worker"], ["schedule"], *([["init-db"]] if "encoding" in words else [])):
        told = instance.flask(*command, timeout=PATIENCE)
        assert told.returncode == 2 and words in told.stderr, told.stderr
    assert words in instance.flask("doctor").stdout


def test_a_worker_that_found_no_database_looks_at_it_before_it_works(tmp_path, postgres):
    postgres.ask("postgres", "DROP DATABASE IF EXISTS late")
    late = Instance(tmp_path / "late", DATABASE_URL=postgres.url("late"))
    with open(tmp_path / "told", "w") as output:
        worker = subprocess.Popen([*FLASK, "worker"], cwd=CHECKOUT, env=late.environ, stdout=output, stderr=output)
    late.wait_for(lambda: "waiting for it" in (tmp_path / "told").read_text())
    postgres.ask("postgres", "CREATE DATABASE late TEMPLATE template0")
    assert worker.wait(PATIENCE) == 2 and "run `flask init-db`" in (tmp_path / "told").read_text()


def test_init_db_on_three_machines_at_once_makes_one_schema(tmp_path, postgres):
    url = postgres.url(postgres.make())
    machines = [Instance(tmp_path / str(number), DATABASE_URL=url).begin_flask("init-db") for number in range(3)]
    told = [(machine.communicate()[0], machine.returncode) for machine in machines]
    assert [code for _, code in told] == [0, 0, 0], told


def test_a_database_out_of_reach_is_said_by_init_db(tmp_path):
    nowhere = f"postgresql://purge:sesame@127.0.0.1:{free_port()}/purge"
    told = Instance(tmp_path / "nowhere", DATABASE_URL=nowhere).flask("init-db")
    assert told.returncode == 2 and "cannot be reached" in told.stderr
    assert "Traceback" not in told.stderr and "sesame" not in told.stderr


def test_a_role_that_may_make_no_tables_is_said_by_init_db(tmp_path, postgres):
    name = postgres.make()
    postgres.ask("postgres", "DROP ROLE IF EXISTS reader")
    postgres.ask("postgres", "CREATE ROLE reader LOGIN")
    url = postgres.url(name).replace("purge@", "reader@")
    told = Instance(tmp_path / "reader", DATABASE_URL=url).flask("init-db")
    assert told.returncode == 2 and "could not be made: permission denied" in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DROP INDEX ix_order_customer_id", "order.customer_id"),
        (
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_order_customer_id'::regclass",
            "order.customer_id",
        ),
        (
            'DROP INDEX ix_order_customer_id; CREATE INDEX part ON "order" (customer_id) WHERE total > 100',
            "order.customer_id",
        ),
        ("SET timezone = 'Asia/Kathmandu'", "UTC"),
        ("DROP EXTENSION pg_trgm CASCADE", "pg_trgm"),
    ],
)
def test_what_a_database_lacks_is_named(app, statement, words):
    with db.engine.connect() as connection:
        assert schema.missing(connection) == []
        connection.exec_driver_sql(statement)
        (sentence,) = schema.missing(connection)
        assert words in sentence
        connection.rollback()
        connection.invalidate()


def test_an_index_of_all_who_are_somebodys_is_as_good_as_one_of_all(app):
    with db.engine.connect() as connection:
        connection.exec_driver_sql("DROP INDEX ix_order_customer_id")
        connection.exec_driver_sql('CREATE INDEX part ON "order" (customer_id) WHERE customer_id IS NOT NULL')
        assert schema.missing(connection) == []
        connection.rollback()


def test_a_server_that_is_too_old_is_named(app, monkeypatch):
    monkeypatch.setattr(schema, "OLDEST_POSTGRESQL", 99)
    with db.engine.connect() as connection:
        (sentence,) = schema.misfits(connection)
    assert "too old: 99" in sentence


def test_the_isolation_is_our_own_after_a_connection_had_another(app):
    """Which SQLAlchemy takes back to what it found at the first connection."""
    url, ask = db.engine.url, text("SHOW transaction_isolation")
    db.session.execute(text(f"ALTER DATABASE {url.database} SET default_transaction_isolation = 'serializable'"))
    db.session.commit()
    environ = {"INSTANCE_PATH": app.config["INSTANCE_PATH"], "DATABASE_URL": app.config["SQLALCHEMY_DATABASE_URI"]}
    with create_app(environ).app_context():
        with for_one_question(db.engine) as connection:
            assert connection.scalar(ask) == "read committed"
        with db.engine.connect() as connection:
            assert connection.scalar(ask) == "read committed"
        db.engine.dispose()


@pytest.mark.parametrize("term", ["wendy", "endy", "wen ott"])
def test_a_search_is_read_from_the_index_of_trigrams(app, term):
    add_customer("wendy@people.com", first_name="Wendy", surname="Otter")
    asked = []
    event.listen(db.engine, "before_cursor_execute", lambda _c, _cu, sql, values, *_: asked.append((sql, values)))
    find(Asked(term=term))
    searches = [one for one in asked if "customer_search" in one[0]]
    with db.engine.connect() as connection:
        for way in ("seqscan", "indexscan", "indexonlyscan"):  # as of a table with more in it than one customer
            connection.execute(text(f"SET enable_{way} = off"))
        for sql, values in searches:
            plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {sql}", values).scalars())
            assert "ix_customer_search_text" in plan, plan
        connection.invalidate()
    assert searches


@pytest.mark.parametrize(("ahead", "words"), [(3 * 86_400, "259,200 seconds ahead of"), (-90, "90 seconds behind")])
def test_a_clock_that_is_not_the_databases_is_named(app, monkeypatch, ahead, words):
    monkeypatch.setattr(schema, "now", lambda: now() + timedelta(seconds=ahead))
    with db.engine.connect() as connection:
        (sentence,) = schema.misfits(connection)
    assert words in sentence


def test_a_table_of_another_schema_that_leads_to_a_customer_is_named(app):
    with db.engine.connect() as connection:
        connection.execute(text("CREATE SCHEMA crm"))
        connection.execute(text("CREATE TABLE crm.card (of_id BIGINT REFERENCES customer (id))"))
        connection.execute(text("CREATE TABLE crm.customer (id BIGINT PRIMARY KEY)"))
        connection.execute(text("CREATE TABLE crm.call (of_id BIGINT REFERENCES crm.customer (id))"))
        (sentence,) = schema.missing(connection)
        assert sentence.startswith("crm.card.of_id leads to a customer")


def test_addresses_are_compared_byte_by_byte(app):
    """An index that follows the system's sorting rules is broken by their next version, and hides somebody."""
    of_the_column = "SELECT collation_name FROM information_schema.columns WHERE column_name = 'email_key'"
    assert db.session.scalars(text(of_the_column)).all() == ["C"]


@pytest.mark.parametrize("repeated", [[], ["p0@people.com"]], ids=["none twice", "one twice"])
def test_after_a_check_the_server_knows_the_rows_and_that_everybody_may_see_them(app, repeated):
    """Where it must look each row up, a question takes four times as long; where it takes them for few, minutes."""
    seen = "SELECT reltuples, relallvisible, relpages FROM pg_class WHERE relname = 'purge_request'"
    addresses = [f"p{n}@people.com" for n in range(BLOCK_ROWS + 1)]
    checked(*addresses[: FEW_ROWS + 1])
    assert db.session.execute(text(seen)).one().reltuples == FEW_ROWS + 1
    checked(*addresses, *repeated)
    _, all_visible, pages = db.session.execute(text(seen)).one()
    assert all_visible > pages * 0.9 > 0


def test_the_planner_sees_whom_a_chunk_holds(app):
    """Where it sees only an expression, it reads whole tables of those it knows nothing of yet."""
    with db.engine.connect() as connection:
        asked = select(Customer.id).where(among(Customer.id, [1, 2], connection)).compile(db.engine)
        plan = connection.exec_driver_sql(f"EXPLAIN {asked}", asked.params).scalars().all()
    assert "ANY ('{1,2}'::bigint[])" in "\n".join(plan)


def test_the_index_of_names_needs_no_search_path(app):
    """As ANALYZE, VACUUM and a restored dump have none."""
    add_customer("jose@people.com", first_name="José", surname="Núñez")
    db.session.commit()
    with db.engine.connect() as connection:
        connection.execute(text("SET search_path = ''"))
        connection.execute(text("REINDEX INDEX public.ix_customer_name"))
        connection.execute(text("ANALYZE public.customer"))
        assert connection.scalar(text("SELECT public.sort_text('Núñez', 'José')")) == "nunez jose"
        connection.invalidate()


@pytest.mark.parametrize("sort", Sort)
def test_every_order_is_read_from_an_index(app, sort):
    with db.engine.connect() as connection:
        asked = []
        event.listen(db.engine, "before_cursor_execute", lambda _c, _cu, sql, values, *_: asked.append((sql, values)))
        find(Asked(sort=sort))
        (listing,) = [one for one in asked if "ORDER BY" in one[0]]
        connection.execute(text("SET enable_seqscan = off"))
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {listing[0]}", listing[1]).scalars())
        index = {"newest": "created_at", "oldest": "created_at", "name": "name", "name_back": "name"}.get(
            sort, "email_key"
        )
        assert f"using ix_customer_{index}" in plan, plan
        connection.invalidate()


def _in_app(app, act, *arguments) -> None:
    with app.app_context():
        act(*arguments)
