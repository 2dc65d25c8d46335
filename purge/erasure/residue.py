"""What a deletion leaves in the database's own files."""

from sqlalchemy import Engine


def clear_residue(engine: Engine) -> bool:
    """On SQLite, fold the write-ahead log into the file and empty it; False when a reader is in the way: ask again later."""
    if engine.dialect.name != "sqlite":
        return True
    connection = engine.raw_connection()
    try:
        connection.execute("PRAGMA busy_timeout=2000")
        busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        connection.execute("PRAGMA busy_timeout=30000")
        return not busy
    finally:
        connection.close()
