"""What runs when: the sweeper, and looks at SFTP servers. Any number of schedulers may run; the database decides."""

import logging
import signal
import threading
import time
from contextlib import suppress
from contextvars import copy_context
from datetime import timedelta

import redis
from flask import current_app
from sqlalchemy.exc import SQLAlchemyError

from jobs.bell import RINGS, ring, ring_poll
from jobs.health import scheduler_was_here
from purge import batches, pickup
from purge.batches import Batch
from purge.evidence.ledger import OtherKey
from purge.extensions import db, reading

log = logging.getLogger(__name__)

SWEEP_SECONDS = 2
AGAIN_SECONDS = 10  # after tidying that was not possible, which its log says each time
TIDYING_SECONDS = 600  # to write a large file anew takes minutes
SIGN_SECONDS = 10
REST_TIMES = 10  # after tidying for a second, ten seconds in which others may write


def run() -> None:
    """Sweep until told to stop."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    rest_until = 0.0
    while not stop.wait(SWEEP_SECONDS):
        try:
            sweep()
            look_at_drops()
            scheduler_was_here()
            if time.monotonic() > rest_until:
                began = time.monotonic()
                is_tidy = tidy_at_length()
                rest = REST_TIMES * (time.monotonic() - began)
                rest_until = time.monotonic() + (rest if is_tidy else max(rest, AGAIN_SECONDS))
        except SQLAlchemyError as error:
            log.warning("the database is out of reach (%s); the next sweep tries again", type(error).__name__)
        except redis.RedisError as error:
            log.warning("Redis is out of reach (%s); the next sweep tries again", type(error).__name__)
        except OtherKey:
            log.error("the ledger was begun with another LEDGER_KEY than this process has; nothing was thrown away")
            rest_until = time.monotonic() + AGAIN_SECONDS
        finally:
            db.session.remove()


def sweep() -> None:
    """Ring for every batch that has work: a bell may have been lost with a worker, or with all of Redis."""
    with reading():
        for batch in db.session.scalars(db.select(Batch).where(Batch.state.in_(RINGS))).all():
            ring(batch)
        db.session.rollback()


def look_at_drops() -> None:
    """Ring for the looks that are due."""
    for connection_id in pickup.due():
        ring_poll(connection_id)


def tidy_at_length() -> bool:
    """Tidy, with signs of life as long as it may take."""
    is_done = threading.Event()

    def give_signs() -> None:
        until = time.monotonic() + TIDYING_SECONDS
        while not is_done.wait(SIGN_SECONDS) and time.monotonic() < until:
            with suppress(redis.RedisError):
                scheduler_was_here()

    signs = threading.Thread(target=copy_context().run, args=(give_signs,))  # the app's context
    signs.start()
    try:
        return tidy()
    finally:
        is_done.set()
        signs.join()


def tidy() -> bool:
    """Throw forgotten uploads away, forget what old files were called, and clear what finished batches left in the database's
    files; False when that failed."""
    with reading():
        ids = [batch.id for batch in batches.forgotten()]
        db.session.rollback()
    for batch_id in ids:
        with suppress(batches.NotPossible):  # confirmed meanwhile, or another scheduler was quicker
            batches.discard(db.session.get(Batch, batch_id))
            db.session.commit()
        db.session.rollback()
    batches.forget_names()
    pickup.forget_names()
    return batches.settle(timedelta(seconds=current_app.config["CLEAR_AFTER_SECONDS"]))
