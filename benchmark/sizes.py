"""What becomes of the rate when the file is ten or a hundred times as long, ours and the raw SQL's."""

import statistics
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from sqlalchemy import Engine

from benchmark.yardsticks import raw_sql
from purge.demo_data import write_purge_csv

Copied = Callable[[], AbstractContextManager[Mapping[str, str]]]  # the settings of a fresh copy of the installation


class Files:
    """Of customers one after the other, a hundredth, the usual tenth and all of them; and the first two picked evenly over all."""

    def __init__(self, folder: Path, engine: Engine, customers: int, rows: int):
        folder.mkdir()
        sizes = (customers // 100, rows, customers)
        self.neighbours = [folder / f"{size}-neighbours.csv" for size in sizes]
        for size, file in zip(sizes, self.neighbours, strict=True):
            write_purge_csv(engine, file, size, first=size)
        self.few, self.usual = evenly = [folder / f"{size}-evenly.csv" for size in sizes[:2]]
        for size, file in zip(sizes[:2], evenly, strict=True):
            write_purge_csv(engine, file, size)
        self.everybody = self.neighbours[-1]


def measure(copied: Copied, river: Callable[..., dict], files: Files, runs: int, say: Callable[[str], None]) -> list:
    """For each of the neighbours' files, then for the smallest one picked evenly: what the river tells, and the raw SQL's seconds."""
    measured = []
    for file in (*files.neighbours, files.few):
        ours, raw = [], []
        for _ in range(runs if file is not files.everybody else 1):  # it takes minutes
            with copied() as environ:
                raw.append(raw_sql(environ, file))
            with copied() as environ:
                ours.append(river(environ, file))
        whole = statistics.median(told["check"] + told["run"] for told in ours)
        measured.append(ours[-1] | {"whole": whole, "raw": statistics.median(raw)})
        say(f"{file.name}: raw SQL {measured[-1]['raw']:.1f} s, app {whole:.1f} s")
    return measured


def lines(measured: list[dict]) -> list[tuple[str, str, str]]:
    """The table's."""
    *neighbours, evenly = measured
    sizes = ", ".join(f"{told['rows']:,}" for told in neighbours)
    small, large = neighbours[0], neighbours[-1]
    return [
        (
            f"check and run with {sizes} rows, of customers one after the other",
            f"{', '.join(_rate(told, 'whole') for told in neighbours)} a second",
            "within 20 %",
        ),
        ("the raw SQL for these", f"{', '.join(_rate(told, 'raw') for told in neighbours)} a second", ""),
        (
            f"with {evenly['rows']:,} rows, picked evenly over all, and the raw SQL",
            f"{_rate(evenly, 'whole')} and {_rate(evenly, 'raw')} a second",
            "",
        ),
        (
            f"memory, {small['rows']:,} rows and {large['rows']:,}",
            f"{small['peak']:.0f} MB and {large['peak']:.0f} MB",
            "flat",
        ),
        ("queries of a progress poll, small and large", f"{small['poll']} and {large['poll']}", "the same"),
    ]


def _rate(told: dict, what: str) -> str:
    return f"{told['purged'] / told[what]:,.0f}"
