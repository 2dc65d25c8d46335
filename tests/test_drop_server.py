"""The server that `make run` brings, used with other people's clients: OpenSSH's sftp and lftp."""

import os
import re
import shlex
import subprocess
import time
from pathlib import Path

import paramiko
import pytest

from jobs import drop_server
from purge import pickup
from purge.intake import sftp as sftp_client
from purge.pickup.connections import address
from tests import PATIENCE
from tests.drops import SSHD, FaultyServer, connect
from tests.instance import CHECKOUT, Instance


def client(connection):
    return sftp_client.connect(address(connection), connection.folder)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    instance = Instance(tmp_path_factory.mktemp("drop") / "instance", DROP_AGE_SECONDS="1")
    instance.command("init-db")
    instance.command("demo-data", "--customers", "500")
    yield instance.start()
    instance.stop()


def command(shop) -> list[str]:
    """The very command that `make run` prints."""
    return shlex.split(re.search(r"^\s+(sftp -P .*)$", shop.output, re.MULTILINE)[1])


def sftp(shop, *lines: str) -> subprocess.CompletedProcess:
    program, *rest = command(shop)
    batch = "\n".join(lines) + "\n"
    options = {"input": batch, "capture_output": True, "text": True, "timeout": 60}
    return subprocess.run([program, "-b", "-", *rest], **options)


def wait_for(file) -> str:
    until = time.monotonic() + PATIENCE
    while not file.exists():
        assert time.monotonic() < until, file
        time.sleep(0.1)
    return file.read_text()


def some_file(shop, path, count: int, offset: int = 0) -> int:
    emails = [email for (email,) in shop.ask(f"SELECT email FROM customer ORDER BY id LIMIT {count} OFFSET {offset}")]
    path.write_text("\n".join(["Customer Email,type", *(f"{email},purge" for email in emails), ""]))
    return len(emails)


def test_the_printed_command_drops_a_file_and_it_is_purged(shop, tmp_path):
    some_file(shop, tmp_path / "mine.csv", 20)
    before = shop.ask("SELECT count(*) FROM customer")[0][0]
    done = sftp(shop, f"put {tmp_path}/mine.csv mine.csv.part", "rename mine.csv.part mine.csv")
    assert done.returncode == 0, done.stderr
    told = wait_for(shop.folder / "sftp/files/results/mine.result.csv.sha256")
    assert told.endswith("  mine.result.csv\n")
    answer = tmp_path / "answer.csv"
    assert sftp(shop, f"get results/mine.result.csv {answer}").returncode == 0
    assert answer.read_text().count("purged") == 20
    assert shop.ask("SELECT count(*) FROM customer")[0][0] == before - 20
    assert sftp(shop, "ls mine.csv").returncode != 0


def test_lftp_drops_a_file_with_the_password(shop, tmp_path):
    some_file(shop, tmp_path / "with lftp.csv", 5, offset=100)
    port = command(shop)[2]
    password = (shop.folder / "sftp/password").read_text()
    connect = f"ssh -a -x -o UserKnownHostsFile={shop.folder}/sftp/known_hosts -o PreferredAuthentications=password"
    script = f"set sftp:connect-program '{connect}'; set net:max-retries 2; put '{tmp_path}/with lftp.csv'; bye"
    done = subprocess.run(
        ["lftp", "-u", f"purge,{password}", "-p", port, "-e", script, "sftp://127.0.0.1"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert wait_for(shop.folder / "sftp/files/results/with lftp.result.csv").count("purged") == 5


def test_nothing_outside_its_folder_can_be_reached(shop, tmp_path):
    (shop.folder / "sftp/files/way-out").symlink_to("/etc")
    (shop.folder / "sftp/files/link.txt").symlink_to("/etc/passwd")
    for path in (
        "/etc/passwd",
        "../host_key",
        "../../secret_key",
        "way-out/passwd",
        "link.txt",
        "/../../../etc/passwd",
    ):
        got = sftp(shop, f"get {path} {tmp_path}/got")
        assert got.returncode != 0 and not (tmp_path / "got").exists(), path
        assert sftp(shop, f"put {tmp_path.parent}/nothing {path}").returncode != 0
    assert sftp(shop, "ln -s /etc/passwd mine").returncode != 0
    assert not (shop.folder / "sftp/files/mine").exists()
    for name in ("way-out", "link.txt"):
        (shop.folder / "sftp/files" / name).unlink()


def test_a_stranger_is_not_let_in_and_there_is_no_shell(shop, tmp_path):
    key = tmp_path / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    printed = command(shop)
    stranger = [str(key) if part.endswith("sender_key") else part for part in printed]
    refused = subprocess.run(
        [stranger[0], "-o", "BatchMode=yes", "-b", "-", *stranger[1:]],
        input="ls\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert refused.returncode != 0 and "Permission denied" in refused.stderr
    shell = ["ssh", "-p", printed[2], *printed[3:], "id"]
    assert subprocess.run(shell, capture_output=True, timeout=PATIENCE, stdin=subprocess.DEVNULL).returncode != 0


def test_scp_says_that_it_went_well(shop, tmp_path):
    (tmp_path / "note.txt").write_text("not a CSV")
    printed = command(shop)
    target = f"{printed[-1]}:note.txt"
    done = subprocess.run(
        ["scp", "-P", *printed[2:-1], tmp_path / "note.txt", target], capture_output=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert (shop.folder / "sftp/files/note.txt").read_text() == "not a CSV"


def test_a_folder_opened_like_a_file_is_refused_and_leaves_nothing_open(app, tmp_path):
    server = FaultyServer(tmp_path / "drop")
    try:
        connection = connect(server)
        (server.files / "folder").mkdir()
        with client(connection) as drop:
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(50):
                with pytest.raises(OSError):
                    drop._client.open("/folder", "rb")
            assert len(os.listdir("/proc/self/fd")) < before + 10
            drop._client.utime("/folder", (1, 1))
    finally:
        server.stop()


def test_the_folder_itself_cannot_be_removed(app, tmp_path):
    server = FaultyServer(tmp_path / "drop")
    try:
        with client(connect(server)) as drop:
            drop.make_folder("other")
            for path in ("/", ".", "/other/.."):
                with pytest.raises(OSError):
                    drop._client.rmdir(path)
            drop._client.rmdir("/other")
            with pytest.raises(PermissionError):
                drop._client.rmdir("/")
        assert server.files.is_dir() and not list(server.files.iterdir())
    finally:
        server.stop()


def test_whoever_signs_in_and_asks_for_nothing_keeps_no_place(app, tmp_path, monkeypatch):
    monkeypatch.setattr(drop_server, "LOGIN_SECONDS", 1)
    monkeypatch.setattr(drop_server, "MOST_CONNECTIONS", 3)
    server, idle = FaultyServer(tmp_path / "drop"), []
    try:
        connection = connect(server)
        key = sftp_client.read_private_key(address(connection).private_key)
        for _ in range(3):
            transport = paramiko.Transport(("127.0.0.1", server.port))
            transport.connect(username=server.username, pkey=key)
            transport.open_session()
            idle.append(transport)
        until = time.monotonic() + PATIENCE
        while not pickup.test(connection)[-1].is_well:
            assert time.monotonic() < until
            time.sleep(0.3)
    finally:
        for transport in idle:
            transport.close()
        server.stop()


def test_a_wrong_password_takes_its_time(app, tmp_path):
    server = FaultyServer(tmp_path / "drop")
    try:
        with paramiko.Transport(("127.0.0.1", server.port)) as transport:
            transport.start_client(timeout=10)
            began = time.monotonic()
            with pytest.raises(paramiko.AuthenticationException):
                transport.auth_password(server.username, "guess")
            assert time.monotonic() - began >= drop_server.WRONG_PASSWORD_SECONDS
            transport.auth_password(server.username, server.place.password())
    finally:
        server.stop()


def test_a_killed_server_and_a_killed_look_come_back(shop, tmp_path):
    assert shop.kill("flask", "drop-server") and shop.kill("flask", "--pick-up")
    some_file(shop, tmp_path / "after.csv", 7, offset=200)
    until = time.monotonic() + PATIENCE
    while sftp(shop, f"put {tmp_path}/after.csv").returncode:
        assert time.monotonic() < until
        time.sleep(0.3)
    assert wait_for(shop.folder / "sftp/files/results/after.result.csv").count("purged") == 7


def test_the_readmes_settings_for_openssh_are_understood_and_mean_what_they_should(tmp_path):
    block = re.search(
        r"^# /etc/ssh/sshd_config\n(.*?)^```", (CHECKOUT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )[1]
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "host"], check=True)
    (tmp_path / "sshd_config").write_text(f"HostKey {tmp_path / 'host'}\nSubsystem sftp internal-sftp\n{block}")
    who = "user=purge,host=a.example,addr=192.0.2.1"
    Path("/run/sshd").mkdir(exist_ok=True) if os.geteuid() == 0 else None
    command = [SSHD, "-T", "-f", tmp_path / "sshd_config", "-C", who]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    for wanted in (
        "chrootdirectory /srv/purge",
        "forcecommand internal-sftp",
        "authenticationmethods publickey",
        "allowtcpforwarding no",
        "x11forwarding no",
        "authorizedkeysfile /etc/ssh/authorized_keys/%u",
    ):
        assert wanted in told, wanted
