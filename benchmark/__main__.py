"""One command, one table: python -m benchmark. CUSTOMERS, ROWS, RUNS and BENCH_FOLDER may be set."""

import io
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from app import create_app
from benchmark import crowd, drop, postgresql, sizes, yardsticks
from benchmark.customers import MISS, filtered_times, list_times, p95, search_times, single_purges, without_the_index
from benchmark.sizes import Files, whole
from benchmark.yardsticks import like, raw_sql
from purge import batches
from purge.batches import Door
from purge.cli.setup import add_user, upgrade_schema
from purge.config import CHECKOUT
from purge.demo_data import make_demo_data
from purge.extensions import db
from purge.models import Role

CUSTOMERS = int(os.environ.get("CUSTOMERS", 1_000_000))
ROWS = int(os.environ.get("ROWS", CUSTOMERS // 10))
RUNS = int(os.environ.get("RUNS", 3))
WANTED = {"rate": "10,000 a second", "one": "at most 2", "object_by_object": "at least 30 times"}
README = CHECKOUT / "README.md"
MARKS = re.compile(r"(<!-- benchmark -->\n).*?(<!-- /benchmark -->)", re.DOTALL)


def main() -> None:
    """Measure, print, and put the table into the README."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_FOLDER")) as folder:
        for lines in _measure(Path(folder)):
            _write(_table(lines))


def _write(table: str) -> None:
    print(table, flush=True)
    README.write_text(MARKS.sub(lambda found: found[1] + table + found[2], README.read_text()))


def _measure(folder: Path) -> Iterator[list[tuple[str, str, str]]]:
    """The lines so far: first SQLite's, then PostgreSQL's with them, so that what took long is not lost with what follows."""
    base, work = folder / "base", folder / "work"

    @contextmanager
    def copied() -> Iterator[dict[str, str]]:
        yield _settings(_copy(base, work))

    made, files = _make(base, folder / "files")
    bare = without_the_index(_copy(base, folder / "bare"))
    river, two, raw, indexless = [], [], [], []
    for number in range(1, RUNS + 1):  # in turn, so that a slow minute of the machine is shared
        river.append(_river(base, work, files.usual))
        two.append(_river(base, work, files.usual, workers=2))
        raw.append(raw_sql(_settings(_copy(base, work)), files.usual))
        indexless.append(_river(bare, work, files.usual))
        _say(f"run {number}: app {whole(river[-1]):.1f} s, {whole(two[-1]):.1f} s, raw SQL {raw[-1]:.1f} s")
    singly = yardsticks.singly(copied, files.usual, folder / "redis", RUNS)
    sized = sizes.measure(copied, postgresql.river, files, RUNS, _say)
    _say("dropped files …")
    dropped = [
        _dropped(base, work, drop.split(files.usual, folder / "small")),
        _dropped(base, work, files.everybody),
    ]
    singles = []
    for _ in range(RUNS):
        singles += single_purges(_copy(base, work), files.usual, CUSTOMERS)
        _say(f"purges of one while a file runs: {len(singles)}")
    alone, among = [], []
    for _ in range(RUNS):
        alone.append(crowd.watched(_copy(base, work), files.usual, 0, {}))
        among.append(crowd.watched(_copy(base, work), files.usual, crowd.POLLERS, {}))
        _say(f"a batch, {alone[-1]['seconds']:.1f} s; watched by {crowd.POLLERS}, {among[-1]['seconds']:.1f} s")
    _copy(base, work)
    searches, pages_of_list = search_times(work), list_times(work)
    filtered = filtered_times(work)
    searches["like"] = like(_settings(work), MISS)
    cleared = _clearing(_copy(base, work))
    pages = _mapping_pages(_copy(base, work))
    shutil.rmtree(base)
    shutil.rmtree(work)
    lines = (
        _river_lines(made, river, two, raw, singly, sized, cleared, pages)
        + crowd.lines(river, alone, among)
        + _drop_lines(*dropped)
        + _customer_lines(river, indexless, searches, pages_of_list, filtered, singles)
    )
    yield lines
    yield lines + postgresql.measure(folder, CUSTOMERS, ROWS, RUNS, _say)


def _customer_lines(river, indexless, searches, pages, filtered, singles) -> list[tuple[str, str, str]]:
    with_index, without = (statistics.median(map(whole, runs)) for runs in (river, indexless))
    kinds = [kind for kind in searches if kind not in ("like", "miss, median")]
    slowest = max(kinds, key=searches.get)
    times = searches["like"] / searches["miss, median"]
    return [
        (
            f"search, 95th percentile, of {', '.join(kinds)}",
            f"{', '.join(f'{searches[kind] * 1e3:.0f}' for kind in kinds)} ms",
            "at most 30 ms",
        ),
        ("slowest of these", f"{slowest}, {searches[slowest] * 1e3:.1f} ms", "at most 30 ms"),
        (
            "a miss against LIKE '%term%'",
            f"{searches['miss, median'] * 1e3:.1f} ms and {searches['like'] * 1e3:.0f} ms: {times:.0f} times",
            "at least 20 times",
        ),
        (
            "first and last page of the list, worst order",
            f"{pages[0] * 1e3:.1f} ms and {pages[1] * 1e3:.1f} ms",
            "at most twice",
        ),
        (
            f"slowest of {filtered[0]} ways to filter, order, page and search",
            f"{filtered[1] * 1e3:.0f} ms ({filtered[2]})",
            "",
        ),
        (
            f"one purge, confirmed to gone, while {ROWS:,} rows run ({len(singles)} purges)",
            f"median {statistics.median(singles):.2f} s, 95th percentile {p95(singles):.2f} s",
            "under 2 s",
        ),
        (
            "what keeping the search index costs check and run",
            f"{100 * (with_index / without - 1):.0f} % ({with_index:.1f} s and {without:.1f} s)",
            "at most a third",
        ),
    ]


def _river_lines(made, river, two, raw, singly, sized, cleared, pages) -> list[tuple[str, str, str]]:
    upload, judged = (statistics.median(one[part] for one in river) for part in ("upload", "judged"))
    return [
        (f"making {CUSTOMERS:,} customers and their rows", f"{made:.0f} s", "about 120 s"),
        (f"upload of {ROWS:,} rows, looked through and stored", f"{upload:.2f} s", ""),
        (f"the verdicts alone of {ROWS:,} rows", f"{ROWS / judged:,.0f} rows a second", ""),
        *postgresql.lines(ROWS, raw, river, two, sized, singly, WANTED),
        (
            "mapping page, file of 1 MB and of 100 MB",
            f"{pages[0] * 1e3:.0f} ms and {pages[1] * 1e3:.0f} ms",
            "at most twice",
        ),
        ("writing the database file and the search index anew afterwards", f"{cleared:.1f} s", ""),
    ]


def _drop_lines(small: dict, large: dict) -> list[tuple[str, str, str]]:
    rate = small["files"] / small["seconds"]
    return [
        (
            f"{small['files']:,} dropped files of {drop.SMALL_ROWS} rows, dropped to answered",
            f"{small['seconds']:.0f} s, {rate:.1f} files a second, {small['peak']:.0f} MB",
            "",
        ),
        (
            f"one dropped file of {CUSTOMERS:,} rows, dropped to answered",
            f"{large['seconds']:.0f} s, {large['peak']:.0f} MB",
            "",
        ),
    ]


def _table(measured: list[tuple[str, str, str]]) -> str:
    lines = [("", "measured", "wanted"), ("---", "---", "---"), *measured]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GB of memory, {platform.system()}, "
    machine += f"Python {platform.python_version()}, SQLite unless it says PostgreSQL, everything on the one machine"
    told = f"\nMeasured on {date.today():%-d %B %Y} by `make bench`: {machine}; medians of {RUNS} runs, in turn. Measured once: the "
    told += "making, the files one after the other, dropped files, the mapping page and the writing anew.\n"
    return told + "\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n\n"


def _processor() -> str:
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def _make(base: Path, folder: Path) -> tuple[float, Files]:
    _say(f"making {CUSTOMERS:,} customers …")
    with create_app({"INSTANCE_PATH": str(base)}).app_context():
        upgrade_schema()
        began = time.perf_counter()
        make_demo_data(db.engine, CUSTOMERS)
        made = time.perf_counter() - began
        files = Files(folder, db.engine, CUSTOMERS, ROWS)
        batches.clear_files()
        db.engine.dispose()
    return made, files


def _copy(base: Path, work: Path) -> Path:
    shutil.rmtree(work, ignore_errors=True)
    return shutil.copytree(base, work)


def _river(base: Path, work: Path, file: Path, workers: int = 1) -> dict:
    return postgresql.river(_settings(_copy(base, work)), file, workers=workers)


def _settings(folder: Path) -> dict[str, str]:
    return {"INSTANCE_PATH": str(folder)}


def _dropped(base: Path, work: Path, dropped: Path) -> dict:
    command = [sys.executable, "-m", "benchmark.drop", str(_copy(base, work)), str(dropped)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT).stdout)


def _clearing(folder: Path) -> float:
    with create_app({"INSTANCE_PATH": str(folder)}).app_context():
        began = time.perf_counter()
        assert batches.clear_files()
        db.engine.dispose()
        return time.perf_counter() - began


def _mapping_pages(folder: Path) -> list[float]:
    """Seconds for the mapping page of a file of 1 MB and of 100 MB, over HTTP's own code path."""
    app = create_app({"INSTANCE_PATH": str(folder), "MAX_CSV_ROWS": "10000000", "MAX_CSV_BYTES": "200000000"})
    with app.app_context():
        password = add_user("bench@localhost", Role.OPERATOR)
        client, seconds = app.test_client(), []
        app.config["WTF_CSRF_ENABLED"] = False
        client.post("/login", data={"email": "bench@localhost", "password": password})
        for size in (1_000_000, 100_000_000):
            line = b"ann.smith@people.com,Ann,asked in writing\n"
            file = io.BytesIO(b"Customer Email,Name,Reason\n" + line * (size // len(line)))
            batch = batches.open_csv(file, "people.csv", Door.CSV)
            url = f"/batches/{batch.id}/mapping"
            db.session.commit()
            seconds.append(statistics.median(_get(client, url) for _ in range(9)))
        db.engine.dispose()
    return seconds


def _get(client, url: str) -> float:
    began = time.perf_counter()
    assert client.get(url).status_code == 200
    return time.perf_counter() - began


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
