"""`make run` as a newcomer meets it: first start, second start, Ctrl-C, and the ways it can be wrong."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from app import create_app
from purge.config import ConfigError, load_config
from purge.extensions import db
from tests import PATIENCE
from tests.instance import CHECKOUT, Instance


def gone(pids) -> bool:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if not any(os.path.exists(f"/proc/{pid}") for pid in pids):
            return True
        time.sleep(0.1)
    return False


def test_the_first_start_makes_everything_and_ctrl_c_takes_it_all_down_again(instance):
    instance.start()
    assert "admin@localhost" in instance.output and len(instance.password) >= 16
    assert f"Open    {instance.url}" in instance.output
    for name in ("secret_key", "ledger_key", "redis.url"):
        assert stat.S_IMODE((instance.folder / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(instance.folder.stat().st_mode) == 0o700

    def workers() -> int:
        return sum(" worker" in command for command in instance.children().values())

    # Two for files, one for single customers, two for looks at SFTP servers; one that has a job is two for a moment.
    instance.wait_for(lambda: workers() == 5)
    children = instance.children()
    assert sum(" schedule" in command for command in children.values()) == 1
    assert instance.password not in " ".join(children.values())
    assert instance.stop() == 0
    assert gone(children) and not instance.answers()
    keys = (instance.folder / "ledger_key").read_text()

    instance.start()
    assert instance.output.count("password") == 1 and (instance.folder / "ledger_key").read_text() == keys
    assert "Traceback" not in instance.output


def test_under_another_secret_key_our_own_server_is_looked_into_again(instance):
    def seen() -> list[tuple]:
        return instance.ask("SELECT seen_at FROM sftp_connection WHERE seen_at IS NOT NULL")

    instance.start()
    instance.wait_for(seen)
    instance.stop()
    before = seen()
    (instance.folder / "secret_key").write_text("another" * 10)
    instance.start()
    instance.wait_for(lambda: seen() != before)


def test_an_empty_start_has_no_customers_and_a_usual_one_has_demo_data(tmp_path):
    for demo, customers in (("0", 0), ("1", 20_000)):
        instance = Instance(tmp_path / f"demo {demo}", DEMO=demo)
        try:
            instance.start()
            assert instance.ask("SELECT count(*) FROM customer") == [(customers,)]
        finally:
            instance.stop()


def test_demo_data_cut_off_in_the_middle_is_completed(instance):
    instance.command("init-db")
    instance.command("demo-data", "--customers", "300")
    (instance.folder / "demo-data.unfinished").touch()
    instance.start()
    assert instance.ask("SELECT count(*) FROM customer") == [(20_000,)]
    assert not (instance.folder / "demo-data.unfinished").exists()


def test_killing_the_supervisor_leaves_no_orphan_and_the_next_start_waits_for_the_port(instance):
    """Its web server may have a request in hand."""
    instance.start()
    children = instance.children()
    instance.process.kill()
    instance.process.wait()
    assert gone(children)
    with socket.create_server(("127.0.0.1", instance.port)):
        instance.start(wait=False)
        instance.wait_for(lambda: has_open(instance.process.pid, instance.folder / ".lock"))
        time.sleep(1)  # right after that it tries the port
        assert instance.process.poll() is None
    instance.wait_for(instance.answers)


def has_open(pid: int, path: Path) -> bool:
    return any(file.resolve() == path.resolve() for file in Path(f"/proc/{pid}/fd").iterdir())


def test_a_child_that_dies_is_started_again(instance):
    instance.start()
    assert instance.kill("gunicorn") >= 1
    until = time.monotonic() + PATIENCE
    while not instance.answers() and time.monotonic() < until:
        time.sleep(0.2)
    assert instance.answers() and "web ended" in instance.output


@pytest.mark.sqlite
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_web_server_alone_listens_where_it_is_told_too(instance, host):
    if host == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    instance.command("init-db")
    with begun("web", {**instance.environ, "HOST": host}) as web:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return socket.create_connection((host, instance.port), timeout=5).close()
            except ConnectionRefusedError:
                assert web.poll() is None and time.monotonic() < until
                time.sleep(0.1)


def has_ipv6() -> bool:
    with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


@pytest.mark.parametrize("program", ["web", "worker", "worker-single", "worker-pick-up", "schedule"])
def test_what_a_process_writes_no_other_account_of_the_machine_reads(tmp_path, program):
    """In a folder that is there already, and open to all."""
    tmp_path.chmod(0o755)
    with begun(program, {**os.environ, "INSTANCE_PATH": str(tmp_path), "BIND": "127.0.0.1:0"}) as process:
        assert process.wait(PATIENCE) != 0  # there is no schema
    assert (tmp_path / "purge.db").exists()
    assert not [path for path in tmp_path.rglob("*") if stat.S_IMODE(path.stat().st_mode) & 0o077]


@contextmanager
def begun(program: str, environ: dict[str, str]):
    """A program of `deploy/`, ended with the block."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen([CHECKOUT / "deploy" / program], env={**environ, "PATH": path}, umask=0o022)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE)


def refused(instance: Instance) -> str:
    instance.start(wait=False)
    assert instance.process.wait(PATIENCE) == 2
    assert "Traceback" not in instance.output
    return instance.output


@pytest.mark.sqlite
def test_a_taken_port_is_said_in_a_sentence(instance):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", instance.port))
        taken.listen()
        assert "PORT=5050 make run" in refused(instance)


@pytest.mark.sqlite
def test_a_second_start_on_the_same_folder_is_refused(instance):
    instance.start()
    second = Instance(instance.folder)
    second.log = instance.folder.with_suffix(".second")
    assert "running already" in refused(second)


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: folder.write_text("a file"), "cannot be used"),
        (
            lambda folder: (folder.mkdir(), (folder / "purge.db").write_bytes(b"x" * 5000), key(folder)),
            "not a database",
        ),
        (lambda folder: (folder.mkdir(), (folder / "purge.db").touch()), "secret secret_key is missing"),
        (lambda folder: (folder.mkdir(), (folder / "secret_key").write_text("short")), "too short"),
    ],
    ids=["a file in its place", "not a database", "a database without its secrets", "half a secret"],
)
def test_a_half_made_folder_is_said_in_a_sentence(instance, spoil, words):
    spoil(instance.folder)
    assert words in refused(instance)


def key(folder):
    for name in ("secret_key", "ledger_key"):
        (folder / name).write_text("k" * 64)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("MAX_CSV_ROWS", "0"),
        ("PUBLIC_URL", "purge.com"),
        ("DATABASE_URL", "postgresql://purge:open@sesame@db.company.com/purge"),
        ("DATABASE_URL", "postgresql://purge:sesame@db.company.com:postgres/purge"),
        ("DATABASE_URL", "sqlite:///:memory:"),
        ("PUBLIC_URL", "https://[purge"),
        ("REDIS_URL", "redis.company.com:6379"),
        ("REDIS_URL", ":sesame@redis.company.com:6379/0"),
        ("REDIS_URL", "redis://redis.company.com:sesame/0"),
        ("DEMO", "no"),
    ],
)
def test_a_bad_setting_is_said_in_a_sentence(tmp_path, name, value):
    with pytest.raises(ConfigError) as refused:
        load_config({"INSTANCE_PATH": str(tmp_path), name: value})
    assert name in refused.value.message and "sesame" not in refused.value.message


@pytest.mark.parametrize(("there", "missing"), [("LEDGER_KEY", "SECRET_KEY"), ("SECRET_KEY", "LEDGER_KEY")])
def test_one_of_several_machines_makes_no_secret_of_its_own(tmp_path, there, missing):
    settings = {"DATABASE_URL": "postgresql://purge@db.company.com/purge", there: "k" * 64}
    with pytest.raises(ConfigError, match=f"{missing} is not"):
        load_config({"INSTANCE_PATH": str(tmp_path), **settings})


@pytest.mark.sqlite
def test_every_command_says_what_is_wrong_with_the_settings(instance):
    instance.environ["REDIS_URL"] = "redis://redis.company.com:sesame/0"
    told = [refused(instance)]
    for command in ("init-db", "worker"):
        answer = instance.flask(command)
        assert answer.returncode == 2
        told.append(answer.stderr)
    for words in told:
        assert "REDIS_URL" in words and "sesame" not in words and "Traceback" not in words


@pytest.fixture
def flask(instance):
    """`flask` commands against an installation that does not run, in this process."""
    app = create_app(instance.environ)
    yield lambda *words: app.test_cli_runner().invoke(args=words)
    with app.app_context():
        db.engine.dispose()


def test_init_db_and_users_can_be_repeated_and_say_what_is_wrong(instance, flask):
    for _ in range(2):
        assert flask("init-db").exit_code == 0
    added = flask("users", "add", "Ann@company.com", "--role", "viewer")
    assert added.exit_code == 0 and "ann@company.com may sign in as viewer" in added.stdout
    again = flask("users", "add", "ann@company.com")
    assert again.exit_code == 1 and "has an account already" in again.stderr
    assert "missing @" in flask("users", "add", "ann").stderr


def test_a_colleague_who_has_left_signs_in_no_more(instance, flask):
    def change(*options) -> str:
        return flask("users", "change", "Ann@company.com", *options).output

    flask("init-db")
    assert "Nobody here" in change("--close")
    assert flask("users", "add", "ann@company.com", "--role", "viewer").exit_code == 0
    assert "Say what to change" in change() and "Say what to change" in change("--close", "--role", "admin")
    assert change("--role", "admin").split() == ["ann@company.com", "admin"]
    old = instance.ask('SELECT password_hash, session FROM "user"')
    assert "Password (shown once)" in change("--new-password") and "closed" in change("--close")
    assert flask("users", "list").output.split() == ["1", "ann@company.com", "closed"]
    ((now, session),) = instance.ask('SELECT password_hash, session FROM "user"')
    assert now == "" and session and (now, session) not in old


def test_a_stranger_who_sends_a_very_large_file_is_answered_at_once(instance):
    """Only those who are signed in are heard out; anybody else could keep the server listening."""
    instance.start()
    head = f"POST /login HTTP/1.1\r\nHost: 127.0.0.1:{instance.port}\r\nContent-Length: 900000000\r\n"
    with socket.create_connection(("127.0.0.1", instance.port), timeout=20) as line:
        line.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n".encode())
        assert line.recv(12) == b"HTTP/1.1 413"


@pytest.mark.parametrize("command", ["init-db", "users add", "worker", "schedule", "demo-data", "purge"])
def test_every_command_says_what_it_is_for(app, command):
    answer = app.test_cli_runner().invoke(args=[*command.split(), "--help"])
    assert answer.exit_code == 0 and len(answer.output) > 150


def test_a_signal_in_the_middle_of_the_start_stops_it_too(instance):
    instance.start(wait=False)
    time.sleep(1.5)
    instance.process.send_signal(signal.SIGTERM)
    assert instance.process.wait(PATIENCE) in (0, -signal.SIGTERM)
