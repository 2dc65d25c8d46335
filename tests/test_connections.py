"""Settings & Tools > SFTP connections, and the pages for whoever sends the files."""

import errno
import html
import re
import shlex
import subprocess
from datetime import timedelta

import pytest
from sqlalchemy import select

from purge import pickup
from purge.extensions import db, now
from purge.models import Role
from purge.pickup import DroppedFile, FileState, SftpConnection
from purge.pickup.connections import address
from tests.drops import FaultyServer, OpenSsh, connect

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
        ("host", "a..b", "Say the host"),
        ("host", f"{'a' * 64}.com", "Say the host"),
        ("sender_port", "x", "from 1 to 65,535"),
        ("sender_host", "not a host", "Say the host"),
        ("private_key", "ssh-ed25519 AAAA ann@people", "This is the public key"),
        ("private_key", "PuTTY-User-Key-File-3: ssh-ed25519", "puttygen"),
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


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_a_key_in_the_format_of_other_tools_signs_in(app, openssh, tmp_path, kind):
    subprocess.run(["ssh-keygen", "-q", "-m", "PKCS8", "-t", kind, "-N", "", "-f", tmp_path / "key"], check=True)
    text = (tmp_path / "key").read_text()
    assert "BEGIN PRIVATE KEY" in text
    connection = connect(openssh)
    pickup.set_private_key(connection, text)
    openssh.let_in(connection.public_key)
    db.session.commit()
    assert pickup.test(connection)[-1].is_well, pickup.test(connection)[-1]


@pytest.mark.parametrize(
    "form, told", [(["-m", "PKCS8", "-N", "secret"], "passphrase"), (["-b", "1024", "-N", ""], "1,024 bits")]
)
def test_a_key_that_cannot_serve_is_refused_in_words(admin, tmp_path, form, told):
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", *form, "-f", tmp_path / "key"], check=True)
    answer = admin.post(EVERY, {**FIELDS, "private_key": (tmp_path / "key").read_text()}, page=f"{EVERY}/new")
    assert answer.status_code == 422 and told in answer.text


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
    assert connection.host_keys == [] and connection.paused_at
    shown = admin.get(page).text
    assert "this is another server" in shown and f"{page}/resume" not in shown
    admin.post(f"{page}/resume", page=page)
    assert "Pin a host key" in words(admin.get(page)) and db.session.get(SftpConnection, connection.id).paused_at
    connection.paused_at = None
    db.session.commit()
    assert pickup.worries(connection) == ["has no host key pinned"]


def test_a_save_sets_nothing_back_that_somebody_else_saved_meanwhile(admin, signed_in, openssh):
    connection = connect(openssh, runs_up_to=1000)
    page = f"{EVERY}/{connection.id}/edit"
    place = {"port": str(openssh.port), "username": openssh.username, "folder": openssh.folder}
    seen = {**FIELDS, **place, "runs_up_to": "1000"}
    opened = re.search(r'name="shown" value="(\w+)"', admin.get(page).text)[1]
    assert signed_in(Role.ADMIN).post(page, {**seen, "runs_up_to": "0"}, page=page).status_code == 303
    answer = admin.post(page, {**seen, "keep_days": "7", "shown": opened}, page=page)
    assert answer.status_code == 422 and "was changed after you had opened this page" in answer.text
    assert 'name="runs_up_to" type="number" value="0"' in answer.text
    db.session.expire_all()
    assert (connection.runs_up_to, connection.keep_days) == (0, 0)
    looked_again = re.search(r'name="shown" value="(\w+)"', answer.text)[1]
    last = {**seen, "runs_up_to": "0", "keep_days": "7", "shown": looked_again}
    assert admin.post(page, last, page=page).status_code == 303
    db.session.expire_all()
    assert (connection.runs_up_to, connection.keep_days) == (0, 7)


def test_a_form_that_comes_back_with_its_problems_is_still_of_the_moment_it_was_opened(admin, signed_in, openssh):
    connection = connect(openssh, runs_up_to=1000)
    page = f"{EVERY}/{connection.id}/edit"
    wrong = admin.post(page, {**FIELDS, "keep_days": "x"}, page=page).text
    shown = re.search(r'name="shown" value="(\w+)"', wrong)[1]
    assert signed_in(Role.ADMIN).post(page, {**FIELDS, "runs_up_to": "0"}, page=page).status_code == 303
    assert admin.post(page, {**FIELDS, "shown": shown}, page=page).status_code == 422


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
    for path in (
        "",
        "/edit",
        "/test",
        "/pause",
        "/resume",
        "/look",
        "/remove",
        "/key",
        "/host-keys",
        "/host-keys/fetch",
    ):
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


def test_a_server_that_greets_whoever_signs_in_is_said_to_and_marked(app, signed_in):
    greets = OpenSsh(host_key_kinds=("ed25519",), greeting="Welcome, stranger, to a machine that talks too much")
    try:
        connection = connect(greets)
        last = pickup.test(connection)[-1]
        assert last.title == "Sign in" and "does not speak SFTP as it should" in last.words
        connection_id = connection.id
        db.session.commit()
        pickup.poll(connection_id, opened=lambda batch: None)
        db.session.expire_all()
        assert connection.failures == 1 and "does not speak SFTP" in connection.last_error and connection.failing_since
    finally:
        greets.stop()


def test_a_test_says_when_nothing_can_be_claimed_in_the_folder(app, tmp_path):
    server = FaultyServer(tmp_path / "drop")
    try:
        connection = connect(server)

        def fault(operation, path):
            if "rename" in operation and "results" not in path:
                raise PermissionError(errno.EACCES, "the senders' own folder")

        server.fault = fault
        last = pickup.test(connection)[-1]
        assert last.title == "Claim a file" and not last.is_well and "would not write" in last.words
        server.fault = lambda *_: None
        assert pickup.test(connection)[-1].is_well and not list(server.files.rglob(".purge*"))
    finally:
        server.stop()


@pytest.mark.parametrize("state", [FileState.CLAIMED, FileState.TAKEN])
def test_while_files_are_in_hand_the_place_stays_and_the_connection_too(admin, openssh, state):
    connection = connect(openssh, paused_at=now())
    page = f"{EVERY}/{connection.id}"
    file = DroppedFile(connection_id=connection.id, name="a.csv", size=1, changed=1, state=state)
    db.session.add(file)
    db.session.commit()
    same = {**FIELDS, "port": str(openssh.port), "username": openssh.username, "folder": openssh.folder}
    for field, value in (("folder", "/other"), ("host", "localhost"), ("username", "other")):
        answer = admin.post(f"{page}/edit", {**same, field: value}, page=f"{page}/edit")
        assert answer.status_code == 422 and "still in hand" in answer.text, field
    assert admin.post(f"{page}/edit", {**same, "runs_up_to": "7"}, page=f"{page}/edit").status_code == 303
    admin.post(f"{page}/remove", page=page)
    assert "still in hand" in words(admin.get(page))
    file.state = FileState.ENDED
    db.session.commit()
    assert admin.post(f"{page}/remove", page=page).location == EVERY
    assert (
        admin.get(page).status_code == 404
        and "The shop" not in admin.get(EVERY).text.split("<main")[1].split("<table")[0]
    )
    db.session.expire_all()
    assert connection.private_key == b"" and pickup.every() == [] and pickup.due() == []


def test_no_two_connections_look_into_the_same_folder(admin):
    first = added(admin)
    second = {**FIELDS, "name": "The same again", "folder": "/files/"}
    answer = admin.post(EVERY, second, page=f"{EVERY}/new")
    assert answer.status_code == 422 and "“The shop’s server” looks into this folder already" in answer.text
    for folder in ("//files", "/files/processed", "/", "/files/../files/x"):
        answer = admin.post(EVERY, {**second, "folder": folder}, page=f"{EVERY}/new")
        assert answer.status_code == 422 and "looks into this folder already" in answer.text, folder
    added(admin, folder="/files2")
    other = added(admin, folder="/other")
    page = f"{EVERY}/{other.id}/edit"
    assert admin.post(page, second, page=page).status_code == 422
    assert admin.post(page, {**second, "folder": "/other"}, page=page).status_code == 303
    admin.post(f"{EVERY}/{first.id}/remove", page=f"{EVERY}/{first.id}")
    assert admin.post(page, second, page=page).status_code == 303


def test_a_pasted_key_that_the_form_could_not_keep_is_asked_for_again(admin):
    """Another one, made in its place, would never be let in."""
    pasted = {**FIELDS, "private_key": pickup.new_private_key(), "port": "0"}
    answer = admin.post(EVERY, pasted, page=f"{EVERY}/new")
    assert answer.status_code == 422 and 'name="had_key"' in answer.text and "BEGIN" not in answer.text
    again = admin.post(EVERY, {**FIELDS, "had_key": "yes", "private_key": ""}, page=f"{EVERY}/new")
    assert again.status_code == 422 and "Paste it again" in again.text and 'name="had_key"' in again.text
    assert admin.post(EVERY, {**pasted, "port": "22", "had_key": "yes"}, page=f"{EVERY}/new").status_code == 303


def test_a_running_connection_is_paused_before_it_is_removed(admin, openssh):
    connection = connect(openssh)
    page = f"{EVERY}/{connection.id}"
    admin.post(f"{page}/remove", page=page)
    assert "Pause it first" in words(admin.get(page))


def test_looking_now_does_not_wait_for_the_schedule(admin, openssh):
    connection = connect(openssh, every_seconds=86_400, next_look_at=now() + timedelta(days=1))
    page = f"{EVERY}/{connection.id}"
    assert pickup.due() == []
    db.session.commit()
    assert admin.post(f"{page}/look", page=page).status_code == 303
    assert pickup.due() == [connection.id]


def test_this_installations_own_server_keeps_its_place_whatever_is_sent(admin, openssh):
    connection = connect(openssh, is_embedded=True)
    page = f"{EVERY}/{connection.id}"
    assert 'name="host"' not in admin.get(f"{page}/edit").text
    fields = {**FIELDS, "host": "elsewhere.example", "private_key": pickup.new_private_key(), "runs_up_to": "5"}
    before = connection.private_key
    assert admin.post(f"{page}/edit", fields, page=f"{page}/edit").status_code == 303
    db.session.expire_all()
    assert (connection.host, connection.runs_up_to, connection.private_key) == ("127.0.0.1", 5, before)
    assert admin.post(f"{page}/host-keys", {"key": connection.host_keys[0]}, page=page).status_code == 403
    assert admin.post(f"{page}/key", page=page).status_code == 403


def test_a_new_key_signs_in_as_soon_as_the_server_knows_it(admin, openssh):
    connection = connect(openssh)
    page, before = f"{EVERY}/{connection.id}", (connection.private_key, connection.public_key)
    assert "A new key was made" in words(admin.get(admin.post(f"{page}/key", page=page).location))
    db.session.expire_all()
    assert connection.paused_at and connection.private_key != before[0] and connection.public_key != before[1]
    told = admin.get("/audit-trail").text
    assert "changed (private_key)" in told and "a new key, to be let in by the server, and it was paused" in told
    assert "another server" not in told
    assert [step.title for step in pickup.test(connection) if not step.is_well] == ["Sign in"]
    openssh.let_in(connection.public_key)
    assert all(step.is_well for step in pickup.test(connection))


def test_many_files_have_pages_and_a_stuck_one_says_why(admin, openssh):
    connection = connect(openssh)
    for number in range(60):
        db.session.add(
            DroppedFile(connection_id=connection.id, name=f"f{number}.csv", size=1, changed=1, state=FileState.ENDED)
        )
    stuck = DroppedFile(connection_id=connection.id, name="stuck.csv", size=1, changed=1, state=FileState.CLAIMED)
    stuck.trouble = "127.0.0.1 would not rename a file: permission denied."
    db.session.add(stuck)
    db.session.commit()
    first = admin.get(f"{EVERY}/{connection.id}").text
    assert "1 not answered yet" in first and "would not rename a file" in first and "f0.csv" not in first
    older = admin.get(re.search(r'href="([^"]+before=\d+)"', first)[1]).text
    assert "f0.csv" in older and "stuck.csv" not in older


def test_the_instructions_say_how_senders_reach_it_and_write_it_as_a_shell_needs_it(admin, openssh):
    seen = {
        "sender_host": "[2001:db8::5]",
        "sender_port": "2022",
        "sender_username": "corp\\svc x",
        "sender_folder": "/in coming",
    }
    connection = added(admin, **seen, email_column="Mail")
    base = "/settings/integration-instructions"
    connecting = html.unescape(words(admin.get(f"{base}/connecting-to-the-sftp-server?connection={connection.id}")))
    sftp, lftp = (
        line.split(" Folder")[0]
        for line in re.findall(r"(?:sftp -i|lftp -e) [^>]*?(?= lftp| rclone|$)", connecting)[:2]
    )
    assert shlex.split(sftp)[-2:] == ["2022", "corp\\svc x@[2001:db8::5]"], sftp
    assert shlex.split(lftp)[-1] == "sftp://corp%5Csvc%20x:@[2001:db8::5]", lftp
    assert "127.0.0.1" not in connecting
    sending = html.unescape(admin.get(f"{base}/sending-data-via-sftp/purge-customers?connection={connection.id}").text)
    assert "cd '/in coming'" in sending
    template = admin.get(re.search(r'href="([^"]+purge-template.csv[^"]*)"', sending)[1])
    assert template.text == "Mail,type\r\n"


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


@pytest.mark.parametrize(
    "seconds, told", [(45, "45 seconds"), (90, "90 seconds"), (300, "5 minutes"), (5400, "1 hour 30 min")]
)
def test_how_often_it_is_looked_at_is_said_as_it_was_set(signed_in, openssh, seconds, told):
    connection, browser = connect(openssh, every_seconds=seconds), signed_in(Role.VIEWER)
    assert f"Looks every {told} " in words(browser.get(f"{EVERY}/{connection.id}"))
    sending = "/settings/integration-instructions/sending-data-via-sftp/purge-customers"
    assert f"looked into every {told}." in words(browser.get(sending))
