"""The queue: ids and nothing else, our own functions and no others, and a bell that can be lost."""

import os
import zlib

import pytest
from rq import Callback, Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from jobs import bell, queue, schedule
from purge import batches
from purge.batches import State
from purge.extensions import db
from tests.people import add_customer
from tests.test_batches import checked, confirmed, opened


def test_a_job_carries_an_id_and_no_address(app):
    add_customer("ann@people.com")
    batch = confirmed("ann@people.com")
    bell.ring(batch)
    connection = queue.connect()
    stored = b""
    for name in connection.scan_iter():
        for value in (connection.hgetall(name) if connection.type(name) == b"hash" else {}).values():
            try:
                stored += zlib.decompress(value)
            except zlib.error:
                stored += value
    assert b"run_batch" in stored and b"@" not in stored and b"ann" not in stored


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
