"""The benchmark's parts work, on either database: what it says of a run is measured by statements it must know how to read."""

from functools import partial

import pytest

from benchmark import yardsticks
from benchmark.customers import without_the_index
from benchmark.postgresql import river
from purge.erasure.map import Action, read_map
from purge.extensions import db
from purge.models import Customer
from tests.people import add_customer, hang_everything_on

PEOPLE = 30


@pytest.fixture
def file(app, tmp_path):
    """It names everybody there is, and somebody else."""
    people = [f"person{number}@people.com" for number in range(PEOPLE)]
    for email in people:
        hang_everything_on(add_customer(email), read_map(db.metadata), email)
    db.session.commit()
    db.session.remove()
    file = tmp_path / "people.csv"
    file.write_text("\n".join(["Customer Email", *people, "nobody@people.com"]) + "\n")
    return file


@pytest.fixture
def environ(app):
    environ = {"INSTANCE_PATH": app.config["INSTANCE_PATH"]}
    if db.engine.dialect.name == "postgresql":
        environ["DATABASE_URL"] = db.engine.url.render_as_string(hide_password=False)
    return environ


@pytest.mark.parametrize("workers", [1, 2])
def test_the_benchmark_reads_every_statement_of_a_run(file, environ, workers):
    told = river(environ, file, workers=workers)
    assert (told["rows"], told["purged"]) == (PEOPLE + 1, PEOPLE)
    assert 0 < told["outside"] < told["run"]
    assert "COMMIT" in told["statements"] and (workers > 1 or "DELETE customer" in told["statements"])


@pytest.mark.sqlite
def test_a_run_without_the_search_index_can_be_measured(file, environ):
    without_the_index(environ["INSTANCE_PATH"])
    assert river(environ, file)["purged"] == PEOPLE


@pytest.mark.parametrize("way", ["raw SQL", "one by one", "object by object", "a job each"])
def test_each_yardstick_purges_whom_the_app_would(file, environ, tmp_path, way):
    measure = {
        "raw SQL": partial(yardsticks.raw_sql, environ, file),
        "one by one": partial(yardsticks.loop, environ, file, PEOPLE, yardsticks.one_by_one),
        "object by object": partial(yardsticks.loop, environ, file, PEOPLE, yardsticks.object_by_object),
        "a job each": partial(yardsticks.a_job_each, environ, file, PEOPLE, tmp_path / "redis"),
    }[way]
    assert measure() > 0
    assert db.session.scalars(db.select(Customer)).all() == []
    for part in read_map(db.metadata).tables:
        rows = db.session.execute(db.select(part.table)).mappings().all()
        assert bool(rows) == (part.rule.action is Action.ANONYMISE), part.table.name
        forgotten = [column.name for column in (*part.links, *part.emptied)]
        assert {row[name] for row in rows for name in forgotten} <= {None}, part.table.name
