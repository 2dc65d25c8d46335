"""Settings & Tools > SFTP connections, and the pages for whoever sends the files."""

import re
import subprocess

import pytest
from sqlalchemy import select

from purge import pickup
from purge.extensions import db
from purge.models import Role
from purge.pickup import SftpConnection
from purge.pickup.connections import address
from tests.drops import OpenSsh, connect

EVERY = "/settings/sftp-connections"
FIELDS = {
    "name": "The shop’s server",
    "host": "127.0.0.1",
    "port": "22",
    "username": "purge",
    "folder": "/files",
    "every_seconds": "60",
    "email_column": "Customer Email",
    "runs_up_to": "100",
    "keep_days": "0",
    "silent_hours": "",
}


@pytest.fixture(scope="module")
def openssh():
    server = OpenSsh()
    yield server
    server.stop()


@pytest.fixture
def admin(signed_in):
    return signed_in(Role.ADMIN)


def added(admin, **fields) -> SftpConnection:
    answer = admin.post(EVERY, {**FIELDS, **fields}, page=f"{EVERY}/new")
    assert answer.status_code == 303, answer.text
    return db.session.scalar(select(SftpConnection).order_by(SftpConnection.id.desc()))


def words(answer) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text))


def test_from_adding_through_pinning_and_testing_to_starting(admin, openssh):
    connection = added(admin, port=str(openssh.port), username=openssh.username, folder=openssh.folder)
    page = f"{EVERY}/{connection.id}"
    assert connection.paused_at and not connection.host_keys
    assert connection.public_key in admin.get(page).text
    tested = words(admin.post(f"{page}/test", page=page))
    assert "Reach the server" in tested and "No host key is pinned yet" in tested
    fetched = admin.post(f"{page}/host-keys/fetch", page=page).text
    shown = re.findall(r'name="key" value="([^"]+)"', fetched)
    assert set(shown) == set(openssh.host_keys)
    printed = subprocess.run(
        ["ssh-keygen", "-l", "-f", openssh.home / "host_ed25519.pub"], capture_output=True, text=True
    )
    assert printed.stdout.split()[1] in fetched
    admin.post(f"{page}/host-keys", {"key": shown}, page=page)
    tested = words(admin.post(f"{page}/test", page=page))
    assert "which is pinned" in tested and "refused the key" in tested
    openssh.let_in(connection.public_key)
    tested = words(admin.post(f"{page}/test", page=page))
    assert "All of it works" in tested and "written, renamed and removed" in tested
    assert not list((openssh.files / "results").iterdir())
    for act, is_paused in (("resume", False), ("pause", True)):
        admin.post(f"{page}/{act}", page=page)
        now = db.session.get(SftpConnection, connection.id, populate_existing=True)
        assert bool(now.paused_at) is is_paused


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_each_kind_of_key_signs_in_and_is_never_shown_again(admin, openssh, tmp_path, kind):
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", tmp_path / "key"], check=True)
    private = (tmp_path / "key").read_text()
    connection = added(admin, private_key=private, port=str(openssh.port), username=openssh.username)
    assert connection.public_key.split() == (tmp_path / "key.pub").read_text().split()[:2]
    openssh.let_in(connection.public_key)
    connection.host_keys, connection.folder = openssh.host_keys, openssh.folder
    db.session.commit()
    assert pickup.test(connection)[-1].is_well, pickup.test(connection)[-1]
    secret = private.splitlines()[3]
    assert secret.encode() not in connection.private_key and address(connection).private_key.strip() == private.strip()
    for path in (EVERY, f"{EVERY}/{connection.id}", f"{EVERY}/{connection.id}/edit"):
        assert secret not in admin.get(path).text


@pytest.mark.parametrize(
    "field, typed, told",
    [
        ("private_key", "hello", "no private key of the kinds"),
        ("host", "", "Say the host"),
        ("host", "-oProxyCommand=id", "Say the host"),
        ("port", "0", "from 1 to 65,535"),
        ("every_seconds", "1", "from 5 to 86,400"),
        ("runs_up_to", "-1", "whole number"),
        ("silent_hours", "soon", "whole number"),
    ],
)
def test_what_is_wrong_is_said_at_its_field_and_nothing_is_saved(admin, field, typed, told):
    answer = admin.post(EVERY, {**FIELDS, field: typed}, page=f"{EVERY}/new")
    assert answer.status_code == 422 and told in answer.text and "The shop’s server" in answer.text
    assert not db.session.scalars(select(SftpConnection)).all()


def test_a_key_with_a_passphrase_is_refused_in_words(admin, tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", tmp_path / "key"], check=True)
    answer = admin.post(EVERY, {**FIELDS, "private_key": (tmp_path / "key").read_text()}, page=f"{EVERY}/new")
    assert answer.status_code == 422 and "passphrase" in answer.text


def test_another_host_has_other_keys(admin, openssh):
    connection = connect(openssh)
    page = f"{EVERY}/{connection.id}"
    admin.post(f"{page}/edit", {**FIELDS, "port": str(connection.port)}, page=f"{page}/edit")
    db.session.expire_all()
    assert connection.host_keys and connection.name == "The shop’s server"
    admin.post(f"{page}/edit", {**FIELDS, "host": "elsewhere.example"}, page=f"{page}/edit")
    db.session.expire_all()
    assert connection.host_keys == [] and "waiting for a host key" in admin.get(page).text


def test_only_keys_can_be_pinned(admin, openssh):
    connection = connect(openssh)
    page = f"{EVERY}/{connection.id}"
    for key in ("nonsense", "ssh-ed25519 AAAA", "<script>"):
        assert admin.post(f"{page}/host-keys", {"key": key}, page=page).status_code == 400


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
def test_only_an_admin_changes_a_connection(signed_in, openssh, role):
    connection = connect(openssh)
    browser, page = signed_in(role), f"{EVERY}/{connection.id}"
    assert browser.get(page).status_code == 200 and "Test connection" not in browser.get(page).text
    for path in ("", "/edit", "/test", "/pause", "/resume", "/host-keys", "/host-keys/fetch"):
        assert browser.post(f"{page}{path}" if path else EVERY, FIELDS, page="/batches").status_code in (403, 400)
    assert db.session.get(SftpConnection, connection.id).paused_at is None


def test_a_test_says_what_did_not_work(admin, openssh):
    connection = connect(openssh, host="nowhere.invalid")
    assert "No machine is called" in pickup.test(connection)[-1].words
    connection.host, connection.port = "127.0.0.1", 1
    assert "cannot be reached" in pickup.test(connection)[-1].words
    connection.port, connection.folder = openssh.port, "/not-there"
    last = pickup.test(connection)[-1]
    assert last.title == "List the folder" and not last.is_well
    connection.folder, connection.host_keys = openssh.folder, ["ssh-ed25519 AAAA"]
    assert "none of them is pinned" in pickup.test(connection)[-1].words


def test_the_instructions_show_this_installations_own_values(signed_in, openssh):
    browser = signed_in(Role.VIEWER)
    base = "/settings/integration-instructions"
    for page in ("connecting-to-the-sftp-server", "sending-data-via-sftp/purge-customers"):
        assert "no SFTP connection yet" in browser.get(f"{base}/{page}").text
    connect(openssh, name="One", paused_at=None, runs_up_to=1234, keep_days=7, every_seconds=300)
    connecting = words(browser.get(f"{base}/connecting-to-the-sftp-server"))
    for value in (str(openssh.port), openssh.username, "SHA256:", "FileZilla", "WinSCP", "lftp", "rclone", "OpenSSH"):
        assert value in connecting, value
    sending = words(browser.get(f"{base}/sending-data-via-sftp/purge-customers"))
    for value in (
        "1,234 customers",
        "7 days",
        "5 minutes",
        ".dryrun.csv",
        "Customer Email",
        "1,000,000 rows",
        ".error.txt",
    ):
        assert value in sending, value
    template = browser.get(f"{base}/sending-data-via-sftp/purge-template.csv")
    assert template.text == "Customer Email,type\r\n" and template.mimetype == "text/csv"
