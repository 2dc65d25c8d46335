"""The drop, as its client: pinned host keys, a key and nothing else, and an end to every wait."""

import base64
import errno
import hmac
import io
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from paramiko.sftp import CMD_ATTRS, CMD_CLOSE, CMD_HANDLE, CMD_LSTAT, CMD_NAME, CMD_OPENDIR, CMD_READDIR

CONNECT_SECONDS, SIGN_IN_SECONDS, WAIT_SECONDS = 10, 40, 30
LISTING_SECONDS, WRITING_SECONDS = 120, 600
SLOWEST = 100_000  # bytes a second: a server that is slower keeps others waiting, and is taken for one that hangs
MOST_BYTES = 2**63 - 1  # no database keeps a larger number
MOST_ENTRIES = 200_000  # in a folder
LEAST_RSA_BITS = 2_048
BLOCK_BYTES = 256 * 1024
REQUESTS_AHEAD = 64
KEY_KINDS = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)
_HOST_KEY_TYPES = (
    ("ssh-ed25519",),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    ("rsa-sha2-512", "rsa-sha2-256"),
)
_LOCKED = "This private key is locked with a passphrase. Nobody is there to type it in."
_PUBLIC = "This is the public key. The private one is in the file of the same name without “.pub”."
_NO_PRIVATE_KEYS = {
    "ssh-": _PUBLIC,
    "ecdsa-": _PUBLIC,
    "-----BEGIN ENCRYPTED PRIVATE KEY": _LOCKED,
    "PuTTY-User-Key-File": "This is PuTTY’s own kind of file. Convert it: puttygen key.ppk -O private-openssh -o key",
}
_WEAK = {
    "ciphers": ["aes128-cbc", "aes192-cbc", "aes256-cbc", "3des-cbc"],
    "macs": ["hmac-sha1", "hmac-md5", "hmac-sha1-96", "hmac-md5-96"],
}


class Trouble(Exception):
    """Something between us and the server; str() is one sentence for the admin."""


class Unreachable(Trouble):
    """No connection, or none any more: nothing else can be done on it."""


class HostKeyUnknown(Unreachable):
    """The server showed a key that is not pinned."""


class KeyRefused(Unreachable):
    """The server would not have our key."""


class NotAllowed(Trouble):
    """The server refused one thing, and may allow another."""


class NotWhole(Trouble):
    """A file was not read as it was announced; it may be tried again."""


class Crowded(Trouble):
    """More names than are read."""


class OurOwn(Trouble):
    """Something is wrong here, and not with the server."""


class _TooSlow(Exception):
    """Fewer bytes came or went than are worth the wait."""


class TooLarge(Trouble):
    """More bytes than are allowed."""


class BadKey(ValueError):
    """A private key that cannot be used; str() is one sentence."""


@dataclass(frozen=True)
class Address:
    """Where a drop is, who we are there, and which host keys (`type base64`) it may show."""

    host: str
    port: int
    username: str
    private_key: str
    host_keys: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """Something in a folder; `is_file` is true of regular files alone, not of a link to one."""

    name: str
    size: int
    changed: int
    is_file: bool


class Drop:
    """A folder on the server; every path is one below it. Its methods raise Trouble."""

    def __init__(self, client: paramiko.SFTPClient, folder: str, host: str):
        self._client, self._folder, self._host = client, folder.rstrip("/") or "/", host

    def entries(self) -> Iterator[Entry]:
        """What stands in the folder. Names come as the server says them: bytes that are not UTF-8 are surrogates.

        paramiko's own listing breaks off at the first name that is not UTF-8.
        """
        began, came, listed = time.monotonic(), 0, 0
        with self._told("list its folder", LISTING_SECONDS):
            kind, answer = self._client._request(CMD_OPENDIR, self._path(""))
            if kind != CMD_HANDLE:
                raise paramiko.SFTPError("no handle")
            handle = answer.get_string()
            with suppress(EOFError):
                while True:
                    kind, answer = self._client._request(CMD_READDIR, handle)
                    if kind != CMD_NAME:
                        raise paramiko.SFTPError("no names")
                    came, answer_count = came + len(answer.asbytes()), answer.get_int()
                    self._keep_pace(began, came)
                    listed += answer_count
                    if listed > MOST_ENTRIES:
                        raise Crowded(f"The folder holds more than {MOST_ENTRIES:,} entries. Clear it up.")
                    for _ in range(answer_count):
                        name = answer.get_string().decode("utf-8", "surrogateescape")
                        answer.get_string()
                        found = _attributes(answer)
                        if name not in (".", ".."):
                            yield _entry(name, found)
            self._client._request(CMD_CLOSE, handle)

    def look(self, name: str) -> Entry | None:
        """What has this name, without following a link; None when nothing has."""
        with self._told("look at a file"), suppress(FileNotFoundError):
            kind, answer = self._client._request(CMD_LSTAT, self._path(name))
            if kind != CMD_ATTRS:
                raise paramiko.SFTPError("no attributes")
            return _entry(name, _attributes(answer))
        return None

    def is_gone(self, name: str) -> bool:
        """Nothing has this name, though the folder is there; raises NotAllowed when that is not."""
        if self.look(name):
            return False
        if self.look("") is None:
            raise NotAllowed(f"{self._host} does not show its folder any more.")
        return True

    def claim(self, name: str, to: str) -> bool:
        """Rename, never over another file; False when there is nothing of this name any more."""
        with self._told("rename a file"), suppress(FileNotFoundError):
            self._client.rename(self._path(name), self._path(to))
            return True
        if self.is_gone(name):
            return False
        raise NotAllowed(f"{self._host} would not rename a file: it says that it is not there, and shows it.")

    def open(self, name: str) -> None:
        """As `read` would, to see whether the server lets us."""
        with self._told("read a file", missing="it"):
            self._client.open(self._path(name), "rb").close()

    def read(self, entry: Entry, into: BinaryIO, max_bytes: int) -> None:
        """Every byte of a file; raises TooLarge, and NotWhole unless size before = bytes read = size after."""
        if entry.size > max_bytes:
            raise TooLarge(f"The file is larger than {max_bytes / 1e6:,.0f} MB. Send it in parts.")
        read, began = 0, time.monotonic()
        most = WAIT_SECONDS + entry.size / SLOWEST
        told = self._told("read a file", most, missing="it", late=_TooSlow)
        with told, self._client.open(self._path(entry.name), "rb") as remote:
            remote.prefetch(entry.size, max_concurrent_requests=REQUESTS_AHEAD)
            while block := remote.read(BLOCK_BYTES):
                read += len(block)
                if read > max_bytes:
                    raise TooLarge(f"The file grew beyond {max_bytes / 1e6:,.0f} MB while it was read.")
                self._keep_pace(began, read)
                _keep(into, block)
        after = self.look(entry.name)
        if read != entry.size:
            raise NotWhole(f"The file was announced with {entry.size:,} bytes, and {read:,} came.")
        if after != entry:
            raise NotWhole("The file changed on the server while it was read.")

    def write(self, name: str, blocks: Iterable[bytes]) -> None:
        """A whole file or none: under a temporary name, then renamed over whatever has the name."""
        draft, written, began = f"{name}.tmp", 0, time.monotonic()
        with self._told(f"write into {name.rpartition('/')[0] or 'its folder'}", WRITING_SECONDS):
            with suppress(FileNotFoundError):  # a link that somebody laid there would be followed
                self._client.remove(self._path(draft))
            with self._client.open(self._path(draft), "wxb") as remote:
                remote.set_pipelined(True)  # nobody reads what the server says of each block, so the size is compared
                for block in blocks:
                    remote.write(block)
                    written += len(block)
                    self._keep_pace(began, written)
            if (entry := self.look(draft)) is None or entry.size != written:
                raise OSError
            self._replace(draft, name)

    def move(self, name: str, to: str) -> None:
        """Rename, over whatever has the name; what is gone already is left at that."""
        with self._told("move a file"), suppress(FileNotFoundError):
            return self._replace(name, to)
        if not self.is_gone(name):
            folder = to.rpartition("/")[0] or "its folder"
            raise NotAllowed(
                f"{self._host} would not move a file into {folder}: it may be no folder, or a link to none."
            )
        return None

    def remove(self, name: str) -> None:
        """The file is gone, by us or before us."""
        with self._told("remove a file"), suppress(FileNotFoundError):
            self._client.remove(self._path(name))

    def make_folder(self, name: str) -> None:
        """The folder is there, by us or before us."""
        with self._told(f"make the folder {name}"):
            if self.look(name) is None:
                self._client.mkdir(self._path(name))

    def _keep_pace(self, began: float, moved: int) -> None:
        """Hang up on a server from which so few bytes since then are too few: to close a file, it would have to answer first."""
        if time.monotonic() - began > WAIT_SECONDS + moved / SLOWEST:
            self._client.get_channel().close()
            raise _TooSlow

    def _replace(self, name: str, to: str) -> None:
        """Without OpenSSH's extension a rename does not replace, so what is in the way goes first, where that is not forbidden and only
        while the file has its old name still: whatever came back, a rename may have been done, now or at an earlier attempt, and what is
        in the way be the file itself."""
        try:
            self._client.posix_rename(self._path(name), self._path(to))
        except OSError as error:
            if isinstance(error, FileNotFoundError | TimeoutError | ConnectionError):
                raise
            if error.errno != errno.EACCES and self.look(name):
                with suppress(FileNotFoundError):
                    self._client.remove(self._path(to))
            self._client.rename(self._path(name), self._path(to))  # which replaces nothing

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}".rstrip("/") or "/"

    @contextmanager
    def _told(
        self, what: str, seconds: float | None = None, missing: str = "the folder", late: type[Exception] = TimeoutError
    ) -> Iterator[None]:
        """Errors as sentences: what ends the connection, and what the server only would not do. After so long we hang up."""
        try:
            with _deadline(seconds or WAIT_SECONDS, self._client.get_channel().get_transport().close, late):
                yield
        except _TooSlow:
            least = f"{SLOWEST / 1000:,.0f} kB a second"
            raise Unreachable(
                f"{self._host} stopped answering or was slower than {least} when it was to {what}."
            ) from None
        except (TimeoutError, EOFError, ConnectionError, paramiko.SSHException) as error:
            raise Unreachable(f"{self._host} stopped answering when it was to {what} ({_name(error)}).") from None
        except (paramiko.SFTPError, UnicodeError):
            raise Unreachable(f"{self._host} does not speak SFTP as it should, asked to {what}.") from None
        except FileNotFoundError:
            raise NotAllowed(f"{self._host} would not {what}: {missing} is not there.") from None
        except OSError as error:
            if self._client.get_channel().closed:
                raise Unreachable(f"{self._host} cut the connection when it was to {what}.") from None
            why = "permission denied" if error.errno == errno.EACCES else "it gave no better reason than “failure”"
            raise NotAllowed(f"{self._host} would not {what}: {why}.") from None


@contextmanager
def connect(at: Address, folder: str) -> Iterator[Drop]:
    """The drop, for as long as the block lasts; raises Unreachable."""
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(_Pinned(at.host_keys))
    types = {line.split()[0] for line in at.host_keys}
    others = [name for group in _HOST_KEY_TYPES for name in group if name not in types and not _is_rsa(name, types)]
    link = _link(at.host, at.port)
    try:
        with _reached(at), _deadline(SIGN_IN_SECONDS, link.close):
            client.connect(
                at.host,
                at.port,
                sock=link,
                username=at.username,
                pkey=read_private_key(at.private_key),
                allow_agent=False,
                look_for_keys=False,
                timeout=CONNECT_SECONDS,
                banner_timeout=CONNECT_SECONDS,
                auth_timeout=CONNECT_SECONDS,
                channel_timeout=CONNECT_SECONDS,
                disabled_algorithms={**_WEAK, "keys": others},
            )
            sftp = client.open_sftp()
        sftp.get_channel().settimeout(WAIT_SECONDS)
        yield Drop(sftp, folder, at.host)
    finally:
        client.close()
        link.close()


def fetch_host_keys(host: str, port: int) -> list[str]:
    """The keys the server shows, one of each kind, as `type base64`; raises Unreachable."""
    found = []
    for types in _HOST_KEY_TYPES:
        with _link(host, port) as link:
            transport = paramiko.Transport(link, disabled_algorithms=_WEAK)
            try:
                transport.get_security_options().key_types = types
                transport.start_client(timeout=CONNECT_SECONDS)
                key = transport.get_remote_server_key()
                found.append(f"{key.get_name()} {key.get_base64()}")
            except paramiko.ssh_exception.IncompatiblePeer:
                continue
            except (paramiko.SSHException, EOFError, OSError, UnicodeError):
                raise Unreachable(f"What answers at {host}, port {port}, does not speak SSH as it should.") from None
            finally:
                transport.close()
    if not found:
        raise Unreachable(f"{host} and this app have no key exchange, cipher or kind of host key in common.")
    return found


def fingerprint(host_key: str) -> str:
    """As `ssh-keygen -l` prints it: SHA256:…; raises BadKey."""
    try:
        kind, content = host_key.split()
        return paramiko.PKey.from_type_string(kind, base64.b64decode(content, validate=True)).fingerprint
    except (ValueError, IndexError, paramiko.SSHException, paramiko.pkey.UnknownKeyType):
        raise BadKey("This is no host key.") from None


def read_private_key(text: str) -> paramiko.PKey:
    """An ed25519, ECDSA or RSA key as a file holds it; raises BadKey."""
    text = text.strip() + "\n"
    for start, sentence in _NO_PRIVATE_KEYS.items():
        if text.startswith(start):
            raise BadKey(sentence)
    key = _parse(_as_openssh(text) if text.startswith("-----BEGIN PRIVATE KEY") else text)
    if isinstance(key, paramiko.RSAKey) and key.get_bits() < LEAST_RSA_BITS:
        raise BadKey(f"This RSA key has {key.get_bits():,} bits; {LEAST_RSA_BITS:,} are the least that is safe.")
    return key


def _parse(text: str) -> paramiko.PKey:
    for kind in KEY_KINDS:
        try:
            return kind.from_private_key(io.StringIO(text))
        except paramiko.PasswordRequiredException:
            raise BadKey(_LOCKED) from None
        except (paramiko.SSHException, ValueError, IndexError):
            continue
    raise BadKey("This is no private key of the kinds ed25519, ECDSA or RSA.")


def _as_openssh(pkcs8: str) -> str:
    """PKCS #8, which other tools write and paramiko does not read."""
    with suppress(ValueError, UnsupportedAlgorithm):
        key = serialization.load_pem_private_key(pkcs8.encode(), None)
        openssh = serialization.PrivateFormat.OpenSSH
        return key.private_bytes(serialization.Encoding.PEM, openssh, serialization.NoEncryption()).decode("ascii")
    return pkcs8


def _keep(into: BinaryIO, block: bytes) -> None:
    try:
        into.write(block)
    except OSError as error:  # the server is not to blame
        raise OurOwn(f"The file could not be kept here while it was read: {(error.strerror or '').lower()}.") from None


def _attributes(answer: paramiko.Message) -> paramiko.SFTPAttributes:
    """paramiko's own reading counts to four thousand million where a server says that so many attributes of its own follow."""
    start = answer.packet.tell()
    flags, found = answer.get_int(), paramiko.SFTPAttributes
    widths = {found.FLAG_SIZE: 8, found.FLAG_UIDGID: 8, found.FLAG_PERMISSIONS: 4, found.FLAG_AMTIME: 8}
    answer.get_bytes(sum(width for flag, width in widths.items() if flags & flag))
    if flags & found.FLAG_EXTENDED and answer.get_int() > len(answer.get_remainder()):
        raise paramiko.SFTPError("more attributes than bytes")
    answer.packet.seek(start)
    return found._from_msg(answer)


def _entry(name: str, found: paramiko.SFTPAttributes) -> Entry:
    return Entry(name, min(found.st_size or 0, MOST_BYTES), found.st_mtime or 0, stat.S_ISREG(found.st_mode or 0))


def _link(host: str, port: int) -> socket.socket:
    """Without TCP_NODELAY, which paramiko does not set, every request waits for the one before to be acknowledged."""
    try:
        link = socket.create_connection((host, port), timeout=CONNECT_SECONDS)
    except TimeoutError:
        raise Unreachable(f"{host} did not answer on port {port} within {CONNECT_SECONDS} seconds.") from None
    except (socket.gaierror, UnicodeError):
        raise Unreachable(f"No machine is called {host}.") from None
    except OSError as error:
        raise Unreachable(f"{host} cannot be reached on port {port}: {(error.strerror or '').lower()}.") from None
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


@contextmanager
def _reached(at: Address) -> Iterator[None]:
    try:
        yield
    except paramiko.AuthenticationException:
        raise KeyRefused(f"{at.host} refused the key for the user {at.username}.") from None
    except paramiko.ssh_exception.IncompatiblePeer:
        raise HostKeyUnknown(f"{at.host} has none of the pinned host keys, or nothing in common with us.") from None
    except (paramiko.SFTPError, UnicodeError):
        raise Unreachable(
            f"{at.host} let us in and does not speak SFTP as it should: it may greet whoever signs in, or give no SFTP."
        ) from None
    except (TimeoutError, EOFError, OSError, paramiko.SSHException) as error:
        raise Unreachable(f"{at.host} did not let us in: {_name(error)}.") from None


@contextmanager
def _deadline(seconds: float, hang_up: Callable[[], None], late: type[Exception] = TimeoutError) -> Iterator[None]:
    """A byte now and then satisfies a socket's own timeout for ever. Raises `late` for whatever we have broken off ourselves."""
    is_over = threading.Event()
    timer = threading.Timer(seconds, lambda: is_over.set() or hang_up())
    timer.daemon = True
    timer.start()
    try:
        yield
    except (EOFError, OSError, paramiko.SSHException):
        if is_over.is_set():
            raise late from None
        raise
    finally:
        timer.cancel()


def _is_rsa(name: str, types: set[str]) -> bool:
    return name.startswith("rsa-") and "ssh-rsa" in types


def _name(error: Exception) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else "the connection was cut"


class _Pinned(paramiko.MissingHostKeyPolicy):
    """Asked for every key, for the client knows no other hosts."""

    def __init__(self, host_keys: tuple[str, ...]):
        self.host_keys = host_keys

    def missing_host_key(self, _client, hostname, key):
        shown = f"{key.get_name()} {key.get_base64()}"
        if not any(hmac.compare_digest(shown, pinned) for pinned in self.host_keys):
            raise HostKeyUnknown(
                f"The server showed the host key {key.fingerprint}, which is not pinned. "
                "It has a new key, or somebody stands between; ask its owner before you pin it."
            )
