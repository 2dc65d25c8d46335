"""The doorbell: tells the workers that a batch has work. The work itself is in the database; ringing twice does no harm."""

import logging
import time
import uuid

import redis
from flask import current_app
from rq.registry import StartedJobRegistry
from sqlalchemy.exc import SQLAlchemyError

from jobs import queue as queues
from purge import batches
from purge.batches import Batch, Door, State
from purge.extensions import reading

log = logging.getLogger(__name__)

RINGS = {State.CHECKING: "check_batch", State.RUNNING: "run_batch", State.CANCELLING: "run_batch"}


def ring(batch: Batch, leaving: str | None = None) -> None:
    """Enqueue what the batch needs now: one check, or as many runs as there are workers and chunks; `leaving` is a job about to end.

    Commit first. When Redis is away nothing is lost: the sweeper rings again.
    """
    try:
        _ring(batch, leaving)
    except (redis.RedisError, SQLAlchemyError) as error:  # what was committed stands
        log.warning("the queue or the database is out of reach (%s); the sweeper will ring", type(error).__name__)


def _ring(batch: Batch, leaving: str | None) -> None:
    with reading():  # what was committed is read again, and waits for no writer
        connection = queues.connect()
        queue = queues.queue(connection, queues.SINGLE if batch.door is Door.FORM else queues.BULK)
        task = RINGS.get(batch.state)
        if task is None:  # it has ended meanwhile
            return
        wanted = 1
        if task == "run_batch":
            # An emptied Redis has forgotten its workers; they are there all the same.
            listening = max(queues.workers(queue), current_app.config["WORKERS"])
            wanted = max(1, min(listening, batches.waiting_chunks(batch)))
        rung = _rung(queue, connection, f"{task}-{batch.id}-") - {leaving}
        for _ in range(wanted - len(rung)):
            _enqueue(queue, task, batch.id)


def ring_poll(connection_id: int) -> None:
    """Enqueue one look into a connection's folder, unless one waits or runs."""
    connection = queues.connect()
    queue = queues.queue(connection, queues.PICK_UP)
    if not _rung(queue, connection, f"poll_connection-{connection_id}-"):
        _enqueue(queue, "poll_connection", connection_id)


def workers() -> int:
    """How many workers are there to hear the bell; 0 when the queue is out of reach."""
    try:
        return queues.workers(queues.queue(queues.connect()))
    except redis.RedisError:
        return 0


def _rung(queue, connection, prefix: str) -> set[str]:
    """The batch's jobs that wait or run. A job whose worker has died falls out when its heartbeat does."""
    alive = connection.zrangebyscore(StartedJobRegistry(queue=queue).key, time.time(), "+inf")
    started = {member.decode().split(":")[0] for member in alive}
    return {id for id in started | set(queue.get_job_ids()) if id.startswith(prefix)}


def _enqueue(queue, task: str, id: int) -> None:
    queue.enqueue(
        f"jobs.tasks.{task}",
        id,
        job_id=f"{task}-{id}-{uuid.uuid4().hex}",
        description=f"{task} {id}",
        job_timeout="1h",
        result_ttl=0,
        failure_ttl=3600,
    )
