"""One customer with real workers: ahead of bulk work, and one deletion however many ask for it."""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs import bell, queue, schedule
from purge import batches
from purge.batches import Outcome, State
from purge.extensions import db
from purge.models import Customer, User
from tests.instance import Admin, Instance
from tests.people import add_customer
from tests.test_batches import confirmed


@pytest.fixture
def shop(tmp_path):
    """A started installation with 3,000 customers."""
    instance = Instance(tmp_path / "shop", CHUNK_SIZE="100")
    instance.command("init-db")
    instance.command("demo-data", "--customers", "3000")
    yield instance.start()
    instance.stop()


def open_single(person: int):
    customer = db.session.get(Customer, person)
    batch = batches.open_single(
        customer, batches.preview_single(customer).digest, db.session.scalar(db.select(User.id))
    )
    db.session.commit()
    return batch


def test_one_customer_rings_in_a_queue_of_its_own(app, signed_in):
    signed_in()
    person = add_customer("ann@people.com")
    bell.ring(open_single(person))
    connection = queue.connect()
    assert [queue.queue(connection, name).count for name in (queue.SINGLE, queue.BULK)] == [1, 0]


def test_a_worker_takes_one_customer_before_a_file_that_rang_first(app, signed_in, worker):
    signed_in()
    person = add_customer("ann@people.com")
    add_customer("ben@people.com")
    bulk, single = confirmed("ben@people.com"), open_single(person)
    bell.ring(bulk)
    bell.ring(single)
    worker()
    assert bulk.state is single.state is State.FINISHED and single.finished_at < bulk.finished_at


def test_whom_no_file_would_purge_is_purged_from_the_profile(app, signed_in, worker):
    """Somebody's import changed the shown address and not the key: a file is in doubt whom it means, who looks at them is not."""
    signed_in()
    person = add_customer("ann@people.com")
    db.session.execute(db.update(Customer).where(Customer.id == person).values(email="ben@people.com"))
    batch = open_single(person)
    bell.ring(batch)
    worker()
    assert batches.single_outcome(batch) is Outcome.PURGED and db.session.get(Customer, person) is None


def test_the_sweeper_rings_again_for_one_customer(app, signed_in, worker):
    signed_in()
    batch = open_single(add_customer("ann@people.com"))
    schedule.sweep()
    worker()
    assert batches.single_outcome(batch) is Outcome.PURGED


def test_who_shares_an_address_is_meant_when_chosen_from_their_profile(app, signed_in, worker):
    signed_in()
    person, other = add_customer("ann@people.com"), add_customer("ann@people.com")
    batch = open_single(person)
    bell.ring(batch)
    worker()
    assert batches.single_outcome(batch) is Outcome.PURGED
    assert db.session.scalars(db.select(Customer.id)).all() == [other]


def test_many_admins_at_once_make_one_deletion_and_the_others_are_told(shop):
    admins = [Admin(shop) for _ in range(6)]
    with ThreadPoolExecutor(6) as together:
        answers = list(together.map(lambda admin: admin.outcome(admin.purge(77)), admins))
    assert all(
        "was permanently deleted" in answer or "already purged" in answer or "was purged" in answer
        for answer in answers
    )
    assert shop.ask("SELECT count(*) FROM purge_request WHERE outcome = 'purged'") == [(1,)]
    assert shop.ask("SELECT count(*) FROM ledger_entry") == [(1,)]
    assert shop.ask("SELECT count(*), count(*) FILTER (WHERE id = 77) FROM customer") == [(2999, 0)]


def test_a_purge_while_a_file_with_the_same_people_runs(shop, tmp_path):
    """Each person goes once, by the one door or the other, and every request has its outcome."""
    admin, people = Admin(shop), tmp_path / "people.csv"
    emails = shop.ask("SELECT id, email FROM customer ORDER BY id LIMIT 2000")
    people.write_text("\n".join(["Customer Email", *(email for _, email in emails), ""]))
    with ThreadPoolExecutor(2) as beside:
        bulk = beside.submit(shop.flask, "purge", str(people), "--yes")
        while not shop.ask("SELECT 1 FROM batch WHERE state = 'running'"):
            assert not bulk.done() or bulk.result().returncode == 0, bulk.result().stderr
            time.sleep(0.02)
        told = [admin.outcome(admin.purge(emails[number][0])) for number in (1999, 1500, 1000, 1800)]
        assert bulk.result(120).returncode == 0, bulk.result().stderr
    assert all(re.search("permanently deleted|already purged|was purged", answer) for answer in told), told
    assert shop.ask("SELECT count(*) FROM ledger_entry") == [(2000,)]
    assert shop.ask("SELECT count(*) FROM purge_request WHERE outcome = 'purged'") == [(2000,)]
    assert shop.ask("SELECT count(*) FROM purge_request WHERE outcome IS NULL") == [(0,)]
    assert shop.ask("SELECT count(*) FROM customer") == [(1000,)]
