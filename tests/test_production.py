"""What docs/production.md puts before the app and behind it: a proxy as it stands there, and a pooler, from real programs."""

import re
import shutil
import socket
import ssl
import subprocess
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from app import create_app
from purge.config import SESSION
from purge.extensions import db
from tests import PATIENCE
from tests.instance import CHECKOUT, Admin, free_port
from tests.machines import Machines
from tests.shop import Shop

PATH = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"  # not everybody's has the first


@contextmanager
def serving(port: int, program: str, *options, **how):
    """A server that stays in the foreground, from its first answer to the block's end."""
    process = subprocess.Popen([shutil.which(program, path=PATH), *options], stderr=subprocess.DEVNULL, **how)
    try:
        until = time.monotonic() + PATIENCE
        while not _listens(port):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()


def _listens(port: int) -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        return True
    return False


@pytest.mark.sqlite
def test_the_proxy_as_the_docs_have_it(tmp_path):
    port = free_port()
    machines = Machines(tmp_path / "shop", PUBLIC_URL=f"https://127.0.0.1:{port}", PROXIES="1")
    try:
        proxy = write_proxy(tmp_path, port, machines.port)
        machines.start()
        machines.url = machines.environ["PUBLIC_URL"]
        with serving(port, "nginx", "-p", tmp_path, "-c", proxy):
            admin = Admin(machines, urllib.request.HTTPSHandler(context=ssl._create_unverified_context()))
            assert "Which column" in admin.upload(b"Customer Email\n" + b"ann.smith@people.com\n" * 300_000)
    finally:
        machines.stop()
    ids = (tmp_path / "requests").read_text().split()
    assert len(ids) > 3 and all(id in machines.output for id in ids)
    assert all(cookie.secure for cookie in admin.cookies)


def write_proxy(folder: Path, port: int, to: int) -> Path:
    """The settings of an nginx that has the docs' server, with a key of its own."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    new = ("openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=purge.company.com")
    subprocess.run([*new, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    page = (CHECKOUT / "docs" / "production.md").read_text()
    server = re.search(r"## The proxy\n\n```\n(.+?)```", page, re.DOTALL)[1]
    for theirs, ours in {
        "listen 443": f"listen 127.0.0.1:{port}",
        "/etc/ssl/purge/fullchain.pem": str(certificate),
        "/etc/ssl/private/purge.pem": str(key),
        "127.0.0.1:5000;": f"127.0.0.1:{to};",
    }.items():
        assert server.count(theirs) == 1
        server = server.replace(theirs, ours)
    # Folders that its workers may not enter where they are another user: they write no body down.
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    bodies = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    settings = folder / "nginx.conf"
    settings.write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/errors; events {{}}"
        f"http {{ log_format ids $request_id; access_log {folder}/requests ids; {bodies} {server} }}"
    )
    return settings


@pytest.mark.postgresql
def test_a_pooler_of_sessions(tmp_path, stock, postgres):
    port, name = free_port(), postgres.make(stock.database)
    (postgres.folder / "users").write_text('"purge" ""\n')
    (postgres.folder / "pgbouncer.ini").write_text(
        f"""
        [databases]
        * = host=127.0.0.1 port={postgres.port}
        [pgbouncer]
        listen_addr = 127.0.0.1
        listen_port = {port}
        unix_socket_dir =
        auth_type = trust
        auth_file = {postgres.folder}/users
        pool_mode = session
        default_pool_size = 100
        """
    )
    url = f"postgresql://purge@127.0.0.1:{port}/{name}"
    with serving(port, "pgbouncer", postgres.folder / "pgbouncer.ini", user=postgres.user):
        shop = Shop(tmp_path, stock, Machines, DATABASE_URL=url)
        try:
            shop.assert_ended_as_planned(shop.purge())
            assert settings(shop.instance.environ) == {name: str(value) for name, value in SESSION.items()}
        finally:
            shop.stop()


def settings(environ: dict[str, str]) -> dict[str, str]:
    """Of the app's sessions there, as the server says."""
    with create_app(environ).app_context():
        try:
            return {name: db.session.scalar(db.text(f"SHOW {name}")) for name in SESSION}
        finally:
            db.session.remove()
            db.engine.dispose()
