"""The Flask extensions, unbound, and how a connection to the database is opened."""

import fcntl
from collections.abc import Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import psycopg
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_login import LoginManager
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from flask_wtf import CSRFProtect
from sqlalchemy import (
    BigInteger,
    Connection,
    DateTime,
    Engine,
    Enum,
    Integer,
    MetaData,
    TypeDecorator,
    event,
    func,
    select,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, registry

# A transaction writes unless it says otherwise. On SQLite one that begins by reading and then writes
# fails at once with "database is locked" when another has written in between; no timeout helps it.
only_reads: ContextVar[bool] = ContextVar("only_reads", default=False)


@contextmanager
def reading():
    """Transactions begun inside only read, and so wait for no writer."""
    token = only_reads.set(True)
    try:
        yield
    finally:
        only_reads.reset(token)


def for_one_question(engine: Engine) -> Connection:
    """PostgreSQL needs no transaction for it, which would be two more ways to the server and back."""
    connection = engine.connect()
    return connection if engine.dialect.name == "sqlite" else connection.execution_options(isolation_level="AUTOCOMMIT")


class UtcDateTime(TypeDecorator):
    """A moment in UTC, aware on both sides; SQLite keeps it without its zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return value if value is None or dialect.name != "sqlite" else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value, dialect):
        return value if value is None or value.tzinfo else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """Every table; its constraints have names, so that a migration can speak of them."""

    registry = registry(
        metadata=MetaData(
            naming_convention={
                "ix": "ix_%(column_0_N_label)s",
                "uq": "uq_%(table_name)s_%(column_0_N_name)s",
                "ck": "ck_%(table_name)s_%(constraint_name)s",
                "fk": "fk_%(table_name)s_%(column_0_N_name)s",
                "pk": "pk_%(table_name)s",
            }
        ),
        type_annotation_map={
            datetime: UtcDateTime,
            int: BigInteger().with_variant(Integer, "sqlite"),  # SQLite gives ids to INTEGER alone, and any is as long
            StrEnum: Enum(
                StrEnum, native_enum=False, length=20, values_callable=lambda enum: [one.value for one in enum]
            ),
        },
    )


db = SQLAlchemy(model_class=Base)
migrate = Migrate()
login_manager = LoginManager()
csrf = CSRFProtect()
limiter = Limiter(get_remote_address, in_memory_fallback_enabled=True)


def now() -> datetime:
    """This moment, in UTC."""
    return datetime.now(UTC)


def insert_rows(connection: Connection, table: str, columns: Iterable[str], rows: Iterable[tuple]) -> None:
    """Straight to the driver, as it stores them: a dictionary and a type a value would cost more than the row."""
    names = ", ".join(columns)
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" for _ in columns)
        connection.connection.executemany(f'INSERT INTO "{table}" ({names}) VALUES ({marks})', rows)
        return
    copying = f'COPY "{table}" ({names}) FROM STDIN'
    try:
        with connection.connection.cursor() as cursor, cursor.copy(copying) as copy:
            for row in rows:
                copy.write_row(row)
    except psycopg.Error as error:  # as SQLAlchemy says it of every other statement
        raise DBAPIError.instance(copying, None, error, psycopg.Error, dialect=connection.dialect) from None


@contextmanager
def giving_way(engine: Engine):
    """Of all who write for a file's sake, one at a time: so whoever writes for another reason waits for one of them at most."""
    if engine.dialect.name != "sqlite":
        yield
        return
    with open(Path(engine.url.database).with_suffix(".bulk"), "w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


def one_at_a_time(connection: Connection, what: bytes) -> None:
    """Until this transaction ends, another that says the same waits here. SQLite has one writer anyway."""
    if connection.dialect.name != "sqlite":
        connection.execute(select(func.pg_advisory_xact_lock(int.from_bytes(what[:8], signed=True))))


@contextmanager
def alone(engine: Engine, name: str):
    """Whether nobody else is at what has this name, for as long as the block lasts. It ends with its holder, however that ends."""
    if engine.dialect.name != "sqlite":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            is_alone = connection.scalar(select(func.pg_try_advisory_lock(func.hashtext(name))))
            try:
                yield is_alone
            finally:
                try:
                    connection.execute(select(func.pg_advisory_unlock_all()))
                except DBAPIError:
                    connection.invalidate()  # it goes with the session, once the server has noticed
        return
    with open(Path(engine.url.database).with_suffix(f".{name}"), "w") as place:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def prepare_postgresql(engine: Engine, session: dict[str, str | int]) -> None:
    """Give every connection these settings. Not as options of its startup: a pooler in between drops those, or refuses them."""
    settings = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in session.items())

    # Before SQLAlchemy looks what the isolation is, to which it resets every connection that had another for a while.
    @event.listens_for(engine, "connect", insert=True)
    def connect(connection, _record):
        connection.autocommit = True
        connection.execute(f"SELECT {settings}")
        connection.autocommit = False


def prepare_sqlite(engine: Engine) -> None:
    """Make every connection of a SQLite engine keep its promises: foreign keys, erased pages, fair writers."""
    queue = Path(engine.url.database).with_suffix(".writers")

    @event.listens_for(engine, "connect")
    def connect(connection, _record):
        connection.isolation_level = None  # we say BEGIN ourselves, below
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",  # what was told done must survive a power cut: NORMAL waits for the disk only at checkpoints
            "foreign_keys=ON",
            "secure_delete=ON",
            "busy_timeout=60000",  # longer than writing the file anew takes (purge.erasure.residue)
            "cache_size=-65536",
            "temp_store=MEMORY",
            "soft_heap_limit=100000000",  # of all connections together
            "wal_autocheckpoint=64000",  # 256 MB: a page that many chunks touch is written back once
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection):
        if only_reads.get():
            connection.exec_driver_sql("BEGIN")
            return
        # SQLite's waiters poll, so one that has just finished writing gets in again before anybody who waits.
        # The file makes them a queue: only its holder may poll, and it is let go when the writing begins.
        with open(queue, "w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            connection.exec_driver_sql("BEGIN IMMEDIATE")
