"""The schema is what the migrations make, up and down, and nothing of it is made by hand."""

import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from flask_migrate import downgrade, upgrade
from sqlalchemy import inspect, text

from purge import schema
from purge.customers import search_index
from purge.erasure.map import read_map
from purge.extensions import db, reading
from tests.people import add_customer, everything, hang_everything_on
from tests.test_batches import confirmed
from tests.test_single import open_single


def test_the_migrations_make_exactly_what_the_models_say(app):
    with db.engine.connect() as connection:
        models = MigrationContext.configure(connection, opts={"include_name": search_index.in_models})
        assert compare_metadata(models, db.metadata) == []


def test_down_and_up_again_leaves_a_working_schema(app):
    add_customer("ann@people.com")
    db.session.commit()
    directory = app.extensions["migrate"].directory
    downgrade(directory=directory, revision="base")
    assert inspect(db.engine).get_table_names() == ["alembic_version"]
    upgrade(directory=directory)
    add_customer("ann@people.com")
    db.session.commit()


@pytest.mark.filterwarnings("error")
def test_a_first_start_warns_of_nothing(app):
    directory = app.extensions["migrate"].directory
    downgrade(directory=directory, revision="base")
    upgrade(directory=directory)


def test_a_schema_of_another_version_is_named(app):
    for version, advice in (("0001", "run `flask init-db`"), ("9999", "a newer version of Purge")):
        db.session.execute(text(f"UPDATE alembic_version SET version_num = '{version}'"))
        db.session.commit()
        (sentence,) = lacking(schema.misfits)
        assert version in sentence and advice in sentence
    told = app.test_cli_runner().invoke(args="init-db")
    assert told.exit_code == 2 and "a newer version of Purge" in told.output


def test_a_table_that_the_erasure_map_does_not_know_is_named_and_a_stranger_is_not(app):
    for name, leads_to in (("stranger", "loyalty_tier"), ("loyalty_card", "customer")):
        db.session.execute(text(f"CREATE TABLE IF NOT EXISTS {leads_to} (id BIGINT PRIMARY KEY)"))
        key = f"of_id BIGINT REFERENCES {leads_to} (id) ON DELETE SET NULL"
        db.session.execute(text(f"CREATE TABLE {name} (id BIGINT PRIMARY KEY, {key})"))
    db.session.execute(text("CREATE INDEX ix_loyalty_card ON loyalty_card (of_id)"))
    db.session.commit()
    (sentence,) = lacking(schema.missing)
    assert sentence.startswith("loyalty_card.of_id leads to a customer")


@pytest.mark.sqlite
def test_an_index_of_some_rows_is_none(app):
    for of_which, is_one in (("customer_id IS NOT NULL", True), ("total > 100", False)):
        db.session.execute(text("DROP INDEX ix_order_customer_id"))
        db.session.execute(text(f'CREATE INDEX ix_order_customer_id ON "order" (customer_id) WHERE {of_which}'))
        db.session.commit()
        assert [sentence.partition(" ")[0] for sentence in lacking(schema.missing)] == (
            [] if is_one else ["order.customer_id"]
        )


def lacking(looked_at) -> list[str]:
    with reading(), db.engine.connect() as connection:
        return looked_at(connection)


@pytest.mark.sqlite
def test_every_connection_keeps_sqlites_promises(app):
    with db.engine.connect() as connection:
        for pragma, wanted in [
            ("foreign_keys", 1),
            ("secure_delete", 1),
            ("journal_mode", "wal"),
            ("busy_timeout", 60000),
        ]:
            assert connection.execute(text(f"PRAGMA {pragma}")).scalar() == wanted


@pytest.mark.sqlite
def test_whoever_waits_to_write_is_next_and_not_the_one_who_has_just_written(app):
    """A loop of writers without a pause, as a running batch is, and one other who wants in."""
    done, turns = threading.Event(), []

    def greedy():
        while not done.is_set():
            with db.engine.begin() as connection:
                connection.execute(text("UPDATE user SET role = role"))
                turns.append("greedy")
                done.wait(0.02)

    def loop():
        with app.app_context():
            greedy()

    db.session.commit()
    thread = threading.Thread(target=loop)
    thread.start()
    try:
        while len(turns) < 5:
            pass
        for _ in range(5):
            before = len(turns)
            with db.engine.begin() as connection:
                connection.execute(text("UPDATE user SET role = role"))
                assert len(turns) - before <= 2
    finally:
        done.set()
        thread.join()


def test_down_and_up_with_batches_keeps_every_row(app, signed_in):
    signed_in()
    add_customer("ben@people.com")
    bulk = confirmed("ben@people.com", "nobody@people.com").id
    single = open_single(add_customer("ann@people.com")).id
    erasure = read_map(db.metadata)
    hang_everything_on(add_customer("joe@people.com"), erasure, "joe")
    db.session.commit()
    customers = everything(erasure)
    before = of_batches()
    directory = app.extensions["migrate"].directory
    downgrade(directory=directory, revision="0001")
    upgrade(directory=directory)
    after = of_batches()
    assert after["purge_request"] == before["purge_request"] and after["chunk"] == before["chunk"]
    assert [row[0] for row in after["batch"]] == [bulk, single]
    assert everything(erasure) == customers
    db.session.commit()
    if db.engine.dialect.name == "sqlite":
        with db.engine.connect() as connection:
            assert "AUTOINCREMENT" in connection.scalar(text("SELECT sql FROM sqlite_master WHERE name = 'batch'"))


def test_an_upgrade_forgets_what_told_of_persons_and_nothing_else(app, signed_in):
    signed_in()
    add_customer("ben@people.com")
    bulk, single = confirmed("ben@people.com"), open_single(add_customer("ann@people.com"))
    single.plan_digest = "a" * 64  # as the version before kept it
    db.session.commit()
    directory = app.extensions["migrate"].directory
    downgrade(directory=directory, revision="0006")
    upgrade(directory=directory)
    db.session.expire_all()
    assert single.plan_digest is None and bulk.plan_digest


def of_batches() -> dict[str, list[tuple]]:
    """The rows of a batch's tables."""
    rows = {
        table: [tuple(row) for row in db.session.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2"))]
        for table in ("batch", "chunk", "purge_request")
    }
    db.session.commit()
    return rows
