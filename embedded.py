"""Everything on this machine, in one command: Redis, web and SFTP server, workers and scheduler, started, watched, stopped."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

from flask import Flask
from sqlalchemy.exc import DatabaseError

from jobs import drop_server, redis_server
from jobs.drop_server import Place
from jobs.process import dies_with_us
from purge import pickup
from purge.cli.setup import add_user, upgrade_schema
from purge.config import CHECKOUT, LOOPBACK, REDIS_FILE, ConfigError
from purge.demo_data import DEMO_CUSTOMERS, make_demo_data
from purge.evidence import audit
from purge.evidence.audit import Act
from purge.extensions import db
from purge.models import Customer, Role, User
from purge.pickup import SftpConnection

FIRST_ADMIN = "admin@localhost"
STOP_SECONDS = 20
LONGEST_PAUSE = 30
PICK_UP_WORKERS = 2  # a server that is slow keeps one busy
OWN_RUNS_UP_TO = 1_000  # customers a dropped file deletes with nobody's yes; more wait for one


@dataclass
class Child:
    """A program that is started again when it ends, after a pause that grows while it keeps ending."""

    name: str
    command: list[str]
    process: subprocess.Popen | None = None
    started: float = 0.0
    pause: float = field(default=0.5)

    def start(self, environ: dict[str, str], log: Path) -> None:
        with open(log / f"{self.name}.log", "ab") as output:
            self.process = subprocess.Popen(
                self.command,
                cwd=CHECKOUT,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=dies_with_us,
            )
        self.started = time.monotonic()

    def start_again_if_it_ended(self, environ: dict[str, str], log: Path) -> None:
        if self.process.poll() is None:
            return
        lived = time.monotonic() - self.started
        if lived > LONGEST_PAUSE:
            self.pause = 0.5
        if lived > self.pause:
            print(
                f"  {self.name} ended ({self.process.returncode}) and is started again; see {log / self.name}.log",
                file=sys.stderr,
            )
            self.pause = min(self.pause * 2, LONGEST_PAUSE)
            self.start(environ, log)


def main(app: Flask) -> int:
    """Run until Ctrl-C or SIGTERM; 0 when all went down cleanly. Raises ConfigError."""
    config, instance = app.config, Path(app.config["INSTANCE_PATH"])
    with open(instance / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"Purge is running already on {instance}. Set INSTANCE_PATH and PORT for a second one."
            ) from None
        address = instance / REDIS_FILE
        # Left behind by one that was killed, whose web server may have a request in hand yet.
        _refuse_taken_port(config["HOST"], config["PORT"], STOP_SECONDS if address.exists() else 0)
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        place, drop_port = Place(instance / "sftp"), _free_port(config["DROP_PORT"])
        place.prepare(drop_port)
        _prepare(app, place, drop_port)
        try:
            redis = redis_server.start(instance / "redis")
        except redis_server.NotStarted as error:
            raise ConfigError(str(error)) from None
        try:
            address.touch(0o600)
            address.write_text(redis.url)
            return _run(config, instance, redis, drop_port, stop)
        finally:
            address.unlink()
            redis.stop()


def _refuse_taken_port(host: str, port: int, patience: float) -> None:
    """Raises ConfigError; of a port that another has, when it is not free within so many seconds."""
    family, until = socket.AF_INET6 if ":" in host else socket.AF_INET, time.monotonic() + patience
    while True:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                return
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() >= until:
                    why = error.strerror.lower()
                    raise ConfigError(
                        f"Port {port} on {host} cannot be used ({why}). Choose another: PORT=5050 make run"
                    ) from None
        time.sleep(0.1)


def _free_port(wanted: int) -> int:
    """The port wanted, or any: nobody's work hangs on where the demonstration drop listens."""
    for port in (wanted, 0):
        with suppress(OSError), socket.create_server((LOOPBACK[0], port)) as probe:
            return probe.getsockname()[1]
    raise ConfigError(f"No port on {LOOPBACK[0]} is free for the SFTP server.")


def _prepare(app: Flask, place: Place, drop_port: int) -> None:
    """The schema, and the connection to our own SFTP server; at the first start an admin and demo data."""
    unfinished = Path(app.config["INSTANCE_PATH"]) / "demo-data.unfinished"
    with app.app_context():
        try:
            upgrade_schema()
            if not db.session.scalar(db.select(User.id).limit(1)):
                if app.config["DEMO"] and not db.session.scalar(db.select(Customer.id).limit(1)):
                    unfinished.touch()
                password = add_user(FIRST_ADMIN, Role.ADMIN)
                print(
                    f"\n  First start. Sign in as  {FIRST_ADMIN}\n  with the password        {password}\n  It is not shown again.\n"
                )
            if unfinished.exists():
                print(f"  Inventing {DEMO_CUSTOMERS:,} customers to try it on …", flush=True)
                there = db.session.scalar(db.select(db.func.count()).select_from(Customer))
                db.session.rollback()
                make_demo_data(db.engine, max(0, DEMO_CUSTOMERS - there))
                unfinished.unlink()
            _connect_own_drop(place, drop_port)
        except DatabaseError as error:
            raise ConfigError(
                f"The database {db.engine.url.render_as_string()} cannot be used: {error.orig}."
            ) from None
        finally:
            db.session.remove()
            db.engine.dispose()


def _connect_own_drop(place: Place, port: int) -> None:
    """The connection to the SFTP server of this installation, with a key of its own; its port may be another each time."""
    own = db.session.scalar(db.select(SftpConnection).where(SftpConnection.is_embedded))
    if own and not pickup.can_sign_in(own):  # another SECRET_KEY; on its page no key is made, for the server is ours
        pickup.set_private_key(own, pickup.new_private_key())
        told = {"name": own.name, "runs_up_to": own.runs_up_to, "changed": ["private_key"]}
        audit.record(Act.CONNECTION_CHANGED, sftp_connection=own.id, **told)
    if own is None:
        own = SftpConnection(name="This installation’s own server", is_embedded=True, runs_up_to=OWN_RUNS_UP_TO)
        own.host, own.username, own.folder, own.every_seconds = LOOPBACK[0], drop_server.USERNAME, "/", 5
        pickup.set_private_key(own, pickup.new_private_key())
        db.session.add(own)
        db.session.flush()
        audit.record(Act.CONNECTION_ADDED, sftp_connection=own.id, name=own.name, runs_up_to=own.runs_up_to)
    key = place.host_key()
    own.port, own.host_keys = port, [f"{key.get_name()} {key.get_base64()}"]
    place.let_in(own.public_key, "the app itself")
    db.session.commit()


def _run(config: dict, instance: Path, redis: redis_server.RedisServer, drop_port: int, stop: threading.Event) -> int:
    log = instance / "logs"
    log.mkdir(mode=0o700, exist_ok=True)
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"  # where gunicorn and flask are
    bind = f"{_bracketed(config['HOST'])}:{config['PORT']}"
    ours = {"REDIS_URL": redis.url, "INSTANCE_PATH": str(instance), "PYTHONUNBUFFERED": "1", "PATH": path, "BIND": bind}
    environ = {**os.environ, **ours}
    children = _children(config, drop_port)
    for child in children:
        child.start(environ, log)
    address = f"http://{bind}"
    told = False
    try:
        while not stop.wait(0.2):
            told = told or _tell_when_up(address, config["HOST"], Place(instance / "sftp"), drop_port)
            if redis.process.poll() is not None:
                print("  Redis ended; stopping. Start again: nothing is lost.", file=sys.stderr)
                return 1
            for child in children:
                child.start_again_if_it_ended(environ, log)
    finally:
        _stop(children, stop)
    return 0


def _children(config: dict, drop_port: int) -> list[Child]:
    """The same programs as in production, and the SFTP server."""
    programs = {"web": "web", **{f"worker-{number}": "worker" for number in range(1, config["WORKERS"] + 1)}}
    programs["worker-single"] = "worker-single"
    programs |= {f"worker-pick-up-{number}": "worker-pick-up" for number in range(1, PICK_UP_WORKERS + 1)}
    programs["schedule"] = "schedule"
    drop = [sys.executable, "-m", "flask", "drop-server", "--port", str(drop_port)]
    children = [Child(name, [str(CHECKOUT / "deploy" / program)]) for name, program in programs.items()]
    return [*children, Child("drop-server", drop)]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _tell_when_up(address: str, host: str, place: Place, drop_port: int) -> bool:
    try:
        urllib.request.urlopen(f"{address}/login", timeout=5).close()
    except urllib.error.HTTPError:
        pass  # it answers
    except OSError:
        return False
    print(
        f"\n  Purge is running. Open    {address}\n"
        "  Drop a CSV in another terminal, and it is purged:\n"
        f"    sftp -P {drop_port} -i {quote(str(place.sender_key))} -o IdentitiesOnly=yes"
        f" -o UserKnownHostsFile={quote(str(place.known_hosts))} {drop_server.USERNAME}@{LOOPBACK[0]}\n"
        "  Stop it with Ctrl-C.\n",
        flush=True,
    )
    if host not in LOOPBACK:
        print("  It speaks plain HTTP beyond this machine: put a proxy with TLS before it.\n", flush=True)
    return True


def _stop(children: list[Child], hurry: threading.Event) -> None:
    """All at once, each finishing what it has in hand; a second Ctrl-C does not wait."""
    hurry.clear()
    for child in children:
        child.process.terminate()
    until = time.monotonic() + STOP_SECONDS
    for child in children:
        while child.process.poll() is None and time.monotonic() < until and not hurry.is_set():
            time.sleep(0.05)
        child.process.kill()
        child.process.wait()
