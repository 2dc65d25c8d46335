"""Two hundred who watch a batch run: what they wait for, and what it costs the batch."""

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from purge.config import CHECKOUT
from tests.instance import Admin, Instance

POLLERS = 200
EVERY_SECONDS = 2  # as the page of a large batch asks


def watched(folder: Path, file: Path, pollers: int, settings: Mapping[str, str]) -> dict:
    """With one worker: the batch's seconds from confirmed to finished, and the pollers' own."""
    folder.with_suffix(".output").unlink(missing_ok=True)  # of the run before, with another password
    instance = Instance(folder, WORKERS="1", **settings).start()
    try:
        admin, crowd = Admin(instance), None
        bulk = instance.begin_flask("purge", str(file), "--yes")
        while not (running := instance.ask("SELECT id FROM batch WHERE state = 'running'")) and bulk.poll() is None:
            time.sleep(0.05)
        ((batch_id,),) = running
        if pollers:
            page = f"{instance.url}/batches/{batch_id}/live?stage=progress&state=running"
            cookie = "; ".join(f"{cookie.name}={cookie.value}" for cookie in admin.cookies)
            crowd = subprocess.Popen(
                [sys.executable, "-m", "benchmark.crowd", page, cookie, str(pollers)],
                cwd=CHECKOUT, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            )  # fmt: skip
        bulk.communicate()
        seconds = "86400.0 * (julianday({0}) - julianday({1}))"
        if "DATABASE_URL" in instance.environ:
            seconds = "extract(epoch FROM {0} - {1})::float"
        ((whole,),) = instance.ask(f"SELECT {seconds.format('finished_at', 'confirmed_at')} FROM batch")
        waited = json.loads(crowd.communicate()[0]) if crowd else []
        return {"seconds": whole, "waited": waited}
    finally:
        instance.stop()


def lines(runs: list[dict], alone: list[dict], among: list[dict]) -> list[tuple[str, str, str]]:
    """The table's, of runs in one process, and of batches without and with the crowd."""
    run = statistics.median(told["run"] for told in runs)
    before, during = (statistics.median(told["seconds"] for told in batches) for batches in (alone, among))
    waited = sorted(seconds for told in among for seconds in told["waited"])
    slowest = waited[int(len(waited) * 0.95)]
    more, added = 100 * (during / before - 1), 100 * (before / run - 1)
    return [
        (f"{POLLERS} pollers while it runs, 95th percentile of {len(waited):,}", f"{slowest * 1e3:.0f} ms", "under 100 ms"),
        ("the batch among them, by a real worker", f"{during:.1f} s, without {before:.1f} s: {more:.0f} % slower", "at most 10 %"),
        ("what queue, worker and web server add to a run", f"{before:.1f} s against {run:.1f} s: {added:.0f} %", "under 15 %"),
    ]  # fmt: skip


async def _poll(url: str, cookie: str, waited: list[float]) -> None:
    """As a page does, until it is sent elsewhere."""
    place = urlsplit(url)
    request = f"GET {place.path}?{place.query} HTTP/1.1\r\nHost: {place.netloc}\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n"
    await asyncio.sleep(random.random() * EVERY_SECONDS)
    while True:
        began = time.perf_counter()
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        writer.write(request.encode())
        status = (await reader.read()).split(b" ", 2)[1]
        writer.close()
        if status != b"200":
            assert status == b"286", status
            return
        waited.append(time.perf_counter() - began)
        await asyncio.sleep(max(0, EVERY_SECONDS - (time.perf_counter() - began)))


async def _crowd(url: str, cookie: str, pollers: int) -> list[float]:
    waited: list[float] = []
    await asyncio.gather(*(_poll(url, cookie, waited) for _ in range(pollers)))
    return waited


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_crowd(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
