"""The same on PostgreSQL, on a server of its own: raw SQL, the app with one and with two workers, a loop, a job for each."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmark.yardsticks import a_job_each, installation, one_by_one, raw_sql
from purge.cli.setup import upgrade_schema
from purge.config import CHECKOUT
from purge.demo_data import make_demo_data, write_purge_csv
from tests.postgres import Postgres

SAMPLE = 500
# What anybody who runs it for this would set; it waits for the disk at each commit, as it does unless told otherwise.
SETTINGS = {"shared_buffers": "2GB", "max_wal_size": "8GB", "checkpoint_timeout": "30min", "work_mem": "64MB"}


def measure(folder: Path, customers: int, rows: int, runs: int, say: Callable[[str], None]) -> list[tuple]:
    """The lines of the table: what, how much, what was wanted."""
    server = Postgres(**SETTINGS)
    try:
        base, file = server.make(), folder / "postgresql.csv"
        say(f"making {customers:,} customers on PostgreSQL …")
        with installation(_settings(server, base, folder)) as engine:
            upgrade_schema()
            make_demo_data(engine, customers)
            write_purge_csv(engine, file, rows)
        server.ask(base, "VACUUM ANALYZE")
        version = server.ask(base, "SHOW server_version")[0][0].split()[0]

        @contextmanager
        def copied() -> Iterator[Mapping[str, str]]:
            name = server.make(base, " STRATEGY file_copy")
            server.ask(name, "CHECKPOINT")
            yield _settings(server, name, folder)
            server.drop(name)

        raw, one, two = [], [], []
        for number in range(1, runs + 1):  # in turn, so that a slow minute of the machine is shared
            with copied() as environ:
                raw.append(raw_sql(environ, file))
            for measured, workers in ((one, 1), (two, 2)):
                with copied() as environ:
                    measured.append(river(environ, file, workers))
            say(
                f"PostgreSQL, run {number}: raw SQL {raw[-1]:.1f} s, app {_whole(one[-1]):.1f} s, {_whole(two[-1]):.1f} s"
            )
        with copied() as environ:
            loop = one_by_one(environ, file, SAMPLE)
        with copied() as environ:
            each = a_job_each(environ, file, SAMPLE, folder / "redis")
    finally:
        server.remove()
    return _lines(version, rows, raw, one, two, loop, each)


def river(environ: Mapping[str, str], file: Path, workers: int = 1) -> dict:
    """What benchmark.river says, in a process of its own."""
    command = [sys.executable, "-m", "benchmark.river", str(file), str(workers)]
    env = {**os.environ, **environ}
    return json.loads(
        subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT, env=env).stdout
    )


def _settings(server: Postgres, database: str, folder: Path) -> dict[str, str]:
    return {"INSTANCE_PATH": str(folder / "postgresql"), "DATABASE_URL": server.url(database)}


def _whole(told: dict) -> float:
    return told["check"] + told["run"]


def _lines(version: str, rows: int, raw: list, one: list, two: list, loop: float, each: float) -> list[tuple]:
    theirs, ours, both = (
        statistics.median(times) for times in (raw, [_whole(told) for told in one], [_whole(told) for told in two])
    )
    check = statistics.median(told["check"] for told in one)
    purged, peak = one[0]["purged"], max(told["peak"] for told in one)
    return [
        (f"**PostgreSQL {version}**: check of {rows:,} rows", f"{check:.2f} s, {rows / check:,.0f} rows a second", "100,000 a second"),
        (f"check and run, {purged:,} customers purged, one worker", f"{ours:.1f} s, {purged / ours:,.0f} a second, {peak:.0f} MB", ""),
        ("with two workers", f"{both:.1f} s, {purged / both:,.0f} a second", ""),
        ("the raw set-based SQL in one session", f"{theirs:.1f} s, {purged / theirs:,.0f} a second", ""),
        ("one worker against the raw SQL", f"{ours / theirs:.2f} times its time", "at most 1.4"),
        ("two workers against the raw SQL", f"{both / theirs:.2f} times its time", "at most 1"),
        (f"one worker against a loop, {loop:,.0f} a second", f"{purged / ours / loop:.1f} times its rate", "at least 8"),
        (f"one worker against a job for each, {each:,.0f} a second", f"{purged / ours / each:.1f} times its rate", "at least 50"),
    ]  # fmt: skip
