"""A PostgreSQL server of the tests' own, and databases on it that are copies of one that the migrations made."""

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

from tests import PATIENCE

_serial = itertools.count(1)


class Postgres:
    """Started on a free port of loopback, as the system's `postgres` user where we are root: it refuses to run as root."""

    def __init__(self, **settings: str):
        # Not where the app under test keeps its temporary files: nobody else may look in there.
        self.folder = Path(tempfile.mkdtemp(prefix="purge-postgres-", dir="/tmp"))
        self.user = "postgres" if os.geteuid() == 0 else None
        if self.user:
            os.chown(self.folder, pwd.getpwnam(self.user).pw_uid, -1)
        self.process = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.settings = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.folder}
        self.settings |= {"timezone": "Asia/Kathmandu", **settings}  # not ours: what is UTC must be so by our own doing
        initdb = ["initdb", "-D", f"{self.folder}/data", "-U", "purge", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]
        self._run([*initdb, "--no-sync"])
        self.start()

    def start(self) -> "Postgres":
        options = [f"-c{name}={value}" for name, value in self.settings.items()]
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [_program("postgres"), "-D", f"{self.folder}/data", *options],
                user=self.user, cwd=self.folder, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + PATIENCE
        while True:
            try:
                psycopg.connect(self.conninfo("postgres"), connect_timeout=5).close()
                return self
            except psycopg.OperationalError:
                assert self.process.poll() is None and time.monotonic() < until, (self.folder / "log").read_text()
                time.sleep(0.05)

    def stop(self, number: int = signal.SIGQUIT) -> None:
        """SIGQUIT: at once, as a crash is; SIGINT: orderly, cutting everybody off."""
        self.process.send_signal(number)
        self.process.wait(PATIENCE)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def conninfo(self, database: str) -> str:
        return f"host=127.0.0.1 port={self.port} user=purge dbname={database}"

    def url(self, database: str) -> str:
        return f"postgresql://purge@127.0.0.1:{self.port}/{database}"

    def ask(self, database: str, statement: str, *values) -> list[tuple]:
        with psycopg.connect(self.conninfo(database), autocommit=True) as connection:
            found = connection.execute(statement, values or None)
            return found.fetchall() if found.description else []

    def set(self, name: str, value: str) -> None:
        """For every session, from now on."""
        self.ask("postgres", f"ALTER SYSTEM SET {name} = '{value}'")
        self.ask("postgres", "SELECT pg_reload_conf()")

    def make(self, template: str = "template0", strategy: str = "") -> str:
        """The name of a new database, a copy of another."""
        name = f"purge_{next(_serial)}"
        self.ask("postgres", f"CREATE DATABASE {name} TEMPLATE {template}{strategy}")
        return name

    def drop(self, name: str) -> None:
        self.ask("postgres", f"DROP DATABASE {name} WITH (FORCE)")

    def _run(self, command: list[str]) -> None:
        command = [_program(command[0]), *command[1:]]
        subprocess.run(command, check=True, user=self.user, cwd=self.folder, stdout=subprocess.DEVNULL)


def _program(name: str) -> str:
    """Debian keeps them out of the way, a folder a version; the newest."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4]))
    found = str(versions[-1]) if versions else shutil.which(name)
    assert found, "PostgreSQL is missing; tests/system-packages installs it"
    return found
