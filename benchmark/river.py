"""The app's own way, in a process of its own: python -m benchmark.river WORKERS CSV ..., on the installation of the environment."""

import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import event
from sqlalchemy.engine.cursor import CursorFetchStrategy

from app import create_app
from purge import batches
from purge.batches import Batch, Door, State
from purge.batches.mapping import verdict
from purge.extensions import db
from purge.intake import customer_csv

STATEMENT = re.compile(r'\s*(?:(UPDATE)|(INSERT) INTO|(DELETE|SELECT).*?\bFROM|(\w+))\s*"?(\w+)?', re.DOTALL)


def main(workers: str, *files: str) -> dict:
    """For all the files together: seconds for upload, verdicts alone, check and run, and of the run's outside SQL; peak memory in MB;
    queries of a progress poll."""
    sums, statements = Counter(), Counter()
    with create_app().app_context():
        for file in files:
            one, sql, batch_id = _one(Path(file), int(workers))
            sums.update(one)
            statements.update(sql)
        told = {"files": len(files), "outside": sums["run"] - statements.total(), "statements": statements}
        return dict(sums) | told | {"peak": peak(), "poll": _queries_of_a_poll(batch_id)}


def _one(file: Path, workers: int) -> tuple[dict, Counter, int]:
    uploaded, batch_id = _timed(_upload, file)
    judged, _ = _timed(_judge, file)
    checked, _ = _timed(batches.check, batch_id)
    batch = db.session.get(Batch, batch_id, populate_existing=True)
    if batch.state is State.READY:
        batches.confirm(batch, batch.plan_digest, str(batch.planned))
    db.session.commit()
    with _in_sql() as sql:
        run, _ = _timed(_run, batch_id, workers)
    batch = db.session.get(Batch, batch_id)
    outcomes = batches.progress(batch).outcomes
    assert sum(outcomes.values()) == batch.rows and batch.state is State.FINISHED
    told = {"upload": uploaded, "judged": judged, "check": checked, "run": run}
    return told | {"rows": batch.rows, "purged": outcomes["purged"]}, sql, batch_id


@contextmanager
def _in_sql() -> Iterator[Counter]:
    """This process's seconds in SQL, by what is done with which table."""
    seconds, began = Counter(), []
    commit, fetch = db.engine.dialect.do_commit, CursorFetchStrategy.fetchall

    def before(*_):
        began.append(time.perf_counter())

    def after(_connection, _cursor, statement, *_):
        *verbs, table = STATEMENT.match(statement).groups()
        seconds[" ".join(filter(None, [*verbs, table]))] += time.perf_counter() - began.pop()

    def timed_commit(connection):
        before()
        commit(connection)
        after(None, None, "COMMIT")

    def timed_fetch(strategy, result, cursor):
        before()
        rows = fetch(strategy, result, cursor)
        after(None, None, "FETCH")
        return rows

    if db.engine.dialect.name == "sqlite":  # it looks for its rows when they are fetched
        CursorFetchStrategy.fetchall = timed_fetch
    event.listen(db.engine, "before_cursor_execute", before)
    event.listen(db.engine, "after_cursor_execute", after)
    db.engine.dialect.do_commit = timed_commit
    yield seconds
    db.engine.dialect.do_commit, CursorFetchStrategy.fetchall = commit, fetch
    event.remove(db.engine, "before_cursor_execute", before)
    event.remove(db.engine, "after_cursor_execute", after)


def _run(batch_id: int, workers: int) -> None:
    """By this process and as many others as it takes."""
    db.session.remove()
    # As the web server's are: whoever closes SQLite's file last writes its log back first. None may be taken along into a fork.
    _open = None if workers > 1 else db.engine.connect()
    db.engine.dispose()  # a job begins in a process of its own
    others = []
    for _ in range(workers - 1):
        other = os.fork()
        if not other:
            batches.run(batch_id)
            os._exit(0)
        others.append(other)
    batches.run(batch_id)
    for other in others:
        os.waitpid(other, 0)
    if _open:
        _open.invalidate()  # or each of a hundred files leaves one


def _upload(file: Path) -> int:
    with file.open("rb") as stream:
        batch = batches.open_csv(stream, file.name, Door.CSV)
    batches.map_fields(batch, batch.email_column, False)
    batch_id = batch.id
    db.session.commit()
    return batch_id


def _judge(file: Path) -> None:
    """What the check does without a database: the verdict of every row."""
    with file.open("rb") as stream:
        for row in customer_csv.read_rows(stream, "utf-8", ","):
            verdict(row, 0, None)


def _queries_of_a_poll(batch_id: int) -> int:
    asked = []
    batch = db.session.get(Batch, batch_id)
    event.listen(db.engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2]))
    batches.progress(batch)
    return len(asked)


def peak() -> float:
    """The most memory this process ever had, in MB; getrusage would count its parent's too."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def _timed(act, *arguments):
    began = time.perf_counter()
    answer = act(*arguments)
    return time.perf_counter() - began, answer


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
