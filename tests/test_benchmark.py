"""What the benchmark says of a run is measured by statements it must know how to read, on either database."""

from benchmark.postgresql import river
from purge.extensions import db
from tests.people import add_customer


def test_the_benchmark_reads_every_statement_of_a_run(app, tmp_path):
    people = [f"person{number}@people.com" for number in range(30)]
    for email in people:
        add_customer(email)
    db.session.commit()
    db.session.remove()
    file = tmp_path / "people.csv"
    file.write_text("\n".join(["email", *people, "nobody@people.com"]) + "\n")
    environ = {"INSTANCE_PATH": app.config["INSTANCE_PATH"]}
    if db.engine.dialect.name == "postgresql":
        environ["DATABASE_URL"] = db.engine.url.render_as_string(hide_password=False)
    told = river({name: str(value) for name, value in environ.items()}, file)
    assert (told["rows"], told["purged"]) == (31, 30)
    assert "DELETE customer" in told["statements"] and 0 < told["outside"] < told["run"]
