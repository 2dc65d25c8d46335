"""What the tests stand on: a real database, a real Redis-protocol server, a real browser.

`--database postgresql` runs those that need a database on a PostgreSQL server of their own instead of SQLite.
"""

import itertools
import os
import random
import re
import shutil
import subprocess
import time

import pytest
from argon2 import PasswordHasher
from flask import g
from playwright.sync_api import Page, expect, sync_playwright
from pysqlite3 import dbapi2 as sqlite3

from app import create_app
from jobs import queue, redis_server
from purge.cli.setup import add_user, upgrade_schema
from purge.extensions import db, limiter
from purge.models import Role, users
from tests import PATIENCE
from tests.browser import CDN, CHROMIUM, EXPECTED, serve_htmx
from tests.instance import CHECKOUT, FLASK, Instance
from tests.postgres import Postgres
from tests.shop import make_stock

ON_A_DATABASE = {"app", "instance", "shop", "empty_database"}

_names = itertools.count(1)


def pytest_addoption(parser):
    parser.addoption("--database", choices=("sqlite", "postgresql"), default="sqlite")


def pytest_collection_modifyitems(config, items):
    """On SQLite everything but what is PostgreSQL's alone; on PostgreSQL what stands on a database and is not SQLite's alone."""
    chosen, other = ("postgresql", "sqlite") if _is_postgresql(config) else ("sqlite", "postgresql")

    def runs(item) -> bool:
        on_a_database = chosen == "sqlite" or ON_A_DATABASE & set(item.fixturenames) or item.get_closest_marker(chosen)
        return bool(on_a_database) and item.get_closest_marker(other) is None

    config.hook.pytest_deselected(items=[item for item in items if not runs(item)])
    items[:] = [item for item in items if runs(item)]


def _is_postgresql(config) -> bool:
    return config.getoption("--database") == "postgresql"


@pytest.fixture(scope="session", autouse=True)
def postgres(request):
    """The server on which every app and installation of the tests has a database of its own; None on SQLite."""
    if not _is_postgresql(request.config):
        yield None
        return
    server = Postgres(fsync="off", max_connections="300")
    Instance.server = server
    yield server
    server.remove()


@pytest.fixture
def dice():
    """Random, and the same again for the seed it prints."""
    seed = int(os.environ.get("SEED", time.time_ns() % 10**6))
    print(f"SEED={seed}")
    return random.Random(seed)


@pytest.fixture(scope="session", autouse=True)
def cheap_passwords():
    """Hundreds sign in to an app of the tests; installations, which are processes of their own, take their time as they should."""
    users._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory):
    server = redis_server.start(tmp_path_factory.mktemp("redis"))
    yield server.url
    server.stop()


@pytest.fixture(scope="session")
def stock(tmp_path_factory, postgres):
    """Customers and a purge CSV, made once and copied by every test that tries a fault on them."""
    return make_stock(tmp_path_factory.mktemp("stock"))


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory, postgres):
    """A database as `flask init-db` makes it, to be copied: the folder of an installation, and its name on PostgreSQL."""
    folder = tmp_path_factory.mktemp("empty")
    name = postgres and postgres.make()
    app = create_app({"INSTANCE_PATH": str(folder), **({"DATABASE_URL": postgres.url(name)} if name else {})})
    with app.app_context():
        upgrade_schema()
        db.engine.dispose()
    if name:
        return folder, name
    file = folder / "purge.db"
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return folder, None


@pytest.fixture
def app(tmp_path, empty_database, redis_url, postgres):
    """An app of the test's own, with an empty database."""
    import redis

    instance, (folder, template) = tmp_path / "instance", empty_database
    shutil.copytree(folder, instance, ignore=shutil.ignore_patterns("purge.db-*"))
    redis.Redis.from_url(redis_url).flushall()
    environ = {"INSTANCE_PATH": str(instance), "REDIS_URL": redis_url}
    name = postgres and postgres.make(template)
    if name:
        environ["DATABASE_URL"] = postgres.url(name)
    app = create_app(environ)
    app.config["TESTING"] = True
    with app.app_context():
        limiter.reset()
        yield app
        db.session.remove()
        db.engine.dispose()
    if name:
        postgres.drop(name)


class Browser:
    """A test client that sends what the page before hides in its forms, the CSRF token and all, as a browser would."""

    def __init__(self, app):
        self.client = app.test_client()

    def get(self, path, **options):
        g.pop("_login_user", None)
        return self.client.get(path, **options)

    def post(self, path, data=None, page="/login", **options):
        g.pop("_login_user", None)
        g.pop("csrf_token", None)
        hidden = re.findall(r'type="hidden" name="(\w+)" value="([^"]+)"', self.get(page, follow_redirects=True).text)
        fields = {"csrf_token": "", **dict(hidden), **(data or {})}
        return self.client.post(path, data=fields, **options)

    def sign_in(self, email, password):
        return self.post("/login", {"email": email, "password": password})


@pytest.fixture
def visitor(app):
    """Somebody who has not signed in."""
    return Browser(app)


@pytest.fixture
def signed_in(app):
    """Signs somebody in: signed_in(Role.VIEWER)."""

    def sign(role: Role = Role.OPERATOR) -> Browser:
        email = f"{role}{next(_names)}@company.com"
        browser = Browser(app)
        assert browser.sign_in(email, add_user(email, role)).status_code == 303
        return browser

    return sign


@pytest.fixture
def instance(tmp_path):
    """A real installation in a folder of its own, not started yet; stopped at the end."""
    made = Instance(tmp_path / "an instance")
    yield made
    made.stop()


@pytest.fixture
def worker(app, redis_url):
    """Works until the queue is empty, in a process of its own, as `flask worker` would."""

    def work() -> None:
        settings = {"INSTANCE_PATH": app.config["INSTANCE_PATH"], "REDIS_URL": redis_url}
        environ = {**os.environ, **settings, "DATABASE_URL": app.config["SQLALCHEMY_DATABASE_URI"]}
        db.session.commit()
        with subprocess.Popen([*FLASK, "worker"], cwd=CHECKOUT, env=environ, stderr=subprocess.DEVNULL) as process:
            until = time.monotonic() + PATIENCE
            connection = queue.connect()
            while time.monotonic() < until and _is_work_left(connection):
                time.sleep(0.1)
            time.sleep(0.3)
            process.terminate()
        db.session.expire_all()

    return work


def _is_work_left(connection) -> bool:
    """By the jobs themselves: one that a worker has just taken is in no queue any more, and in no registry yet."""
    ours = {queue.SINGLE.encode(), queue.BULK.encode()}
    jobs = [connection.hmget(key, "status", "origin") for key in connection.scan_iter("rq:job:*", _type="hash")]
    return any(status in (b"queued", b"started") and origin in ours for status, origin in jobs)


@pytest.fixture(scope="session")
def shop(tmp_path_factory, postgres):
    """A started installation with 6,000 customers, one for all that have a browser: some of them are purged."""
    folder = tmp_path_factory.mktemp("shop")
    instance = Instance(folder / "instance", CHUNK_SIZE="100", DROP_AGE_SECONDS="1")
    instance.command("init-db")
    instance.command("demo-data", "--customers", "6000")
    yield instance.start()
    instance.stop()


@pytest.fixture(scope="session")
def chromium():
    """The system's own browser."""
    assert CHROMIUM, "Chromium is missing; tests/system-packages installs it"
    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture
def open_page(shop, chromium):
    """A signed-in page; at the end of the test its console must hold no error and no CSP violation."""
    contexts, errors = [], []

    def open_page(cdn=serve_htmx, **options) -> Page:
        context = chromium.new_context(base_url=shop.url, **options)
        context.set_default_timeout(PATIENCE * 1000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.route(CDN, cdn)
        page.goto("/login")
        page.fill("#email", "admin@localhost")
        page.fill("#password", shop.password)
        page.click("button:has-text('Sign in')")
        page.wait_for_url("**/batches")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not [error for error in errors if not EXPECTED.search(error)]
