"""A backup that is put back brings people back who had been purged since; a copy of the ledger, kept elsewhere, finds them."""

import shutil
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from pysqlite3 import dbapi2 as sqlite3
from sqlalchemy import select, update

from purge import batches
from purge.batches import Batch, Outcome, State, ledger_copy
from purge.cli.restored import copy_ledger, purge_again
from purge.evidence.ledger import LedgerEntry, entries
from purge.extensions import db, now
from purge.models import Customer, User
from tests.people import add_customer, refuse
from tests.test_batches import counts, finished, there, work
from tests.test_ledger import add_user_id
from tests.test_purge_command import batch as last_batch

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
def elsewhere(tmp_path):
    """Where the copies are."""
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere"


@pytest.fixture
def command(app, elsewhere):
    def command(command, *arguments, typed: str = ""):
        db.session.commit()
        answer = app.test_cli_runner().invoke(command, [str(elsewhere), *arguments], input=typed)
        db.session.rollback()
        db.session.expire_all()
        return answer

    return command


@pytest.fixture
def copy(command, elsewhere):
    """Copies the ledger; the new file."""

    def copy():
        before = set(elsewhere.iterdir())
        answer = command(copy_ledger)
        assert answer.exit_code == 0, answer.output
        (new,) = set(elsewhere.iterdir()) - before
        assert str(new) in answer.stdout
        return new

    return copy


@pytest.fixture
def again(command):
    def again(*arguments, typed: str = ""):
        """Without anything typed, the answer is yes."""
        return command(purge_again, "--inline", *arguments, *([] if typed else ["--yes"]), typed=typed)

    return again


@pytest.fixture
def ann_again(back_up, copy) -> int:
    """Who was purged and copied, and whom the backup has brought back; her id."""
    ann = add_customer("ann@people.com")
    backup = back_up()
    finished("ann@people.com")
    copy()
    backup.restore()
    return ann


def emails() -> list[str]:
    return list(db.session.scalars(select(Customer.email).order_by(Customer.email)))


def purge_from_profile(id: int) -> None:
    customer = db.session.get(Customer, id)
    user = db.session.scalar(select(User.id)) or add_user_id()
    work(batches.run, batches.open_single(customer, batches.preview_single(customer).digest, user))


def entries_in(file) -> int:
    return file.read_text().count("\n") - 2


def test_who_was_purged_since_the_backup_is_purged_again_and_nobody_else(again, back_up, copy):
    for name in ("before", "Since", "alone", "stays"):
        add_customer(f"{name}@people.com")
    finished("before@people.com")
    add_customer("before@people.com")  # signed up again, and stays
    backup = back_up()
    finished("since@people.com", "nobody@people.com")
    finished("alone@people.com")
    assert "people" not in copy().read_text()
    backup.restore()
    assert emails() == ["Since@people.com", "alone@people.com", "before@people.com", "stays@people.com"]
    answer = again(typed="2\n")
    assert answer.exit_code == 0 and "2 of 4 customers will be permanently deleted" in answer.stderr
    assert "is missing" not in answer.stderr and "know purges until" in answer.stderr
    assert emails() == ["before@people.com", "stays@people.com"]
    assert len(entries("since@people.com")[0]) == 1
    assert counts(last_batch()) == {Outcome.PURGED: 2} and batches.receipt(last_batch()).told["door"] == "restore"
    once_more = again()
    assert once_more.exit_code == 0 and "Nobody" in once_more.stdout
    assert db.session.scalar(select(db.func.count(Batch.id))) == 2  # the one before the backup, and this


def test_a_no_deletes_nobody_and_leaves_nothing(again, back_up, copy):
    add_customer("ann@people.com")
    backup = back_up()
    finished("ann@people.com")
    copy()
    backup.restore()
    assert again("--dry-run").exit_code == 0 and emails() == ["ann@people.com"]
    assert last_batch().state is State.READY
    refused = again(typed="2\n")
    assert refused.exit_code == 2 and emails() == ["ann@people.com"] and last_batch().state is State.DISCARDED


def test_who_is_younger_than_the_purge_stays_and_is_told_of(again, back_up, copy):
    add_customer("ann@people.com")
    add_customer("ben@people.com")
    backup = back_up()
    finished("ann@people.com", "ben@people.com")
    copy()
    backup.restore()
    db.session.execute(update(Customer).values(created_at=now()))
    db.session.execute(update(Customer).where(Customer.email == "ben@people.com").values(email_key="zoe@people.com"))
    answer = again()
    assert answer.exit_code == 1 and "Nobody else" in answer.stdout and len(emails()) == 2
    assert answer.stderr.count("  /customers/") == 1  # ben's number is zoe's now, who was never purged


def test_where_nothing_was_restored_nobody_goes(again, copy):
    add_customer("ann@people.com")
    finished("ann@people.com")
    add_customer("ann@people.com", created_at=LONG_AGO)  # taken over from elsewhere, as old as they were
    copy()
    assert "Nobody" in again().stdout and emails() == ["ann@people.com"]


def test_who_shares_an_address_with_somebody_purged_stays(again, back_up, copy):
    """Because a duplicate was purged from its profile, or because the address was given on."""
    twin, bob = add_customer("ann@people.com", created_at=LONG_AGO), add_customer("bob@people.com", created_at=LONG_AGO)
    ann = add_customer("ann@people.com")
    backup = back_up()
    purge_from_profile(ann)
    later = add_customer("ann@people.com")  # made twice again, after the backup
    purge_from_profile(later)
    db.session.execute(
        update(Customer).where(Customer.id == bob).values(email="b@people.com", email_key="b@people.com")
    )
    carol = add_customer("bob@people.com")
    finished("bob@people.com")
    assert there(twin, bob, ann, later, carol) == [True, True, False, False, False]
    copy()
    backup.restore()
    assert there(twin, bob, ann) == [True, True, True]
    assert again().exit_code == 0 and there(twin, bob, ann) == [True, True, False]
    assert "Nobody" in again().stdout and there(twin, bob) == [True, True]


def test_everybody_goes_who_shared_an_address_and_was_purged(again, back_up, copy):
    """One batch enters a fingerprint once."""
    twins = [add_customer("ann@people.com") for _ in range(3)]
    stays = add_customer("ann@people.com")
    backup = back_up()
    for twin in twins:
        purge_from_profile(twin)
    copy()
    backup.restore()
    answer = again()
    assert answer.exit_code == 0 and there(*twins, stays) == [False, False, False, True]
    assert answer.stdout.count("is finished: 1 rows") == 3


def test_a_no_to_a_later_batch_names_who_is_left(again, back_up, copy):
    twins = [add_customer("ann@people.com") for _ in range(3)]
    backup = back_up()
    for twin in twins:
        purge_from_profile(twin)
    copy()
    backup.restore()
    answer = again(typed="1\n\n")
    left = [twin for twin, is_there in zip(twins, there(*twins), strict=True) if is_there]
    assert answer.exit_code == 2 and len(left) == 2
    assert f"Batch {last_batch().id} was not confirmed; it deleted nobody." in answer.stderr
    assert answer.stderr.count("  /customers/") == 2 and all(f"  /customers/{one}\n" in answer.stderr for one in left)


def test_who_cannot_be_purged_is_tried_once(again, ann_again):
    ann = ann_again
    refuse("DELETE", "customer")
    answer = again()
    assert answer.exit_code == 1 and there(ann) == [True] and counts(last_batch()) == {Outcome.FAILED: 1}
    assert f"/customers/{ann}\n" in answer.stderr


def test_who_was_spared_by_the_run_is_told_of(again, ann_again):
    ann = ann_again
    db.session.execute(update(Customer).where(Customer.id == ann).values(email="other@people.com"))
    answer = again()
    assert answer.exit_code == 1 and counts(last_batch()) == {Outcome.CHANGED: 1}
    assert f"/customers/{ann}\n" in answer.stderr


def test_a_restore_of_the_customers_alone_is_found_too(again, copy):
    """The ledger has everybody still."""
    ann = add_customer("ann@people.com", created_at=LONG_AGO)
    finished("ann@people.com")
    copy()
    add_customer("ann@people.com", id=ann, created_at=LONG_AGO)
    assert again().exit_code == 0 and there(ann) == [False]


def test_a_copy_made_after_the_restore_hides_no_gap(again, back_up, copy, monkeypatch):
    """Its timer may be quicker than whoever restores: what was lost with the last hour is not known by then either."""
    monkeypatch.setattr(ledger_copy, "LEEWAY", timedelta(0))
    add_customer("ann@people.com")
    add_customer("ben@people.com")
    backup = back_up()
    finished("ann@people.com")
    copy()
    finished("ben@people.com")  # in no copy
    backup.restore()
    late = copy()
    answer = again()
    assert answer.exit_code == 1 and "A copy is missing: of purges between" in answer.stderr
    assert emails() == ["ben@people.com"] and entries_in(late) == 0


def test_a_database_without_customers_is_not_the_right_one(again, copy):
    copy()
    answer = again()
    assert answer.exit_code == 2 and "right one" in answer.stderr


def test_a_copy_that_cannot_be_opened_is_said_and_does_not_stop_the_next(again, copy, elsewhere):
    add_customer("ann@people.com")
    (elsewhere / "ledger-29990101.csv").mkdir()
    copy()
    answer = again()
    assert answer.exit_code == 2 and "ledger-29990101.csv cannot be read" in answer.stderr


def test_who_had_no_address_goes_and_whose_address_was_another_is_told_of(again, back_up, copy):
    odd, moved = add_customer("odd@people.com"), add_customer("moved@people.com")
    db.session.execute(update(Customer).where(Customer.id == odd).values(email="odd", email_key="odd"))
    backup = back_up()
    purge_from_profile(odd)
    new = {"email": "new@people.com", "email_key": "new@people.com"}
    db.session.execute(update(Customer).where(Customer.id == moved).values(**new))
    finished("new@people.com")
    copy()
    backup.restore()
    answer = again()
    assert (
        answer.exit_code == 1
        and f"/customers/{moved}\n" in answer.stderr
        and f"/customers/{odd}\n" not in answer.stderr
    )
    assert there(odd, moved) == [False, True]


def test_whose_address_changes_after_the_review_is_left_alone(again, back_up, copy):
    ann = add_customer("ann@people.com")
    backup = back_up()
    finished("ann@people.com")
    copy()
    backup.restore()
    again("--dry-run")
    db.session.execute(update(Customer).where(Customer.id == ann).values(email_key="other@people.com"))
    batch = last_batch()
    batches.confirm(batch, batch.plan_digest)
    work(batches.run, batch)
    assert counts(batch) == {Outcome.CHANGED: 1} and there(ann) == [True]


def test_a_copy_goes_on_where_the_last_whole_one_ends(again, back_up, copy, monkeypatch):
    monkeypatch.setattr(ledger_copy, "LEEWAY", timedelta(0))
    for name in ("ann", "ben", "carl", "dora"):
        add_customer(f"{name}@people.com")
    finished("dora@people.com")
    backup = back_up()
    finished("ann@people.com")
    first = copy()
    finished("ben@people.com")
    second = copy()
    assert (entries_in(first), entries_in(second)) == (2, 1)
    second.write_text(second.read_text()[:-5])
    third = copy()
    assert entries_in(third) == 1 and third.read_text().splitlines()[1] == second.read_text().splitlines()[1]
    second.unlink()
    finished("carl@people.com")
    assert entries_in(copy()) == 1
    backup.restore()
    assert again().exit_code == 0 and emails() == []


def test_what_a_chunk_in_hand_enters_is_in_the_next_copy(copy):
    """Its moment is before the copy, which cannot see it yet."""
    add_customer("ann@people.com")
    finished("ann@people.com")
    assert [entries_in(copy()) for _ in range(3)] == [1, 1, 1]
    entered = now() - ledger_copy.LEEWAY * 2
    db.session.execute(update(LedgerEntry).values(purged_at=entered))
    assert entries_in(copy()) == 0


def test_a_missing_copy_is_told_of(again, copy, monkeypatch):
    monkeypatch.setattr(ledger_copy, "LEEWAY", timedelta(0))
    add_customer("ann@people.com")
    first, second, third = copy(), copy(), copy()
    second.unlink()
    assert again().stderr.count("A copy is missing: of purges between") == 1
    first.unlink()
    answer = again()
    assert "A copy is missing: of purges before" in answer.stderr and answer.exit_code == 1
    third.unlink()
    answer = again()
    assert answer.exit_code == 2 and "There is no copy of a ledger" in answer.stderr


def test_a_copy_is_in_its_place_whole_or_not_at_all(command, elsewhere, monkeypatch):
    def breaks(*_):
        yield "a line\n"
        raise OSError("no space left")

    monkeypatch.setattr(ledger_copy, "_lines", breaks)
    assert command(copy_ledger).exit_code != 0 and list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda lines: [], "no copy"),
        (lambda lines: lines[:-1], "not whole"),
        (lambda lines: lines[:1] + lines[2:], "not whole"),
        (lambda lines: lines[1:], "no copy"),
        (lambda lines: [lines[0], lines[1][:40], *lines[2:]], "not whole"),
        (lambda lines: [lines[0], lines[1].replace("+00:00", "+01:00"), *lines[2:]], "not what was written"),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "not what was written"),
        (lambda lines: [lines[0].replace("2", "3"), *lines[1:]], "another LEDGER_KEY"),
        (lambda lines: [lines[0] + "0", *lines[1:]], "not whole"),
        (lambda lines: [lines[0], "é" + lines[1], *lines[2:]], "not whole"),
        (lambda lines: ["email", "ann@people.com"], "no copy"),
    ],
)
def test_a_copy_that_is_not_what_was_written_is_refused(again, back_up, copy, spoil, sentence):
    for name in ("ann", "ben"):
        add_customer(f"{name}@people.com")
    backup = back_up()
    finished("ann@people.com", "ben@people.com")
    file = copy()
    backup.restore()
    whole = file.read_text()
    file.write_text("\n".join(spoil(whole.splitlines())))
    answer = again()
    assert answer.exit_code == 2 and sentence in answer.stderr and file.name in answer.stderr
    assert "@" not in answer.stderr and len(emails()) == 2
    file.write_text(whole.replace("\n", "\r\n"))  # as some ways of sending make it
    assert again().exit_code == 0 and emails() == []
