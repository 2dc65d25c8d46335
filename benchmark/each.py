"""A job for each customer, as a yardstick: python -m benchmark.each REDIS_URL says the seconds until none is left."""

import sys
import time

import redis
from rq import Queue, Worker

from app import create_app
from benchmark.yardsticks import one_by_one
from purge.extensions import db


def purge(address: str) -> None:
    """The job."""
    one_by_one(db.engine, address)


if __name__ == "__main__":
    with create_app().app_context():
        connection = redis.Redis.from_url(sys.argv[1])
        worker = Worker([Queue("each", connection=connection)], connection=connection)
        began = time.perf_counter()
        worker.work(burst=True, logging_level="WARNING")
        print(time.perf_counter() - began)
