"""The jobs: fetch, one domain call. They carry ids and nothing else."""

import time

from rq import get_current_job

from jobs.bell import ring
from jobs.queue import stopping
from purge import batches, pickup
from purge.batches import Batch
from purge.extensions import db, reading

SLICE_SECONDS = 10  # then another batch has its turn


def check_batch(batch_id: int) -> None:
    """Check every row of a batch's file."""
    batches.check(batch_id, keep_going=lambda: not stopping.is_set())


def run_batch(batch_id: int) -> None:
    """Carry out a batch's chunks for a while, then ring for the rest."""
    until = time.monotonic() + SLICE_SECONDS
    if batches.run(batch_id, keep_going=lambda: not stopping.is_set() and time.monotonic() < until):
        with reading():
            ring(db.session.get(Batch, batch_id), leaving=get_current_job().id)


def poll_connection(connection_id: int) -> None:
    """Look once into a connection's folder, unless another look has ended since the bell was rung."""
    if connection_id in pickup.due():
        pickup.poll(connection_id, opened=ring, keep_going=lambda: not stopping.is_set())
