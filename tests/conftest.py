"""What the tests stand on: a real database, a real Redis-protocol server, a real browser."""

import itertools
import re
import shutil

import pytest
from flask import g
from pysqlite3 import dbapi2 as sqlite3

from app import create_app
from jobs import redis_server
from purge.cli.setup import add_user, upgrade_schema
from purge.extensions import db, limiter
from purge.models import Role
from tests.instance import Instance

_names = itertools.count(1)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory):
    server = redis_server.start(tmp_path_factory.mktemp("redis"))
    yield server.url
    server.stop()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """A database as `flask init-db` makes it, to be copied."""
    folder = tmp_path_factory.mktemp("empty")
    app = create_app({"INSTANCE_PATH": str(folder)})
    with app.app_context():
        upgrade_schema()
        db.engine.dispose()
    file = folder / "purge.db"
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return folder


@pytest.fixture
def app(tmp_path, empty_database, redis_url):
    """An app of the test's own, with an empty database."""
    import redis

    instance = tmp_path / "instance"
    shutil.copytree(empty_database, instance, ignore=shutil.ignore_patterns("purge.db-*"))
    redis.Redis.from_url(redis_url).flushall()
    app = create_app({"INSTANCE_PATH": str(instance), "REDIS_URL": redis_url})
    app.config["TESTING"] = True
    with app.app_context():
        limiter.reset()
        yield app
        db.session.remove()
        db.engine.dispose()


class Browser:
    """A test client that reads its CSRF token from the page before, as a browser would."""

    def __init__(self, app):
        self.client = app.test_client()

    def get(self, path, **options):
        g.pop("_login_user", None)
        return self.client.get(path, **options)

    def post(self, path, data=None, page="/login", **options):
        g.pop("_login_user", None)
        g.pop("csrf_token", None)
        found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', self.get(page, follow_redirects=True).text)
        fields = {"csrf_token": found[1] if found else "", **(data or {})}
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
