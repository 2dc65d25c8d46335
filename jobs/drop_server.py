"""An SFTP server of our own, for everything on one machine: a folder to drop files in, and nothing outside it."""

import errno
import hmac
import logging
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import paramiko
from paramiko import OPEN_SUCCEEDED, SFTP_NO_SUCH_FILE, SFTP_OK

from purge.pickup import new_private_key

log = logging.getLogger(__name__)

USERNAME = "purge"
MOST_CONNECTIONS = 30
LOGIN_SECONDS = 30
IDLE_SECONDS = 900
WRONG_PASSWORD_SECONDS = 1


@dataclass(frozen=True)
class Place:
    """Where the server keeps what: its keys, who may come in, and the files. Everything is made when it is not there."""

    folder: Path

    @property
    def files(self) -> Path:
        return self.folder / "files"

    @property
    def authorized_keys(self) -> Path:
        """One public key a line, as OpenSSH has them; read anew at every sign-in."""
        return self.folder / "authorized_keys"

    @property
    def sender_key(self) -> Path:
        """A private key for whoever tries it on this machine."""
        return self.folder / "sender_key"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def host_key(self) -> paramiko.PKey:
        return _key(self.folder / "host_key")

    def password(self) -> str:
        return (self.folder / "password").read_text(encoding="ascii").strip()

    def prepare(self, port: int) -> None:
        """Make what is missing, and say in `known_hosts` whose port this is."""
        self.files.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_once(self.folder / "host_key", new_private_key)
        _write_once(self.folder / "password", lambda: secrets.token_urlsafe(18))
        if _write_once(self.sender_key, new_private_key):
            self.let_in(_public(_key(self.sender_key)), "a sender on this machine")
        self.known_hosts.write_text(f"[127.0.0.1]:{port} {_public(self.host_key())}\n", encoding="ascii")

    def let_in(self, public_key: str, comment: str) -> None:
        """Whoever has this key's other half may sign in, and whoever has that of an earlier one of this name no more."""
        there = self.authorized_keys.read_text(encoding="utf-8") if self.authorized_keys.exists() else ""
        if public_key not in there:
            others = [line for line in there.splitlines() if not line.endswith(f" {comment}")]
            self.authorized_keys.write_text("\n".join([*others, f"{public_key} {comment}", ""]), encoding="utf-8")


def serve(place: Place, door: socket.socket, stop: threading.Event, files: type[paramiko.SFTPServerInterface]) -> None:
    """Until told to stop; whoever is connected then is cut off."""
    host_key, places = place.host_key(), threading.Semaphore(MOST_CONNECTIONS)
    door.settimeout(0.2)
    while not stop.is_set():
        with suppress(TimeoutError):
            link, _ = door.accept()
            if not places.acquire(blocking=False):
                link.close()
                continue
            threading.Thread(target=_attend, args=(link, host_key, place, places, files), daemon=True).start()


def _attend(link: socket.socket, host_key: paramiko.PKey, place: Place, places: threading.Semaphore, files) -> None:
    transport = None
    try:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or curl takes half a minute for 50 MB
        transport = paramiko.Transport(link)
        transport.add_server_key(host_key)
        transport.set_subsystem_handler("sftp", Sftp, files, place.files)
        transport.auth_timeout = LOGIN_SECONDS
        door = Door(place)
        transport.start_server(server=door)
        channel = transport.accept(LOGIN_SECONDS)
        if channel is not None and door.serves.wait(LOGIN_SECONDS):
            channel.settimeout(IDLE_SECONDS)
            transport.join()
    except (paramiko.SSHException, EOFError, OSError) as error:
        log.info("a connection ended: %s", type(error).__name__)
    finally:
        if transport:
            transport.close()
        link.close()
        places.release()


class Door(paramiko.ServerInterface):
    """Who may come in, and what for: SFTP, and nothing else."""

    def __init__(self, place: Place):
        self.place = place
        self.serves = threading.Event()  # whoever signs in and asks for nothing keeps a place from others

    def check_channel_subsystem_request(self, channel, name):
        begun = super().check_channel_subsystem_request(channel, name)
        if begun:
            self.serves.set()
        return begun

    def get_allowed_auths(self, username):
        return "publickey,password"

    def check_auth_password(self, username, password):
        if not isinstance(password, str):  # paramiko hands over as they came those bytes that are no text
            return paramiko.AUTH_FAILED
        is_right = hmac.compare_digest(password.encode(), self.place.password().encode())
        if is_right and username == USERNAME:
            return paramiko.AUTH_SUCCESSFUL
        time.sleep(WRONG_PASSWORD_SECONDS)
        return paramiko.AUTH_FAILED

    def check_auth_publickey(self, username, key):
        with suppress(OSError):
            lines = self.place.authorized_keys.read_text(encoding="utf-8").splitlines()
            if username == USERNAME and _public(key) in [" ".join(line.split()[:2]) for line in lines]:
                return paramiko.AUTH_SUCCESSFUL
        return paramiko.AUTH_FAILED

    def check_channel_request(self, kind, channel_id):
        return OPEN_SUCCEEDED if kind == "session" else paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED


class Sftp(paramiko.SFTPServer):
    """Says at the end that all went well; scp takes silence for a failure."""

    def start_subsystem(self, *arguments):
        super().start_subsystem(*arguments)
        self.sock.send_exit_status(0)


class Files(paramiko.SFTPServerInterface):
    """The folder, and nothing outside it: neither by a path nor by a link."""

    def __init__(self, server, root: Path):
        self.root = root.resolve()

    def list_folder(self, path):
        return self._try(lambda folder: [_attributes(file) for file in folder.iterdir()], path)

    def stat(self, path):
        return self._try(lambda file: paramiko.SFTPAttributes.from_stat(file.stat()), path)

    def lstat(self, path):
        return self._try(lambda file: _attributes(file), path)

    def open(self, path, flags, attributes):
        return self._try(lambda file: _open(file, flags), path)

    def remove(self, path):
        return self._do(lambda file: file.unlink(), path)

    def rename(self, path, to):
        return self._do(_rename_to_a_free_name, path, to)

    def posix_rename(self, path, to):
        return self._do(lambda file, other: file.rename(other), path, to)

    def mkdir(self, path, attributes):
        return self._do(lambda folder: folder.mkdir(mode=0o700), path)

    def rmdir(self, path):
        return self._do(self._remove_folder, path)

    def chattr(self, path, attributes):
        return self._do(lambda file: _set(file, attributes), path)

    def _remove_folder(self, folder: Path) -> None:
        if folder == self.root:
            raise PermissionError(errno.EACCES, "the drop itself")
        folder.rmdir()

    def _do(self, act, *paths):
        done = self._try(act, *paths)
        return done if isinstance(done, int) and done != SFTP_OK else SFTP_OK

    def _try(self, act, *paths):
        """The answer, or the reason as SFTP has it."""
        try:
            return act(*map(self._inside, paths))
        except FileNotFoundError:
            return SFTP_NO_SUCH_FILE
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)

    def _inside(self, path: str) -> Path:
        """The place on the disk; raises PermissionError when that is outside, through a link too."""
        local = Path(os.path.normpath(f"{self.root}/{self.canonicalize(path).lstrip('/')}"))
        if local.parent.resolve() != local.parent or not (local == self.root or self.root in local.parents):
            raise PermissionError(13, "outside")
        if local.is_symlink():
            raise PermissionError(13, "a link")
        return local


def _open(file: Path, flags: int) -> paramiko.SFTPHandle:
    if file.is_dir():
        raise IsADirectoryError(errno.EISDIR, "a folder")
    descriptor = os.open(file, flags | os.O_NOFOLLOW, 0o600)
    kind = {os.O_WRONLY: "wb", os.O_RDWR: "r+b"}.get(flags & os.O_ACCMODE, "rb")
    if flags & os.O_APPEND and kind == "wb":
        kind = "ab"
    handle = paramiko.SFTPHandle(flags)
    handle.readfile = handle.writefile = os.fdopen(descriptor, kind)
    handle.stat = lambda: paramiko.SFTPAttributes.from_stat(os.fstat(descriptor))
    handle.chattr = lambda attributes: _set(descriptor, attributes) or SFTP_OK
    return handle


def _set(file: Path | int, attributes: paramiko.SFTPAttributes) -> None:
    """Size and times; not the mode. paramiko's own way to a size empties the file first, and lftp and scp ask for one."""
    if attributes.st_size is not None:
        os.truncate(file, attributes.st_size)
    if attributes.st_mtime is not None:
        accessed = attributes.st_mtime if attributes.st_atime is None else attributes.st_atime
        os.utime(file, (accessed, attributes.st_mtime))


def _rename_to_a_free_name(file: Path, other: Path) -> None:
    if os.path.lexists(other):
        raise FileExistsError(17, "there is one")
    file.rename(other)


def _attributes(file: Path) -> paramiko.SFTPAttributes:
    return paramiko.SFTPAttributes.from_stat(file.lstat(), file.name)


def _key(file: Path) -> paramiko.PKey:
    return paramiko.Ed25519Key.from_private_key_file(str(file))


def _public(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.get_base64()}"


def _write_once(file: Path, content) -> bool:
    if file.exists():
        return False
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as target:
        target.write(content())
    return True
