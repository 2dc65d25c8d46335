"""A real installation: `python app.py` and the `flask` commands in processes of their own."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing, suppress
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode

import psycopg
from flask import has_app_context
from pysqlite3 import dbapi2 as sqlite3

from app import create_app
from purge.extensions import db
from tests import PATIENCE

CHECKOUT = Path(__file__).resolve().parent.parent
FLASK = [sys.executable, "-m", "flask", "--app", str(CHECKOUT / "app.py")]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Instance:
    """One folder, one port, one supervisor; `output` is what it printed."""

    email = "admin@localhost"
    server = None  # a Postgres, on which each has a database of its own; without it, SQLite in the folder

    def __init__(self, folder: Path, template: str | None = None, **settings: str):
        self.port = free_port()
        self.folder, self.url = folder, f"http://127.0.0.1:{self.port}"
        # Two that start in the same second would both find the usual port for SFTP free.
        ports = {"PORT": str(self.port), "DROP_PORT": str(free_port())}
        self.environ = {
            **os.environ,
            "INSTANCE_PATH": str(folder),
            "DEMO": "0",
            "DROP_REST_SECONDS": "0",
            **ports,
            **settings,
        }
        if Instance.server and "DATABASE_URL" not in settings:
            self.environ["DATABASE_URL"] = Instance.server.url(Instance.server.make(template or "template0"))
        self.process, self.log, self._database = None, folder.with_suffix(".output"), None

    def start(self, wait: bool = True) -> "Instance":
        told = self.output.count("Open ") if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "app.py"],
                cwd=CHECKOUT,
                env=self.environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + PATIENCE
        while wait and self.output.count("Open ") == told:
            assert self.process.poll() is None and time.monotonic() < until, self.output
            time.sleep(0.1)
        return self

    @property
    def output(self) -> str:
        return self.log.read_text()

    @property
    def password(self) -> str:
        return re.search(r"password\s+(\S+)", self.output)[1]

    def answers(self) -> bool:
        with suppress(OSError):
            urllib.request.urlopen(f"{self.url}/login", timeout=5).close()
            return True
        return False

    def ask(self, question: str, *values) -> list[tuple]:
        """What its database answers; `?` stands for a value."""
        if url := self.environ.get("DATABASE_URL"):
            return self._ask_postgresql(url, question.replace("?", "%s"), values or None)
        with closing(sqlite3.connect(self.folder / "purge.db", timeout=PATIENCE)) as connection:
            return connection.execute(question, values).fetchall()

    def hang_up(self) -> None:
        """Ask no more, or over a new connection."""
        if self._database:
            self._database.close()

    def _ask_postgresql(self, url: str, question: str, values: tuple | None) -> list[tuple]:
        """Over one connection, kept because we may ask fifty times a second; anew where the server has been away since."""
        if self._database and not self._database.closed:
            with suppress(psycopg.OperationalError):
                return self._database.execute(question, values).fetchall()
            self._database.close()
        self._database = psycopg.connect(url, autocommit=True)
        return self._database.execute(question, values).fetchall()

    def wait_for(self, what: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE
        while not what():
            assert time.monotonic() < until, self.output
            time.sleep(0.02)

    def command(self, *arguments: str, may_fail: bool = False) -> str:
        """What a `flask` command answers, in this process: in one of its own it loads modules for most of its time."""
        assert not has_app_context(), "it would be given to that app"
        app = create_app(self.environ)
        answer = app.test_cli_runner().invoke(args=arguments)
        with app.app_context():
            db.engine.dispose()
        if answer.exception and not (may_fail and isinstance(answer.exception, SystemExit)):
            raise AssertionError(answer.output) from answer.exception
        return answer.stdout

    def flask(self, *arguments: str, **options) -> subprocess.CompletedProcess:
        """A `flask` command in a process of its own."""
        return subprocess.run(
            [*FLASK, *arguments], cwd=CHECKOUT, env=self.environ, capture_output=True, text=True, **options
        )

    def begin_flask(self, *arguments: str) -> subprocess.Popen:
        """A `flask` command that goes on beside us; its output can be read at its end."""
        quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        return subprocess.Popen([*FLASK, *arguments], cwd=CHECKOUT, env=self.environ, **quiet)

    def children(self) -> dict[int, str]:
        """Every process below the supervisor: id and command line."""
        return self.below({self.process.pid})

    @staticmethod
    def below(roots: set[int]) -> dict[int, str]:
        """Every process below these: id and command line."""
        parents = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    status = (entry / "stat").read_text().rpartition(")")[2].split()
                    parents[int(entry.name)] = (int(status[1]), (entry / "cmdline").read_text().replace("\0", " "))
        below, found = set(roots), {}
        while new := {pid for pid, (parent, _) in parents.items() if parent in below} - below:
            below |= new
            found |= {pid: parents[pid][1] for pid in new}
        return found

    def kill(self, *words: str) -> int:
        """kill -9 every process below whose command line has these words; how many there were."""
        hit = [pid for pid, command in self.children().items() if all(word in command for word in words)]
        for pid in hit:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(hit)

    def stop(self, number: int = signal.SIGINT) -> int | None:
        """As Ctrl-C does; the exit status."""
        self.hang_up()
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()


class Admin:
    """Somebody signed in, over HTTP as a browser would be; every answer is the page they land on."""

    def __init__(self, instance, *handlers: urllib.request.BaseHandler):
        self.url = instance.url
        self.cookies = CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies), *handlers)
        self.post("/login", {"email": instance.email, "password": instance.password})

    def get(self, path: str) -> str:
        return self._answer(self.url + path)

    def post(self, path: str, fields: dict, page: str = "/login") -> str:
        return self.send(path, {**self.fields(self.get(page)), **fields})

    def fields(self, page: str) -> dict:
        """What a page's form holds: its token, and the plan that it shows."""
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page)[1]
        plan = re.search(r'name="plan" value="(\w+)"', page)
        return {"csrf_token": token, **({"plan": plan[1]} if plan else {})}

    def send(self, path: str, fields: dict) -> str:
        return self._answer(self.url + path, urlencode(fields).encode())

    def upload(self, content: bytes) -> str:
        """A CSV, as a form with a file brings it."""
        boundary, token = "one-part-ends-here", self.fields(self.get("/settings/upload-tags"))["csrf_token"]
        parts = [("csrf_token", token), ("action", "purge"), ('file"; filename="people.csv', content.decode())]
        body = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in parts
        )
        request = urllib.request.Request(f"{self.url}/uploads", f"{body}--{boundary}--\r\n".encode())
        request.add_header("Content-Type", f"multipart/form-data; boundary={boundary}")
        return self._answer(request)

    def _answer(self, request, data: bytes | None = None) -> str:
        try:
            return self.opener.open(request, data, timeout=PATIENCE).read().decode()
        except HTTPError as error:
            return error.read().decode()

    def purge(self, person: int) -> str:
        url = f"/customers/{person}/purge"
        try:
            return self.post(url, {}, page=url)
        except TypeError:  # gone between two clicks: the page had no form any more
            return self.get(f"/customers/{person}")

    def outcome(self, answer: str) -> str:
        """What the page of a purge says in the end."""
        polls = re.search(r'hx-get="(/customers/purging/\d+)"', answer)
        until = time.monotonic() + PATIENCE
        while polls and "hx-trigger" in (answer := self.get(polls[1])):
            assert time.monotonic() < until
            time.sleep(0.05)
        return re.sub(r"<[^>]+>", "", answer)
