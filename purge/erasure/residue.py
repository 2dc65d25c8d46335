"""What a deletion leaves in the database's own files."""

import logging
import os
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path

from sqlalchemy import Engine, func, text
from sqlalchemy.exc import DBAPIError

from purge.extensions import reading

log = logging.getLogger(__name__)

MB = 1_000_000
READER_SECONDS = 1  # for so long whoever writes waits with us for who reads
CGROUP = Path("/sys/fs/cgroup")

# ANALYZE leaves the statistics of a table as they are when it finds no row in it. To give a column the type that it has drops them,
# and rewrites nothing. Numbers are left out: those of customers are kept anyway, and foreign keys would be looked at again.
_OF_EMPTIED = """
SELECT format('ALTER TABLE %I ALTER %I TYPE %s', emptied.relname, held.attname, format_type(held.atttypid, held.atttypmod))
  || coalesce(' COLLATE ' || nullif(held.attcollation, 0)::regcollation, '')
FROM pg_class AS emptied
JOIN pg_attribute AS held ON held.attrelid = emptied.oid AND held.atttypid NOT IN ('bigint'::regtype, 'integer'::regtype)
JOIN pg_stats AS sample ON sample.tablename = emptied.relname AND sample.attname = held.attname
  AND sample.schemaname = emptied.relnamespace::regnamespace::text
WHERE emptied.relname = ANY(:names) AND emptied.reltuples = 0 AND pg_table_is_visible(emptied.oid)
"""
_SKIPPED = """
SELECT count(*) FROM pg_stat_user_tables
WHERE relname = ANY(:names) AND pg_table_is_visible(relid) AND coalesce(last_analyze, '-infinity') < :began
"""


def write_anew(engine: Engine) -> bool:
    """Write SQLite's file anew; False when that was not possible now.

    `secure_delete` is not enough: when SQLite moves rows between two pages of a tree it leaves a copy in the first
    one's unused space, and a later deletion overwrites the row and not the copy. Seen: 3 addresses of 96,000. About
    eight seconds a gigabyte, in which others read but do not write.
    """
    return _told(engine, "VACUUM") is not None


def empty_log(engine: Engine) -> bool:
    """Write everything into SQLite's file and leave nothing in the log before it; False when that was not possible now."""
    told = _told(engine, "PRAGMA wal_checkpoint(TRUNCATE)", READER_SECONDS)
    return told is not None and told[0][0] == 0  # 1: busy


def draw_samples_anew(engine: Engine, tables: Iterable[str]) -> bool:
    """Let PostgreSQL draw its statistics of these tables anew; False when that was not possible now.

    It keeps the commonest and some other values of each column as plain text, for whoever may read the table, and after a few
    deletions for months.
    """
    names = list(tables)
    quoted = ", ".join(map(engine.dialect.identifier_preparer.quote, names))
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            began = connection.scalar(func.clock_timestamp())
            # Whoever waits for a table that autovacuum has ends it, and a large one would never be vacuumed.
            connection.exec_driver_sql(f"ANALYZE (SKIP_LOCKED) {quoted}")
            for forgetting in connection.scalars(text(_OF_EMPTIED), {"names": names}).all():
                connection.exec_driver_sql(forgetting)
            return not connection.scalar(text(_SKIPPED), {"names": names, "began": began})
    except DBAPIError as error:
        log.warning("the statistics could not be drawn anew (%s)", type(error.orig).__name__)
        return False


def _told(engine: Engine, statement: str, seconds: float | None = None) -> list[tuple] | None:
    """What SQLite answers; for whoever is in the way it waits so long, or as long as it always does."""
    with closing(engine.raw_connection()) as connection:  # in no transaction
        ((usual,),) = connection.execute("PRAGMA busy_timeout").fetchall()
        try:
            if seconds:
                connection.execute(f"PRAGMA busy_timeout = {1_000 * seconds:.0f}")
            return connection.execute(statement).fetchall()
        except engine.dialect.dbapi.Error as error:
            log.warning("the database file could not be cleared: %s", error)
            return None
        finally:
            connection.execute(f"PRAGMA busy_timeout = {usual}")


def lacks_memory(engine: Engine) -> str | None:
    """That there is too little to write the file anew, or None: SQLite makes the copy in memory (1,310 MB for 1,133)."""
    with reading(), engine.connect() as connection:
        pages, unused, size = (
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("page_count", "freelist_count", "page_size")
        )
    needed, free = (pages - unused) * size * 1.2, free_memory()
    if needed < free:
        return None
    return (
        f"To write the database's file anew takes {needed / MB:,.0f} MB of memory, and {free / MB:,.0f} MB are free: what"
        " deletions left in the file stays there. Give this machine more, or move to PostgreSQL."
    )


def free_memory() -> int:
    """Bytes that a program could have without anything being swapped out; all there is where the kernel does not say."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, KeyError):
        free = _kernel_says("/proc/meminfo")["MemAvailable:"] * 1024
    with suppress(OSError, KeyError, ValueError):  # a container's own limit, if it has one
        limit, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        parts = _kernel_says(CGROUP / "memory.stat")
        free = min(free, limit - used + parts["active_file"] + parts["inactive_file"])
    return free


def _kernel_says(path: str | Path) -> dict[str, int]:
    return {name: int(number) for name, number, *_ in map(str.split, Path(path).read_text().splitlines())}
