"""A backup that is put back brings people back who had been purged since; a copy of the ledger, kept elsewhere, finds them."""

import shutil
from contextlib import closing
from datetime import UTC, datetime

import pytest
from pysqlite3 import dbapi2 as sqlite3
from sqlalchemy import select, update

from purge import batches
from purge.batches import Batch, Outcome
from purge.cli.copying import copy_ledger
from purge.evidence.ledger import entries
from purge.extensions import db, now
from purge.models import Customer
from tests.people import add_customer
from tests.test_batches import counts, finished, there, work
from tests.test_ledger import add_user_id
from tests.test_purge_command import batch as last_batch
from tests.test_purge_command import run  # noqa: F401 (a fixture)

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


class Backup:
    """The database as it was, and as it is again."""

    def __init__(self, postgres, folder):
        self.postgres, self.file, self.copy = postgres, db.engine.url.database, folder / "backup.db"
        self._let_go()
        if postgres:
            self.copy = postgres.make(self.file)
        else:
            with closing(sqlite3.connect(self.file)) as this, closing(sqlite3.connect(self.copy)) as other:
                this.backup(other)

    def restore(self):
        self._let_go()
        if self.postgres:
            self.postgres.drop(self.file)
            self.postgres.ask("postgres", f"CREATE DATABASE {self.file} TEMPLATE {self.copy}")
            return
        for left in ("-wal", "-shm"):
            with closing(open(self.file + left, "ab")) as log:
                log.truncate(0)
        shutil.copy(self.copy, self.file)

    def _let_go(self):
        db.session.commit()
        db.session.remove()
        db.engine.dispose()


@pytest.fixture
def back_up(app, postgres, tmp_path):
    return lambda: Backup(postgres, tmp_path)


@pytest.fixture
def copy(app, tmp_path):
    """The ledger's copy, in a file."""

    def copy(*arguments):
        db.session.commit()
        answer = app.test_cli_runner().invoke(copy_ledger, arguments)
        assert answer.exit_code == 0, answer.output
        file = tmp_path / "ledger.csv"
        file.write_text(answer.stdout)
        return file

    return copy


def emails() -> list[str]:
    return list(db.session.scalars(select(Customer.email).order_by(Customer.email)))


def test_who_was_purged_since_the_backup_is_purged_again_and_nobody_else(run, back_up, copy):  # noqa: F811
    for name in ("before", "Since", "alone", "stays"):
        add_customer(f"{name}@people.com")
    finished("before@people.com")
    add_customer("before@people.com")  # signed up again, and stays
    backup = back_up()
    finished("since@people.com", "nobody@people.com")
    finished("alone@people.com")
    file = copy()
    assert "people" not in file.read_text()
    backup.restore()
    assert emails() == ["Since@people.com", "alone@people.com", "before@people.com", "stays@people.com"]
    answer = run(file, "--ledger-copy", "--inline", typed="2\n")
    assert answer.exit_code == 0 and "2 of 4 customers will be permanently deleted" in answer.stderr
    assert emails() == ["before@people.com", "stays@people.com"]
    assert len(entries("since@people.com")[0]) == 1
    again = run(file, "--ledger-copy", "--inline", "--yes")
    assert again.exit_code == 0 and "Nobody" in again.stdout
    assert db.session.scalar(select(db.func.count(Batch.id))) == 2  # the one before the backup, and this


def test_who_signs_up_after_the_restore_stays(run, back_up, copy):  # noqa: F811
    add_customer("ann@people.com")
    backup = back_up()
    finished("ann@people.com")
    file = copy()
    backup.restore()
    db.session.execute(update(Customer).values(created_at=now()))
    assert "Nobody" in run(file, "--ledger-copy", "--inline", "--yes").stdout and emails() == ["ann@people.com"]


def test_where_nothing_was_restored_nobody_goes(run, copy):  # noqa: F811
    add_customer("ann@people.com")
    finished("ann@people.com")
    add_customer("ann@people.com", created_at=LONG_AGO)  # taken over from elsewhere, as old as they were
    assert "Nobody" in run(copy(), "--ledger-copy", "--inline", "--yes").stdout and emails() == ["ann@people.com"]


def test_whom_no_file_can_name_is_said_and_has_an_answer(run, back_up, copy):  # noqa: F811
    ann, odd, ben = (add_customer(f"{name}@people.com", created_at=LONG_AGO) for name in ("ann", "odd", "ben"))
    db.session.execute(
        update(Customer).where(Customer.id == odd).values(email="odd, no address", email_key="odd, no address")
    )
    backup = back_up()
    finished("ann@people.com", "ben@people.com")
    customer = db.session.get(Customer, odd)
    work(batches.run, batches.open_single(customer, batches.preview_single(customer).digest, add_user_id()))
    file = copy()
    backup.restore()
    twin = add_customer("ann@people.com", created_at=LONG_AGO)
    answer = run(file, "--ledger-copy", "--inline", "--yes")
    assert f"from their profiles: {ann}, {odd}, {twin}\n" in answer.stderr
    assert there(ann, odd, ben, twin) == [True, True, False, True]
    assert counts(last_batch()) == {Outcome.PURGED: 1, Outcome.HELD: 1, Outcome.INVALID: 1}


def test_a_copy_says_only_what_is_new_when_asked_and_several_are_one(run, back_up, copy):  # noqa: F811
    add_customer("ann@people.com")
    add_customer("ben@people.com")
    backup = back_up()
    finished("ann@people.com")
    first = copy().read_text()
    finished("ben@people.com")
    assert copy("--since", "2999-01-01").read_text().count("\n") == 2
    file = copy("--since", "2020-01-01")
    file.write_text(first + file.read_text())
    backup.restore()
    assert run(file, "--ledger-copy", "--inline", "--yes").exit_code == 0 and emails() == []


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda lines: lines[:-1], "its end is missing"),
        (lambda lines: lines[:1] + lines[2:], "does not count 1 entries"),
        (lambda lines: lines[1:], "not the beginning"),
        (lambda lines: [lines[0], lines[1][:40], *lines[2:]], "Line 2 is no entry"),
        (lambda lines: [lines[0], lines[1][2:], *lines[2:]], "Line 2 is no entry"),
        (lambda lines: [lines[0], lines[1].split("+")[0], *lines[2:]], "Line 2 is no entry"),
        (lambda lines: ["purge-ledger,00", *lines[1:]], "another LEDGER_KEY"),
        (lambda lines: ["email", "ann@people.com"], "not the beginning"),
    ],
)
def test_a_copy_that_is_not_whole_or_another_ledgers_is_refused(run, copy, spoil, sentence):  # noqa: F811
    for name in ("ann", "ben"):
        add_customer(f"{name}@people.com")
    finished("ann@people.com", "ben@people.com")
    file = copy()
    file.write_text("\n".join(spoil(file.read_text().splitlines())))
    answer = run(file, "--ledger-copy", "--inline", "--yes")
    assert answer.exit_code == 2 and sentence in answer.stderr and "@" not in answer.stderr
