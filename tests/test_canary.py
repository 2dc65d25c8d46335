"""Nothing left: after purges through the forms, what was purged is in no file of the installation."""

import re
import shlex
import subprocess
import time
import zlib

import pytest
from playwright.sync_api import expect
from sqlalchemy import select

from app import create_app
from purge.demo_data import make_demo_data
from purge.erasure.map import read_map
from purge.extensions import db
from purge.models import Customer
from tests import PATIENCE
from tests.browser import upload
from tests.instance import Instance
from tests.people import add_customer, hang_everything_on

MARK = "quetzalcoatlus"
FACES = "😀😁😂"  # three characters in a row, as the search index holds them
PEOPLE = 40
DROPPED = range(30, PEOPLE)  # by SFTP; the first from the profile, the others by upload


@pytest.fixture(scope="module")
def shop(tmp_path_factory, postgres):
    """An installation whose database has grown and shrunk, and has people marked in every column among its customers."""
    folder = tmp_path_factory.mktemp("canary")
    (folder / "elsewhere").mkdir()
    instance = Instance(
        folder / "instance",
        CHUNK_SIZE="100",
        CLEAR_AFTER_SECONDS="1",
        DROP_AGE_SECONDS="1",
        TMPDIR=str(folder / "elsewhere"),
        HOME=str(folder / "elsewhere"),
    )
    instance.command("init-db")
    with create_app(instance.environ).app_context():
        for part in range(PEOPLE):
            make_demo_data(db.engine, 150, seed=part)
            person = add_customer(
                f"{MARK}.{part}@people.com", first_name=MARK, surname=FACES, phone=MARK, external_id=f"{MARK}-{part}"
            )
            hang_everything_on(person, read_map(db.metadata), f"{MARK}.{part}@people.com")
            db.session.commit()
        db.engine.dispose()
    for canary in (MARK, FACES):
        assert canary.encode() in b"".join((rows(instance) if postgres else traces(instance.folder)).values())
    yield instance.start()
    instance.stop()


def traces(folder) -> dict[str, bytes]:
    """Everything in every file, unpacked where it is packed."""
    found = {}
    for file in folder.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            packed = [content[match.start() :] for match in re.finditer(rb"\x78[\x01\x9c\xda]", content)]
            found[str(file.relative_to(folder))] = b"".join([content, *map(unpacked, packed)]).lower()
    return found


def unpacked(packed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed)
    except zlib.error:
        return b""


def drop(shop, name: str, content: str) -> None:
    """With the command that `make run` prints; on this machine the server's disk is the app's."""
    file = shop.folder.parent / name
    file.write_text(f"Customer Email\n{content}")
    program, *rest = shlex.split(re.search(r"^\s+(sftp -P .*)$", shop.output, re.MULTILINE)[1])
    put = f'put "{file}"\n'
    subprocess.run([program, "-b", "-", *rest], input=put, text=True, check=True, capture_output=True, timeout=PATIENCE)
    file.unlink()
    results = shop.folder / "sftp" / "files" / "results"
    until = time.monotonic() + PATIENCE
    while not list(results.glob("*.sha256")):
        assert time.monotonic() < until
        time.sleep(0.2)
    (answer,) = results.glob("*.result.csv")
    assert answer.read_text().count("purged") == len(DROPPED)


def test_nothing_of_the_purged_is_left_in_any_file(shop, open_page, postgres):
    with create_app(shop.environ).app_context():
        others = db.session.scalars(select(Customer.email).where(~Customer.email.contains(MARK)).limit(3_000)).all()
        db.session.remove()
        db.engine.dispose()
    padding = "x" * 300  # large enough that the form's file does not stay in memory
    asked = [f"{MARK}.{part}@people.com,{padding}" for part in range(DROPPED.start)] + [
        f"{email},{padding}" for email in others
    ]
    content = "\n".join(["Customer Email,Note", *asked, f"{MARK}-unknown@people.com,", f"{MARK} broken,", ""]).encode()
    page = open_page()
    drop(shop, f"{MARK}@people.com.csv", "".join(f"{MARK}.{part}@people.com\n" for part in DROPPED))
    page.goto("/customers")
    page.wait_for_load_state("networkidle")
    page.fill("#term", f"{MARK}.0@people")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.locator("tbody a").click()
    page.wait_for_load_state("networkidle")
    page.get_by_text("Actions").click()
    page.get_by_role("link", name="Purge …").click()
    page.get_by_role("button", name="Permanently delete").click()
    expect(page.get_by_text("was permanently deleted")).to_be_visible()
    upload(page, content, f"{MARK}@people.com.csv")
    page.wait_for_url("**/mapping")
    page.get_by_role("button", name="Upload", exact=True).click()
    page.wait_for_url("**/review")
    assert MARK not in page.content() and MARK not in page.title() and MARK not in page.url
    page.fill("#typed", "3029")
    page.get_by_role("button", name="Permanently delete").click()
    page.wait_for_url("**/summary")
    until = time.monotonic() + PATIENCE
    while shop.ask("SELECT 1 FROM batch WHERE cleared_at IS NULL"):
        assert time.monotonic() < until
        page.wait_for_timeout(500)
    page.reload()
    assert page.get_by_text("No trace in the database’s files since").count() == (0 if postgres else 1)
    assert MARK not in page.content()

    assert not list((shop.folder.parent / "elsewhere").rglob("*")), "every file is under INSTANCE_PATH"
    left = traces(shop.folder) | (rows(shop) if postgres else {})
    for canary in (MARK, FACES):
        assert {name for name, content in left.items() if canary.encode() in content} == set()
    for email in others:
        assert not [name for name, content in left.items() if email.lower().encode() in content], email
    assert "redis/appendonlydir" in " ".join(left) and ("customer" if postgres else "purge.db") in left


def rows(shop) -> dict[str, bytes]:
    """On PostgreSQL: what every table holds, and the statistics of them. What its own files hold until they are tidied,
    docs/production.md says."""
    tables = shop.ask("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
    found = {table: shop.ask(f'SELECT * FROM "{table}"') for (table,) in tables}
    found["pg_stats"] = shop.ask(
        "SELECT concat(most_common_vals, histogram_bounds) FROM pg_stats WHERE schemaname = 'public'"
    )
    return {table: str(held).lower().encode() for table, held in found.items()}
