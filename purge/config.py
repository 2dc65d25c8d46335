"""Every setting, from the environment, each with its reason. A bad one is refused in a sentence; nothing is guessed."""

import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import click
from pysqlite3 import dbapi2 as pysqlite3
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

CHECKOUT = Path(__file__).resolve().parent.parent
SECRET_CHARACTERS = 64
REDIS_FILE = "redis.url"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


# Of a session on PostgreSQL, whatever the server, the database or the role say.
SESSION = {
    "timezone": "UTC",
    "default_transaction_isolation": "read committed",
    "statement_timeout": 0,  # a chunk sets its own
    "jit": "off",  # to compile what looks up a block's or a chunk's customers takes longer than to look them up
    # Whoever holds a customer for long must not hold up everybody else, who wait for a worker or for the web server's threads.
    "lock_timeout": "10s",
    # A machine that is gone must not hold its chunk's locks until the server's own two hours are over.
    "tcp_keepalives_idle": 30,
    "tcp_keepalives_interval": 10,
    "tcp_keepalives_count": 3,
    "tcp_user_timeout": 60_000,
    "client_connection_check_interval": "10s",
    "idle_in_transaction_session_timeout": "10min",
    "idle_session_timeout": 0,  # a check holds its lock on a connection that says nothing meanwhile
}
# A connection that the server dropped is noticed before it is used; one that cannot be had is an error soon.
POSTGRESQL_OPTIONS = {
    "pool_pre_ping": True,
    "connect_args": {
        "connect_timeout": 10,
        "application_name": "purge",
        "client_encoding": "utf8",  # a database without an encoding would answer in bytes, and not be refused in a sentence
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 60_000,
        # A plan made for any text reads the whole table for a rare one.
        "prepare_threshold": None,
    },
}


class ConfigError(click.ClickException):
    """A setting cannot be used; its message is one sentence, and a command that meets it says that and exits with 2."""

    exit_code = 2


def load_config(environ: Mapping[str, str] = os.environ) -> dict:
    """The app's settings; makes the instance folder and its secrets when they are not there."""
    instance = _instance_folder(environ)
    host = environ.get("HOST", LOOPBACK[0])
    public = _public(environ)
    max_bytes = _number(environ, "MAX_CSV_BYTES", 100_000_000)
    database = _database(environ, instance)
    redis_url = _redis(environ, instance)
    _refuse_one_of_two_secrets(environ, database)
    return {
        # Every file the app writes is under this folder.
        "INSTANCE_PATH": str(instance),
        # SQLite is embedded; PostgreSQL is for several machines.
        "SQLALCHEMY_DATABASE_URI": database,
        # Bound values are people; they must not reach a log with an error's text.
        "SQLALCHEMY_ENGINE_OPTIONS": {
            "hide_parameters": True,
            **({"module": pysqlite3} if database.startswith("sqlite") else POSTGRESQL_OPTIONS),
        },
        # `make run` has a Redis of its own, and says in a file where it is, for commands in other terminals.
        "REDIS_URL": redis_url,
        # Signs the session cookie and seals uploads.
        "SECRET_KEY": _secret(environ, "SECRET_KEY", instance),
        # Keys the fingerprints of addresses: lose it, and nobody can be known again.
        "LEDGER_KEY": _secret(environ, "LEDGER_KEY", instance).encode(),
        # Loopback, because the app speaks plain HTTP: TLS is the reverse proxy's.
        "HOST": host,
        "PORT": _number(environ, "PORT", 5000, most=65_535),
        "WORKERS": _number(environ, "WORKERS", 2, most=1_000),
        "DEMO": bool(_number(environ, "DEMO", 1, most=1, least=0)),
        "MAX_CSV_BYTES": max_bytes,
        "MAX_CSV_ROWS": _number(environ, "MAX_CSV_ROWS", 1_000_000),
        # Customers a transaction deletes: enough to be quick, few enough to let others write in between.
        "CHUNK_SIZE": _number(environ, "CHUNK_SIZE", 5_000),
        # Rewriting the database's file holds up whoever writes, so it waits until nothing has been purged for so long.
        "CLEAR_AFTER_SECONDS": _number(environ, "CLEAR_AFTER_SECONDS", 30),
        # A dropped file is taken once it has stood unchanged for so long: a slow upload may rest.
        "DROP_AGE_SECONDS": _number(environ, "DROP_AGE_SECONDS", 30),
        # An answered file still stands in processed/ for so long: what its upload goes on to write is not lost unseen.
        "DROP_REST_SECONDS": _number(environ, "DROP_REST_SECONDS", 3_600, least=0),
        # Of the SFTP server that `make run` brings; when it is taken, any free one.
        "DROP_PORT": _number(environ, "DROP_PORT", 5022, most=65_535),
        # A form may be as large as the file it brings, and no larger; everything else in it is small.
        "MAX_CONTENT_LENGTH": max_bytes + 1_000_000,
        "MAX_FORM_MEMORY_SIZE": 100_000,
        # Flask's own are too lenient: no SameSite, a month, any Host header.
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "SESSION_COOKIE_SECURE": public.scheme == "https",
        "SESSION_COOKIE_NAME": "purge_session",
        "PERMANENT_SESSION_LIFETIME": timedelta(hours=12),
        "SESSION_REFRESH_EACH_REQUEST": False,  # or a page that polls, left open, would be signed in for ever
        "TRUSTED_HOSTS": [
            *{*LOOPBACK, host, *([public.hostname] if public.hostname else []), *_words(environ, "ALLOWED_HOSTS")}
        ],
        "WTF_CSRF_TIME_LIMIT": None,  # as long as the session, or a form left open overnight is lost
        "RATELIMIT_STORAGE_URI": redis_url,
        "RATELIMIT_STORAGE_OPTIONS": {
            "socket_connect_timeout": 2,
            "socket_timeout": 2,
        },  # then each process counts for itself
        "BOOTSTRAP_SERVE_LOCAL": True,
        # How many proxies stand before it, each adding to X-Forwarded-For: whose sign-ins are counted.
        "PROXIES": _number(environ, "PROXIES", 0, most=10, least=0),
        # Without it nobody gets the metrics: they say how many people were purged.
        "METRICS_TOKEN": environ.get("METRICS_TOKEN", ""),
    }


def _instance_folder(environ: Mapping[str, str]) -> Path:
    folder = Path(environ.get("INSTANCE_PATH") or CHECKOUT / "instance").resolve()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "tmp").mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder / "tmp"):
            return folder
    except OSError as error:
        raise ConfigError(
            f"The folder {folder} cannot be used ({error.strerror}). Set INSTANCE_PATH to another."
        ) from None


def _public(environ: Mapping[str, str]) -> SplitResult:
    given = environ.get("PUBLIC_URL", "")
    with suppress(ValueError):  # a bracket that is never closed
        public = urlsplit(given)
        if not given or (public.scheme in ("http", "https") and public.hostname):
            return public
    raise ConfigError("PUBLIC_URL must be a whole address, like https://purge.company.com.")


def _database(environ: Mapping[str, str], instance: Path) -> str:
    url = environ.get("DATABASE_URL") or f"sqlite:///{instance / 'purge.db'}"
    kind, _, rest = url.partition("://")
    if kind in ("postgres", "postgresql", "postgresql+psycopg") and rest:
        with suppress(ValueError, ArgumentError):  # a port that is no number
            if "@" not in (make_url(url).host or ""):
                return f"postgresql+psycopg://{rest}"
    if kind == "sqlite" and rest.strip("/") and ":memory:" not in rest and "mode=memory" not in rest:
        return url
    raise ConfigError(
        "DATABASE_URL must be like postgresql://user:password@host:port/database, with %40 for an @ in the password, "
        "or sqlite:////a/file.db."
    )


def _redis(environ: Mapping[str, str], instance: Path) -> str:
    url = environ.get("REDIS_URL") or _own_redis(instance) or "redis://127.0.0.1:6379/0"
    with suppress(ValueError):  # a port that is no number, from 0 to 65,535
        parts = urlsplit(url)
        is_whole = parts.scheme in ("redis", "rediss") and parts.hostname and parts.port != 0
        if is_whole and re.fullmatch(r"(/\d*)?", parts.path):
            return url
    raise ConfigError(
        "REDIS_URL must be like redis://:password@host:6379/0, or rediss:// for TLS."
    )  # without the password


def _own_redis(instance: Path) -> str | None:
    with suppress(OSError):
        return (instance / REDIS_FILE).read_text(encoding="ascii")
    return None


def _secret(environ: Mapping[str, str], name: str, instance: Path) -> str:
    """From the environment, or from a file of our own, made at the first start."""
    file = instance / name.lower()
    if not environ.get(name):
        _make_secret(file)
    try:
        secret = environ.get(name) or file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise ConfigError(
            f"The secret in {file} cannot be read. Restore it from a backup, or remove it if nothing depends on it."
        ) from None
    if len(secret) < SECRET_CHARACTERS // 2:
        where = name if environ.get(name) else file
        raise ConfigError(
            f"The secret in {where} is too short. Restore it from a backup, or remove it if nothing depends on it."
        )
    return secret


def _refuse_one_of_two_secrets(environ: Mapping[str, str], database: str) -> None:
    """One of several machines would make a key of its own in a folder that nobody keeps: its SECRET_KEY would sign others' sessions
    out and open none of their uploads, and with a LEDGER_KEY that is lost nobody who was purged is known again."""
    there = [name for name in ("SECRET_KEY", "LEDGER_KEY") if environ.get(name)]
    if not database.startswith("sqlite") and len(there) == 1:
        (missing,) = {"SECRET_KEY", "LEDGER_KEY"} - {*there}
        raise ConfigError(f"{there[0]} is set and {missing} is not. Set both, to the same on every machine.")


def _make_secret(file: Path) -> None:
    """Whole or not at all, and only one of two who make it at once."""
    if file.exists():
        return
    if (file.parent / "purge.db").exists():
        raise ConfigError(
            f"There is a database in {file.parent}, but its secret {file.name} is missing. Restore it from a backup."
        )
    with tempfile.NamedTemporaryFile("w", dir=file.parent / "tmp") as draft:  # mode 0600
        draft.write(secrets.token_hex(SECRET_CHARACTERS // 2))
        draft.flush()
        os.fsync(draft.fileno())
        try:
            os.link(draft.name, file)
        except FileExistsError:
            return


def _number(environ: Mapping[str, str], name: str, default: int, most: int = 10**12, least: int = 1) -> int:
    text = environ.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise ConfigError(f"{name} must be a whole number from {least} to {most:,}, not “{text}”.")
    return int(text)


def _words(environ: Mapping[str, str], name: str) -> list[str]:
    return [word for word in environ.get(name, "").replace(",", " ").split() if word]
