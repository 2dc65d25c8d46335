"""Receipts: what a batch did, without the person in it, for whoever is handed one to check."""

import base64
import io
import json
import re
from datetime import date, datetime, timedelta

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import delete, select, update

from purge import batches
from purge.batches import Batch, Ground
from purge.batches.model import Chunk
from purge.erasure.map import read_map
from purge.evidence import receipts
from purge.evidence.audit import Act, AuditEvent
from purge.extensions import db, now
from purge.models import Customer, Role
from tests.instance import CHECKOUT
from tests.people import add_customer, hang_everything_on
from tests.test_audit import facts_of, retell, words
from tests.test_batches import checked, confirmed, finished, opened, work

CHECK = "/check-a-receipt"


def downloaded(browser, batch) -> dict:
    answer = browser.get(f"/batches/{batch.id}/receipt.json")
    assert answer.status_code == 200
    assert answer.headers["Content-Disposition"] == f"attachment; filename=purge-receipt-{batch.id}.json"
    return answer.json


def verify(signed: dict) -> None:
    """As somebody would who has the file, the key, and no more than the docs say."""
    message = json.dumps(signed["receipt"], sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(signed["signature"]["public_key"]))
    key.verify(base64.b64decode(signed["signature"]["value"]), message)


def brought(browser, receipt) -> str:
    content = receipt if isinstance(receipt, bytes) else json.dumps(receipt).encode()
    answer = browser.post(CHECK, {"receipt": (io.BytesIO(content), "receipt.json")}, page=CHECK)
    assert answer.status_code == 200
    return words(answer)


def test_a_receipt_tells_what_the_batch_did(app, signed_in):
    id = add_customer("ann@people.com")
    hang_everything_on(id, read_map(db.metadata), "mark")
    began = now()
    batch = finished("ann@people.com", "nobody@people.com", "no address", "ann@people.com")
    told = downloaded(signed_in(Role.VIEWER), batch)["receipt"]
    assert told["batch"] == batch.id and told["rows"] == 4 and told["door"] == "csv"
    assert told["outcomes"] == {"purged": 1, "not_found": 1, "invalid": 1, "duplicate": 1}
    assert told["erased"] == {name: rows for name, rows in told["erased"].items() if rows} | {"customer": 1}
    assert {"activity", "purchase_order", "reward"} & set(told["erased"])
    assert began < datetime.fromisoformat(told["came_in_at"]) < datetime.fromisoformat(told["ended_at"]) < now()
    assert told["plan"] == batch.plan_digest and told["file_digest"] == batch.content_digest.hex()


def test_anybody_can_check_its_signature_without_the_app(app, signed_in):
    signed = downloaded(signed_in(), checked("nobody@people.com"))
    verify(signed)
    signed["receipt"]["rows"] = 2
    with pytest.raises(InvalidSignature):
        verify(signed)


def test_the_lines_in_the_docs_check_it(app, signed_in, tmp_path):
    signed = downloaded(signed_in(), checked("nobody@people.com"))
    (lines,) = re.findall(r"```python\n(.*?)```", (CHECKOUT / "docs/evidence.md").read_text(), re.DOTALL)
    file = tmp_path / "receipt.json"
    lines = lines.replace("the company's key", receipts.public_key()).replace("purge-receipt-7.json", str(file))
    file.write_text(json.dumps(signed))
    exec(lines, {})
    signed["receipt"]["rows"] = 2
    file.write_text(json.dumps(signed))
    with pytest.raises(InvalidSignature):
        exec(lines, {})


def test_nothing_of_the_person_is_in_it(app, signed_in):
    person = {"first_name": "Annabel", "surname": "Canary", "external_id": "CUST-4711"}
    id = add_customer("ann.canary@people.com", **person)
    db.session.execute(update(Customer).where(Customer.id == id).values(id=918_273))
    batch = finished("ann.canary@people.com")
    browser = signed_in()
    fingerprint = db.session.scalar(select(batches.model.PurgeRequest.fingerprint))
    for text in (json.dumps(downloaded(browser, batch)), browser.get(f"/batches/{batch.id}/receipt").text):
        for part in ("canary", "annabel", "4711", "918273", "918,273", fingerprint.hex()):
            assert part not in text.lower()


def test_the_same_receipt_comes_back_each_time(app, signed_in):
    browser, batch = signed_in(), checked("nobody@people.com")
    assert downloaded(browser, batch) == downloaded(browser, batch)


def test_one_that_comes_back_is_genuine_and_says_what_it_says(app, signed_in):
    add_customer("ann@people.com")
    browser, batch = signed_in(Role.VIEWER), finished("ann@people.com", "nobody@people.com")
    shown = brought(browser, downloaded(browser, batch))
    assert "Genuine" in shown and "Not genuine" not in shown and "not found" in shown


@pytest.mark.parametrize(
    "change",
    [
        lambda signed: signed["receipt"].update(rows=7),
        lambda signed: signed["receipt"]["outcomes"].update(purged=7),
        lambda signed: signed["receipt"].pop("ended_at"),
        lambda signed: signed["signature"].update(value=base64.b64encode(b"x" * 64).decode()),
        lambda signed: signed["signature"].update(value="no base64"),
        lambda signed: signed["signature"].update(value=7),
        lambda signed: signed.pop("signature"),
        lambda signed: signed.update(receipt=[]),
    ],
)
def test_one_that_was_changed_is_not(app, signed_in, change):
    browser, batch = signed_in(), checked("nobody@people.com")
    signed = downloaded(browser, batch)
    change(signed)
    assert "Not genuine" in brought(browser, signed)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"7", b"\xff\xfe", b"[" * 100_000, b'{"receipt": {}, "signature": null}', b"x" * 2_000_000],
)
def test_what_is_no_receipt_is_told_so(app, signed_in, content):
    assert "Not genuine" in brought(signed_in(), content)


def test_one_of_another_installation_is_not_ours(app, signed_in):
    browser, batch = signed_in(), checked("nobody@people.com")
    signed, ours = downloaded(browser, batch), app.config["LEDGER_KEY"]
    app.config["LEDGER_KEY"] = b"another" * 5
    theirs = receipts.sign(signed["receipt"])
    app.config["LEDGER_KEY"] = ours
    verify(theirs)  # by the key that came with it, which proves nothing
    shown = brought(browser, theirs)
    assert "Not signed with this installation’s key" in shown and theirs["signature"]["public_key"] in shown


def test_a_receipt_tells_nothing_that_only_the_batch_says_of_itself(app, signed_in):
    """Whoever writes into the database can write into its row and its chunks, before the end and after it."""
    add_customer("ann@people.com")
    browser, batch = signed_in(), confirmed("ann@people.com", "nobody@people.com")
    forged = {"confirmed_by_id": 1, "confirmed_at": now() - timedelta(days=9), "content_digest": b"x" * 32, "rows": 7}
    db.session.execute(update(Batch).values(forged))
    db.session.execute(update(Chunk).values(invalid=3))
    work(batches.run, batch)
    told = downloaded(browser, batch)["receipt"]
    assert told["outcomes"] == {"not_found": 1, "purged": 1} and told["rows"] == 2 and told["confirmed_by"] is None
    assert "78787878" not in told["file_digest"] and told["confirmed_at"] > told["came_in_at"]
    db.session.execute(update(Chunk).values(erased={"customer": 9_999}))
    db.session.commit()
    assert downloaded(browser, batch)["receipt"] == told


def test_one_that_another_reader_would_read_otherwise_is_not_genuine(app, signed_in):
    browser = signed_in()
    text = json.dumps(downloaded(browser, checked("nobody@people.com")))
    for old, new in (
        ('"rows": 1', '"rows": 9, "rows": 1'),
        ('"Ed25519"', '"none"'),
        ('{"receipt"', '{"to": 7, "receipt"'),
    ):
        assert old in text and "Not genuine" in brought(browser, text.replace(old, new, 1).encode())


def test_a_batch_that_an_older_version_began_has_none(app, signed_in):
    """What it had done by then is in no event."""
    add_customer("ann@people.com")
    batch = confirmed("ann@people.com")
    db.session.execute(delete(AuditEvent).where(AuditEvent.act.in_([Act.OPENED, Act.CHECKED, Act.CONFIRMED])))
    work(batches.run, batch)
    browser = signed_in()
    assert browser.get(f"/batches/{batch.id}/receipt").status_code == 404
    assert "/receipt" not in browser.get(f"/batches/{batch.id}/summary").text


def test_the_receipt_stands_when_the_trail_was_changed_and_nothing_new_is_signed(app, signed_in):
    browser, batch = signed_in(), checked("nobody@people.com")
    signed = downloaded(browser, batch)
    this = AuditEvent.act == Act.FINISHED
    db.session.execute(retell(Act.OPENED, '"rows":1', '"rows":7'))
    db.session.commit()
    assert "the audit trail does not say so" in brought(browser, signed)
    assert browser.get(f"/batches/{batch.id}/receipt.json").status_code == 404
    shown = browser.get(f"/batches/{batch.id}/receipt")
    assert "somebody has changed the audit trail" in words(shown) and "receipt.json" not in shown.text
    db.session.execute(delete(AuditEvent).where(this))
    db.session.commit()
    assert "the audit trail does not say so" in brought(browser, signed)


def test_there_is_none_before_the_end_and_none_of_what_was_thrown_away(app, signed_in):
    browser = signed_in()
    add_customer("ann@people.com")
    running, thrown_away = confirmed("ann@people.com"), opened("ann@people.com")
    batches.discard(thrown_away)
    db.session.commit()
    for batch in (running, thrown_away):
        for page in ("receipt", "receipt.json"):
            assert browser.get(f"/batches/{batch.id}/{page}").status_code == 404
    assert "/receipt" not in browser.get(f"/batches/{thrown_away.id}/summary").text
    work(batches.run, running)
    assert f"/batches/{running.id}/receipt" in browser.get(f"/batches/{running.id}/summary").text


def test_a_single_purge_says_why_and_when_it_was_asked_for(app, signed_in):
    browser = signed_in()
    customer = db.session.get(Customer, add_customer("ann@people.com"))
    who = facts_of(Act.USER_ADDED)["account"]
    asked_on = date(2026, 11, 2)
    shown = batches.preview_single(customer).digest
    batch = batches.open_single(customer, shown, who, Ground.PRIVACY_REQUEST, asked_on)
    work(batches.run, batch)
    told = downloaded(browser, batch)["receipt"]
    assert (told["ground"], told["asked_for_on"], told["confirmed_by"]) == ("privacy_request", "2026-11-02", who)
    assert "file_digest" not in told and "plan" not in told
    page = words(browser.get(f"/batches/{batch.id}/receipt"))
    assert "Privacy request" in page and "@company.com" in page and "2 Nov 2026" in page


def test_a_cancelled_batch_says_so(app, signed_in):
    add_customer("ann@people.com")
    batch = confirmed("ann@people.com")
    batches.cancel(batch)
    db.session.commit()
    work(batches.run, batch)
    assert downloaded(signed_in(), batch)["receipt"]["outcomes"] == {"cancelled": 1}
