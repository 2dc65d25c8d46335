"""RQ, held short: jobs carry ids, only our own functions run, and a job dies with its worker."""

import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress

import redis
from flask import current_app
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import Queue, Worker, worker_registration
from rq.exceptions import StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer

from jobs.process import dies_with_us
from purge.extensions import db

log = logging.getLogger(__name__)

SINGLE, BULK = "single", "bulk"  # one customer from the form does not wait behind a file
PICK_UP = "pick-up"  # a server that hangs holds up nobody's purge
ALLOWED = frozenset({"jobs.tasks.check_batch", "jobs.tasks.run_batch", "jobs.tasks.poll_connection"})
HEARTBEAT_SECONDS = 5
AWAY_SECONDS = 1
LET_GO_SECONDS = 10

# Set in a job's own process when its worker was told to stop: finish what is in hand and leave the rest.
stopping = threading.Event()


class SafeJob(Job):
    """A job that runs nothing but what is on the list: JSON alone does not keep os.system out, nor do callbacks."""

    @property
    def func(self):
        if self.func_name not in ALLOWED:
            raise PermissionError("this is not one of our jobs")
        return super().func

    def restore(self, *args, **kwargs):
        super().restore(*args, **kwargs)
        self._success_callback_name = self._failure_callback_name = self._stopped_callback_name = None
        self.webhooks = []


class SafeWorker(Worker):
    """Its job process dies with it and hears when it is told to stop; a dead worker is noticed in seconds."""

    max_connection_wait_time = HEARTBEAT_SECONDS
    is_told_to_stop = False

    def request_stop(self, *args):
        self.is_told_to_stop = True
        super().request_stop(*args)

    def set_shutdown_requested_date(self):
        with suppress(redis.RedisError):  # it is raised where the job is waited for, and would end the chunk in hand
            super().set_shutdown_requested_date()

    def heartbeat(self, timeout=None, pipeline=None):
        if self.is_told_to_stop:  # it may have been while the job's process was being made
            self.tell_horse_to_stop()
        super().heartbeat(self.worker_ttl, pipeline)  # RQ itself would add a minute
        worker_registration.register(self, pipeline)  # a Redis that came back empty knows nobody

    def get_heartbeat_ttl(self, job, *args, **kwargs):
        return HEARTBEAT_SECONDS * 3

    def handle_exception(self, job, *exc_info):
        log.error("a job failed", exc_info=exc_info, extra={"fields": {"job": job.id}})
        super().handle_exception(job, *exc_info)

    def handle_job_failure(self, job, queue, started_job_registry=None, exc_string="", execution=None):
        error = sys.exception()  # of its text nothing is kept: it may quote a person
        kind = type(error).__name__ if error else ""
        super().handle_job_failure(job, queue, started_job_registry, kind, execution)

    def handle_warm_shutdown_request(self):
        super().handle_warm_shutdown_request()
        self.tell_horse_to_stop()

    def tell_horse_to_stop(self):
        with suppress(ProcessLookupError):
            if self.horse_pid:
                os.kill(self.horse_pid, signal.SIGUSR1)

    def main_work_horse(self, job, queue):
        signal.signal(signal.SIGUSR1, lambda *_: stopping.set())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        if self.is_told_to_stop:
            stopping.set()
        parent = os.getppid()
        dies_with_us(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        db.engine.dispose(close=False)  # the worker's connections are not ours
        super().main_work_horse(job, queue)


def connect() -> redis.Redis:
    """The Redis that this installation uses; one that is away is said to be so within seconds."""
    again = Retry(NoBackoff(), 1)  # a connection may have been closed meanwhile
    return redis.Redis.from_url(
        current_app.config["REDIS_URL"], socket_connect_timeout=5, socket_timeout=5, socket_keepalive=True, retry=again
    )


def queue(connection: redis.Redis, name: str = BULK) -> Queue:
    """The queue of checks and runs, or of one customer at a time."""
    return Queue(name, connection=connection, serializer=JSONSerializer, job_class=SafeJob)


def workers(queue: Queue) -> int:
    """How many live workers take its jobs: RQ counts who was killed as well, until another worker of the same queue looks."""
    keys = worker_registration.get_keys(queue)
    return queue.connection.exists(*keys) if keys else 0


def work(*names: str) -> None:
    """Take jobs from these queues, the first one's first, until told to stop. While Redis is away, wait for it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])  # a job told to stop before it listens must hear it then
    while _work_until_redis_goes(names):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: sys.exit(0))
        time.sleep(AWAY_SECONDS)


def _work_until_redis_goes(names: tuple[str, ...]) -> bool:
    """Whether it did: RQ's worker ends when it loses Redis in the middle of a job, and cannot begin without it."""
    connection, worker = connect(), None
    try:
        worker = SafeWorker(
            [queue(connection, name) for name in names],
            connection=connection,
            serializer=JSONSerializer,
            job_class=SafeJob,
            job_monitoring_interval=HEARTBEAT_SECONDS,
            maintenance_interval=HEARTBEAT_SECONDS,
            worker_ttl=HEARTBEAT_SECONDS * 4,
            log_job_description=False,
        )
        worker.work(logging_level="WARNING")
    except redis.RedisError as error:
        log.warning("Redis is out of reach (%s); waiting for it", type(error).__name__)
    except StopRequested:  # while it was ending by itself
        pass
    if worker:
        _let_go(worker)
    connection.close()
    return not (worker and worker.is_told_to_stop)


def _let_go(worker: SafeWorker) -> None:
    """End what would outlive the worker: its thread, and its job once the chunk in hand is done."""
    if worker.pubsub_thread:
        worker.pubsub_thread.stop()
    if worker.horse_pid:
        with suppress(ChildProcessError, ProcessLookupError):
            os.kill(worker.horse_pid, signal.SIGUSR1)
            until = time.monotonic() + LET_GO_SECONDS
            while os.waitpid(worker.horse_pid, os.WNOHANG) == (0, 0) and time.monotonic() < until:
                time.sleep(0.05)
            worker.kill_horse()
            worker.wait_for_horse()
