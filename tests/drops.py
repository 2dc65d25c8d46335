"""Servers to drop files on: a real OpenSSH, and one of ours with switches for faults no real one can be told to make."""

import errno
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import paramiko

from jobs import drop_server
from jobs.drop_server import Files, Place
from purge import pickup
from purge.extensions import db
from purge.pickup import SftpConnection
from tests import PATIENCE

SSHD = "/usr/sbin/sshd"


class OpenSsh:
    """`sshd` with internal-sftp; as root in a chroot, as the README shows it."""

    username = os.environ.get("USER") or "root"

    def __init__(self, *, host_key_kinds: tuple[str, ...] = ("ed25519", "rsa"), greeting: str = ""):
        """With a greeting it is one that speaks to whoever signs in, which SFTP does not survive."""
        self.home = Path(tempfile.mkdtemp(prefix="purge-sshd-", dir="/run" if os.geteuid() == 0 else None))
        self.home.chmod(0o755)
        self.files = self.home / "root" / "files"
        self.files.mkdir(parents=True)
        self.host_keys = []
        for kind in host_key_kinds:
            key = self.home / f"host_{kind}"
            subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", key], check=True)
            self.host_keys.append(" ".join(key.with_suffix(".pub").read_text().split()[:2]))
        self.authorized_keys = self.home / "authorized_keys"
        self.authorized_keys.touch(0o600)
        self.port = _free_port()
        self.folder = "/files" if os.geteuid() == 0 else str(self.files)
        Path("/run/sshd").mkdir(exist_ok=True) if os.geteuid() == 0 else None
        config = self.home / "sshd_config"
        lines = [f"HostKey {self.home / f'host_{kind}'}" for kind in host_key_kinds]
        lines += [f"ChrootDirectory {self.home / 'root'}"] if os.geteuid() == 0 and not greeting else []
        program = f"/bin/echo {greeting}" if greeting else "internal-sftp"
        config.write_text(
            "\n".join(
                [
                    f"Port {self.port}",
                    "ListenAddress 127.0.0.1",
                    *lines,
                    f"AuthorizedKeysFile {self.authorized_keys}",
                    "PidFile none",
                    "StrictModes no",
                    "UsePAM no",
                    "PasswordAuthentication no",
                    "PermitRootLogin prohibit-password",
                    f"Subsystem sftp {program}",
                    f"ForceCommand {program}",
                    "",
                ]
            )
        )
        self.process = subprocess.Popen([SSHD, "-D", "-e", "-f", config], stderr=subprocess.DEVNULL)
        _wait_for(self.port)

    def let_in(self, public_key: str) -> None:
        with self.authorized_keys.open("a") as file:
            file.write(f"{public_key}\n")

    def empty(self) -> None:
        shutil.rmtree(self.files)
        self.files.mkdir()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)
        shutil.rmtree(self.home)


class FaultyServer:
    """The server that `make run` brings, with `fault(operation, path)` called before everything it does."""

    username = drop_server.USERNAME
    folder = "/"

    def __init__(self, folder: Path):
        self.fault: Callable[[str, str], None] = lambda operation, path: None
        self.names: Callable[[list], list] = lambda attributes: attributes
        self.place = Place(folder)
        self.door = socket.create_server(("127.0.0.1", 0))
        self.port = self.door.getsockname()[1]
        self.place.prepare(self.port)
        self.files = self.place.files
        self.stopping = threading.Event()
        self.thread = threading.Thread(
            target=drop_server.serve, args=(self.place, self.door, self.stopping, self._kind())
        )
        self.thread.start()

    @property
    def host_keys(self) -> list[str]:
        key = self.place.host_key()
        return [f"{key.get_name()} {key.get_base64()}"]

    def let_in(self, public_key: str) -> None:
        self.place.let_in(public_key, "a test")

    def stop(self) -> None:
        self.stopping.set()
        self.thread.join()
        self.door.close()

    def _kind(self) -> type[Files]:
        server = self

        class Faulty(Files):
            def _try(self, act, *paths):
                name = (
                    act.__qualname__.split(".")[1].removeprefix("Files.") if "Files." in act.__qualname__ else "rename"
                )
                return server._watched(name, paths[0]) or super()._try(act, *paths)

            def list_folder(self, path):
                found = super().list_folder(path)
                return found if isinstance(found, int) else server.names(found)

            def open(self, path, flags, attributes):
                handle = super().open(path, flags, attributes)
                if isinstance(handle, paramiko.SFTPHandle):
                    read, write = handle.read, handle.write
                    handle.read = lambda offset, length: server._watched("read", path) or read(offset, length)
                    handle.write = lambda offset, data: server._watched("write", path) or write(offset, data)
                return handle

        return Faulty

    def _watched(self, operation: str, path: str) -> int | None:
        try:
            self.fault(operation, path)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return paramiko.SFTP_OP_UNSUPPORTED
            return paramiko.SFTPServer.convert_errno(error.errno)
        return None


def connect(server, **values) -> SftpConnection:
    """A connection to a server, pinned and let in; committed."""
    connection = SftpConnection(name="A drop", host="127.0.0.1", port=server.port, username=server.username)
    connection.folder, connection.host_keys, connection.every_seconds = server.folder, server.host_keys, 5
    connection.runs_up_to = 1_000
    pickup.set_private_key(connection, pickup.new_private_key())
    server.let_in(connection.public_key)
    for name, value in values.items():
        setattr(connection, name, value)
    db.session.add(connection)
    db.session.commit()
    return connection


def kill_at(pid: Callable[[], int], number: int) -> Callable[[str, str], None]:
    """A fault: kill -9 the client when it asks for the server's `number`th operation."""
    count = iter(range(1, 10_000))

    def fault(_operation, _path):
        if next(count) == number:
            with suppress(ProcessLookupError):
                os.kill(pid(), signal.SIGKILL)

    return fault


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(port: int) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as link:
            if link.recv(4) == b"SSH-":
                return
        time.sleep(0.05)
    raise AssertionError("sshd did not start")
