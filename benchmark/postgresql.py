"""The same on PostgreSQL, on a server of its own: raw SQL, the app with one and with two workers, customer by customer."""

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmark import crowd, sizes, yardsticks
from benchmark.sizes import Files, whole
from benchmark.yardsticks import installation, raw_sql
from purge.cli.setup import upgrade_schema
from purge.config import CHECKOUT
from purge.demo_data import make_demo_data
from tests.postgres import Postgres

# What anybody who runs it for this would set; it waits for the disk at each commit, as it does unless told otherwise.
SETTINGS = {"shared_buffers": "2GB", "work_mem": "64MB", "max_wal_size": "8GB", "checkpoint_timeout": "30min"}
SETTINGS |= {"random_page_cost": "1.1"}  # no disk turns any more
WANTED = {"one": "at most 1.4", "two": "at most 1", "one_by_one": "at least 8 times", "a_job_each": "at least 50 times"}


def measure(folder: Path, customers: int, rows: int, runs: int, say: Callable[[str], None]) -> list[tuple]:
    """The lines of the table: what, how much, what was wanted."""
    server = Postgres(**SETTINGS)
    try:
        base = server.make()
        say(f"making {customers:,} customers on PostgreSQL …")
        with installation(_settings(server, base, folder)) as engine:
            upgrade_schema()
            make_demo_data(engine, customers)
            files = Files(folder / "postgresql-files", engine, customers, rows)
        server.ask(base, "VACUUM ANALYZE")
        version = server.ask(base, "SHOW server_version")[0][0].split()[0]
        ((size,),) = server.ask(base, "SELECT pg_database_size(current_database())")

        @contextmanager
        def copied() -> Iterator[Mapping[str, str]]:
            name = server.make(base, " STRATEGY file_copy")
            server.ask(name, "CHECKPOINT")
            yield _settings(server, name, folder)
            server.drop(name)

        raw, one, two, alone, among = [], [], [], [], []
        for number in range(1, runs + 1):  # in turn, so that a slow minute of the machine is shared
            with copied() as environ:
                raw.append(raw_sql(environ, files.usual))
            for measured, workers in ((one, 1), (two, 2)):
                with copied() as environ:
                    measured.append(river(environ, files.usual, workers=workers))
            say(
                f"PostgreSQL, run {number}: raw SQL {raw[-1]:.1f} s, app {whole(one[-1]):.1f} s, {whole(two[-1]):.1f} s"
            )
            for measured, pollers in ((alone, 0), (among, crowd.POLLERS)):
                with copied() as environ:
                    database = {"DATABASE_URL": environ["DATABASE_URL"]}
                    measured.append(crowd.watched(folder / "watched", files.usual, pollers, database))
                shutil.rmtree(folder / "watched")
        sized = sizes.measure(copied, river, files, runs, say)
        singly = yardsticks.singly(copied, files.usual, folder / "redis", runs)
    finally:
        server.remove()
    told = (
        f"**PostgreSQL {version}**, {', '.join(f'`{name} = {value}`' for name, value in SETTINGS.items())}: "
        f"{customers:,} customers on the disk, with the search index",
        f"{size / 1e9:.2f} GB",
        "",
    )
    return [told, *lines(rows, raw, one, two, sized, singly, WANTED), *crowd.lines(one, alone, among)]


def river(environ: Mapping[str, str], *files: Path, workers: int = 1) -> dict:
    """What benchmark.river says, in a process of its own."""
    command = [sys.executable, "-m", "benchmark.river", str(workers), *map(str, files)]
    env = {**os.environ, **environ}
    return json.loads(
        subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT, env=env).stdout
    )


def profile(told: dict) -> str:
    """What of a run took the longest, in percent of it."""
    longest = sorted(told["statements"].items(), key=lambda one: -one[1])[:7]
    return ", ".join(f"{what} {100 * seconds / told['run']:.0f} %" for what, seconds in longest)


def _settings(server: Postgres, database: str, folder: Path) -> dict[str, str]:
    return {"INSTANCE_PATH": str(folder / "postgresql"), "DATABASE_URL": server.url(database)}


def lines(
    rows: int, raw: list, one: list, two: list, sized: list, singly: dict[str, float], wanted: dict
) -> list[tuple]:
    """The table's, of runs with one and with two workers beside everything that they are measured against, on either database."""
    theirs, ours, both = (
        statistics.median(times) for times in (raw, [whole(told) for told in one], [whole(told) for told in two])
    )
    check = statistics.median(told["check"] for told in one)
    outside = statistics.median(told["outside"] / told["run"] for told in one)
    purged, rate = one[0]["purged"], wanted.get("rate", "")
    return [
        (f"check of {rows:,} rows", f"{check:.2f} s, {rows / check:,.0f} rows a second", "100,000 a second"),
        (f"check and run, {purged:,} customers purged, one worker", f"{ours:.1f} s, {purged / ours:,.0f} a second", rate),
        ("with two workers", f"{both:.1f} s, {purged / both:,.0f} a second", ""),
        ("the raw set-based SQL in one session", f"{theirs:.1f} s, {purged / theirs:,.0f} a second", ""),
        ("one worker against the raw SQL", f"{ours / theirs:.2f} times its time", wanted["one"]),
        ("two workers against the raw SQL", f"{both / theirs:.2f} times its time", wanted.get("two", "")),
        *yardsticks.lines(singly, purged / ours, wanted),
        *sizes.lines(sized),
        ("of the run, outside SQL", f"{100 * outside:.0f} %", "under 15 %"),
        ("where the run's time goes", profile(one[-1]), ""),
    ]  # fmt: skip
