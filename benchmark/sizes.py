"""What becomes of the rate when the file is ten or a hundred times as long."""

import statistics
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine

from benchmark.yardsticks import Copied, raw_sql
from purge.demo_data import write_purge_csv


class Files:
    """Everybody in a hundred files, in ten and in one, of customers one after the other; and a hundredth and the usual tenth of
    all, picked evenly."""

    def __init__(self, folder: Path, engine: Engine, customers: int, rows: int):
        folder.mkdir()
        sizes = (customers // 100, rows, customers)
        self.series = []
        for size in sizes:
            parts = [range(first, first + size) for first in range(1, customers + 1, size)]
            self.series.append([folder / f"{size}-from-{part.start}.csv" for part in parts])
            for file, part in zip(self.series[-1], parts, strict=True):
                write_purge_csv(engine, file, size, among=part)
        self.everybody = self.series[-1][0]
        self.few, self.usual = evenly = [folder / f"{size}-evenly.csv" for size in sizes[:2]]
        for size, file in zip(sizes[:2], evenly, strict=True):
            write_purge_csv(engine, file, size)


def measure(copied: Copied, river: Callable[..., dict], files: Files, runs: int, say: Callable[[str], None]) -> list:
    """What the river tells of each series, the whole of it on one copy: where only the size of the files differs, and not what was
    purged before nor which pages are in memory. Then of the few on a fresh copy, and the raw SQL's seconds for them."""
    measured = []
    for series in files.series:
        with copied() as environ:
            measured.append(river(environ, *series))
        say(f"everybody in {len(series)} files: {whole(measured[-1]):.1f} s")
    raw, ours = [], []
    for _ in range(runs):
        with copied() as environ:
            raw.append(raw_sql(environ, files.few))
        with copied() as environ:
            ours.append(river(environ, files.few))
    few = {"rows": ours[0]["rows"], "purged": ours[0]["purged"], "raw": statistics.median(raw)}
    return [*measured, few | {"whole": statistics.median(map(whole, ours))}]


def lines(measured: list[dict]) -> list[tuple[str, str, str]]:
    """The table's."""
    *series, few = measured
    sizes = " and ".join(f"{told['files']:,} of {told['rows'] // told['files']:,} rows" for told in series)
    rates = [f"{told['purged'] / whole(told):,.0f}" for told in series]
    small, large = series[0], series[-1]
    return [
        (
            f"check and run of everybody, in files one after the other: {sizes}",
            f"{', '.join(rates)} a second",
            "within 20 %",
        ),
        (
            f"the first {few['rows']:,} rows on a fresh copy, picked evenly over all, and the raw SQL",
            f"{few['purged'] / few['whole']:,.0f} and {few['purged'] / few['raw']:,.0f} a second",
            "",
        ),
        (
            f"memory, {small['files']:,} of {small['rows'] // small['files']:,} rows and {large['files']:,} of {large['rows']:,}",
            f"{small['peak']:.0f} MB and {large['peak']:.0f} MB",
            "flat",
        ),
        ("queries of a progress poll, small and large", f"{small['poll']} and {large['poll']}", "the same"),
    ]


def whole(told: dict) -> float:
    """Seconds of check and run."""
    return told["check"] + told["run"]
