"""The queue: ids and nothing else, our own functions and no others, and a bell that can be lost."""

import base64
import os
import zlib
from contextlib import suppress

import pytest
from rq import Callback, Queue
from rq.job import Job
from rq.serializers import JSONSerializer
from sqlalchemy.exc import DBAPIError

from jobs import bell, queue, schedule
from purge import batches
from purge.batches import State
from purge.extensions import db
from tests.people import add_customer
from tests.test_batches import checked, confirmed, move_the_ledger_away, opened, work


def test_a_job_carries_an_id_and_no_address(app):
    add_customer("ann@people.com")
    batch = confirmed("ann@people.com")
    bell.ring(batch)
    told = stored(queue.connect())
    assert b"run_batch" in told and b"@" not in told and b"ann" not in told


def stored(connection) -> bytes:
    """Every key of Redis and all that it holds, unpacked where RQ has packed it."""
    found = []
    for name in connection.scan_iter():
        kind = connection.type(name)
        rows = [connection.hgetall(name)] if kind == b"hash" else []
        if kind == b"stream":
            rows = [row for _, row in connection.xrange(name)]
        found += [name, *(unpacked(value) for row in rows for value in row.values())]
    return b" ".join(found)


def unpacked(value: bytes) -> bytes:
    for packed in (lambda: value, lambda: base64.b64decode(value, validate=True)):
        with suppress(ValueError, zlib.error):
            return zlib.decompress(packed())
    return value


def test_of_a_job_that_failed_redis_keeps_the_errors_kind_and_not_its_text(app, worker):
    """PostgreSQL's quotes the row, and so the address, that it was about."""
    batch = opened("nobody@people.com")
    batches.map_fields(batch, 0, False)
    db.session.commit()
    move_the_ledger_away(True)
    with pytest.raises(DBAPIError, match="ledger_entry") as failed:
        work(batches.check, batch)
    bell.ring(batch)
    worker()
    told = stored(queue.connect())
    assert failed.type.__name__.encode() in told and b"ledger_entry" not in told


@pytest.mark.parametrize("serializer", [JSONSerializer, None], ids=["json", "pickle"])
def test_a_function_that_is_not_ours_is_not_run(app, worker, tmp_path, serializer):
    mark = tmp_path / "pwned"
    connection = queue.connect()
    strange = Queue(queue.BULK, connection=connection, serializer=serializer, job_class=Job)
    job = strange.enqueue("os.system", f"touch {mark}", failure_ttl=60)
    worker()
    assert not mark.exists()
    assert not strange.count and job.get_status(refresh=True) != "finished"


def test_a_hand_made_job_runs_no_callback_and_sends_nothing(app):
    connection = queue.connect()
    strange = Queue(queue.BULK, connection=connection, serializer=JSONSerializer, job_class=Job)
    job = strange.enqueue("jobs.tasks.check_batch", 1, on_failure=Callback(os.remove), on_success=Callback(os.remove))
    ours = queue.SafeJob.fetch(job.id, connection=connection, serializer=JSONSerializer)
    assert ours.failure_callback is ours.success_callback is ours.stopped_callback is None and ours.webhooks == []


def test_ringing_twice_enqueues_once(app):
    batch = opened("ann@people.com")
    batches.map_fields(batch, 0, False)
    db.session.commit()
    for _ in range(3):
        bell.ring(batch)
    assert queue.queue(queue.connect()).count == 1


def test_the_sweeper_rings_for_what_an_emptied_redis_forgot(app, worker):
    person = add_customer("ann@people.com")
    batch = confirmed("ann@people.com")
    bell.ring(batch)
    queue.connect().flushall()
    db.session.commit()
    schedule.sweep()
    worker()
    assert batch.state is State.FINISHED
    assert db.session.get(batches.Batch, batch.id).planned == 1
    assert (
        db.session.get(bell.Batch, batch.id)
        and not db.session.execute(db.text("SELECT 1 FROM customer WHERE id = :id"), {"id": person}).first()
    )


def test_the_sweeper_leaves_paused_and_finished_batches_alone(app):
    add_customer("ann@people.com")
    batch = confirmed("ann@people.com")
    batches.pause(batch)
    checked("nobody@people.com")
    db.session.commit()
    schedule.sweep()
    assert queue.queue(queue.connect()).count == 0


def test_without_redis_the_work_waits_and_nobody_sees_an_error(app, signed_in):
    add_customer("ann@people.com")
    browser = signed_in()
    batch = opened("ann@people.com")
    url = f"/batches/{batch.id}/mapping"
    db.session.commit()
    page = browser.get(url)
    app.config["REDIS_URL"] = "redis://127.0.0.1:1/0"
    assert page.status_code == 200 and browser.post(url, {"column": "0"}, page=url).status_code == 303
    assert db.session.get(batches.Batch, batch.id, populate_existing=True).state is State.CHECKING


def test_a_worker_at_files_looks_at_no_server_whoever_else_is_there(app, worker):
    """A server that hangs holds up no purge."""
    add_customer("ann@people.com")
    batch = confirmed("ann@people.com")
    bell.ring_poll(1)
    bell.ring(batch)
    worker()
    assert queue.queue(queue.connect(), queue.PICK_UP).count == 1
    assert db.session.get(type(batch), batch.id).state is State.FINISHED
