"""`flask purge`: the same river from the command line."""

import json
from importlib import import_module

import pytest

from purge import batches
from purge.batches import Batch, Door, State
from purge.batches.model import UploadPart
from purge.cli.purge_csv import purge
from purge.extensions import db
from purge.models import Customer
from tests.people import add_customer, refuse

LINES = ["Customer Email", "ann@people.com", "nobody@people.com", "broken", "ann@people.com"]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "people.csv"
    path.write_text("\n".join(LINES) + "\n")
    return path


@pytest.fixture
def run(app):
    def run(*arguments, typed: str = ""):
        db.session.commit()
        answer = app.test_cli_runner().invoke(purge, [str(argument) for argument in arguments], input=typed)
        db.session.rollback()
        db.session.expire_all()
        return answer

    return run


def batch() -> Batch | None:
    return db.session.scalar(db.select(Batch).order_by(Batch.id.desc()))


def customers() -> int:
    return db.session.scalar(db.select(db.func.count()).select_from(Customer))


def test_json_is_one_object_with_a_count_for_every_outcome(run, file):
    add_customer("ann@people.com")
    answer = run(file, "--inline", "--yes", "--json")
    told = json.loads(answer.stdout)
    assert answer.exit_code == 0 and customers() == 0
    assert set(told) == {"batch", "state", "rows", "outcomes", "seconds"} and told["state"] == "finished"
    assert told["outcomes"] == {
        "purged": 1, "not_found": 1, "invalid": 1, "duplicate": 1, "already_purged": 0,
        "changed": 0, "held": 0, "failed": 0, "cancelled": 0,
    }  # fmt: skip
    assert told["rows"] == 4 and batch().door is Door.CLI
    assert batch().cleared_at


def test_a_dry_run_stops_at_the_review(run, file):
    add_customer("ann@people.com")
    answer = run(file, "--inline", "--dry-run")
    assert answer.exit_code == 0 and "1 of 1 customers will be permanently deleted" in answer.stderr
    assert customers() == 1 and batch().state is State.READY


def test_a_row_for_something_else_is_no_purge_unless_somebody_says_so(run, tmp_path):
    add_customer("ann@people.com"), add_customer("ben@people.com")
    file = tmp_path / "people.csv"
    file.write_text("Email,type\nann@people.com,purge\nben@people.com,unsubscribe\n")
    assert run(file, "--inline", "--yes").exit_code == 0 and customers() == 1
    assert run(file, "--inline", "--yes", "--any-type").exit_code == 0 and customers() == 0


def test_a_small_share_is_said_in_few_words(run, file, monkeypatch):
    monkeypatch.setattr(import_module("purge.batches.check"), "COUNTED", 0)
    for number in range(100):
        add_customer(f"p{number}@people.com")
    add_customer("ann@people.com")
    answer = run(file, "--inline", "--dry-run")
    assert "1 of your customers, less than 5 %, will be permanently deleted" in answer.stderr


def test_the_number_must_be_typed(run, file):
    add_customer("ann@people.com")
    refused = run(file, "--inline", typed="2\n")
    assert refused.exit_code == 2 and "Batch 1 was not confirmed; it deleted nobody." in refused.stderr
    assert customers() == 1 and batch().state is State.DISCARDED
    assert run(file, "--inline", typed="1\n").exit_code == 0 and customers() == 0


def test_a_failed_row_is_exit_status_1(run, file):
    add_customer("ann@people.com")
    refuse("DELETE", "customer")
    answer = run(file, "--inline", "--yes", "--json")
    assert answer.exit_code == 1 and json.loads(answer.stdout)["outcomes"]["failed"] == 1


def test_a_refused_file_is_exit_status_2_and_nothing_is_stored(run, tmp_path):
    path = tmp_path / "people.csv"
    for content, words in [(b"PK\x03\x04", "a spreadsheet"), (b'Email\n"ann@people.com\n', "never closed")]:
        path.write_bytes(content)
        answer = run(path, "--inline", "--yes")
        assert answer.exit_code == 2 and words in answer.stderr and "Traceback" not in answer.output
    assert batch() is None


def test_a_column_that_is_not_plain_must_be_named(run, tmp_path):
    add_customer("ann@people.com")
    path = tmp_path / "people.csv"
    path.write_text("Name,Login\nAnn,ann@people.com\n")
    answer = run(path, "--inline", "--yes")
    assert answer.exit_code == 2 and '--column "Login"' in answer.stderr
    assert batch() is None and db.session.scalar(db.select(UploadPart)) is None
    assert run(path, "--inline", "--yes", "--column", "Nobody").exit_code == 2
    assert run(path, "--inline", "--yes", "--column", "login").exit_code == 0 and customers() == 0


def test_windows_1252_must_be_agreed_to(run, tmp_path):
    path = tmp_path / "people.csv"
    path.write_bytes("Email,Name\nzoe@people.com,Zoë\n".encode("cp1252"))
    assert run(path, "--inline", "--yes").exit_code == 2
    assert run(path, "--inline", "--yes", "--windows-1252").exit_code == 0


def test_without_workers_it_says_how_to_go_on(run, file):
    answer = run(file, "--yes")
    assert answer.exit_code == 2 and "--inline" in answer.stderr and batch() is None


def test_with_running_workers(instance, file):
    instance.start()
    answer = instance.flask("purge", str(file), "--yes")
    assert answer.returncode == 0 and "Batch 1 is finished: 4 rows" in answer.stdout
    assert "Checking" in answer.stderr


def test_a_batch_cancelled_from_elsewhere_ends_the_command(run, file, monkeypatch):
    add_customer("ann@people.com")
    real = batches.run

    def cancelled(batch_id, keep_going):
        batches.cancel(db.session.get(Batch, batch_id))
        db.session.commit()
        real(batch_id, keep_going=keep_going)

    monkeypatch.setattr(batches, "run", cancelled)
    answer = run(file, "--inline", "--yes", "--json")
    assert json.loads(answer.stdout)["outcomes"]["cancelled"] == 1 and customers() == 1
    assert answer.exit_code == 1  # not everybody was deleted
