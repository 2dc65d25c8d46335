"""The pages over HTTP: closed by default, safe to reload, the same with and without JavaScript."""

import errno
import io
import re
import time
from importlib import import_module

import pytest
from flask import request
from sqlalchemy import delete, event, func, select, text, update
from sqlalchemy.exc import OperationalError

from app import create_app
from purge import batches, pickup
from purge.batches import Batch, Outcome, State
from purge.batches.model import UploadPart
from purge.erasure.map import read_map
from purge.evidence.ledger import fingerprinter
from purge.extensions import db
from purge.models import Customer, Role
from purge.pickup import SftpConnection
from purge.views import CONTENT_SECURITY_POLICY, OPEN
from purge.views.formats import share
from tests.drops import FaultyServer, connect
from tests.people import add_customer, hang_everything_on
from tests.test_pickup import poll, put

PURGE = {"action": "purge"}


def send(browser, content: bytes, name: str = "people.csv"):
    page = "/settings/upload-tags"
    return browser.post("/uploads", {**PURGE, "file": (io.BytesIO(content), name)}, page=page)


def uploaded(browser, *lines: str) -> str:
    """The batch's address, its file waiting for the mapping."""
    answer = send(browser, "\n".join(["Customer Email", *lines, ""]).encode())
    assert answer.status_code == 303, answer.text
    return answer.location.removesuffix("/mapping")


def at_review(browser, *lines: str) -> str:
    url = uploaded(browser, *lines)
    assert browser.post(f"{url}/mapping", {"column": "0"}, page=f"{url}/mapping").location == f"{url}/checking"
    work(batches.check, url)
    return url


def work(act, url: str) -> None:
    db.session.commit()
    act(int(url.rpartition("/")[2]))
    db.session.expire_all()


def batch_at(url: str) -> Batch:
    return db.session.get(Batch, int(url.rpartition("/")[2]), populate_existing=True)


def plan(browser, url: str) -> dict:
    return {"plan": re.search(r'name="plan" value="(\w+)"', browser.get(f"{url}/review").text)[1]}


def at_progress(browser) -> str:
    """Of a batch of one, confirmed."""
    add_customer("ann@people.com")
    db.session.commit()
    url = at_review(browser, "ann@people.com")
    browser.post(f"{url}/confirmation", plan(browser, url), page=f"{url}/review")
    return url


def test_every_page_needs_signing_in_unless_it_is_listed(app, visitor):
    for rule in app.url_map.iter_rules():
        path = rule.build({name: 1 for name in rule.arguments}, append_unknown=False)[1]
        if rule.endpoint in OPEN or path is None:
            continue
        for method in rule.methods - {"OPTIONS", "HEAD"}:
            answer = visitor.get(path) if method == "GET" else visitor.post(path)
            assert answer.status_code == 302 and "/login" in answer.location, (method, path)


@pytest.mark.parametrize("path", ["/nowhere", "/batches/99", "/batches/99/mapping", "/batches/99/live"])
def test_what_is_not_there_is_404_for_those_who_may_look_and_closed_for_others(signed_in, visitor, path):
    assert signed_in().get(path).status_code == 404
    assert visitor.get(path).status_code in (302, 404)


def test_a_change_without_its_token_is_refused(app, signed_in):
    browser = signed_in()
    assert browser.client.post("/uploads", data=PURGE).status_code == 400
    assert "out of date" in browser.client.post("/logout").text


def test_a_strangers_file_is_not_even_read(app, visitor, monkeypatch):
    read = []
    monkeypatch.setattr("werkzeug.formparser.MultiPartParser.parse", lambda *_: read.append(1))
    answer = visitor.client.post("/uploads", data={**PURGE, "file": (io.BytesIO(b"x" * 10_000), "people.csv")})
    assert answer.status_code == 302 and "/login" in answer.location and not read


@pytest.mark.parametrize("path", ["/login", "/logout"])
def test_of_what_is_open_to_strangers_nobody_is_heard_out(app, visitor, path):
    answer = visitor.client.post(path, data={"file": (io.BytesIO(b"x" * 4_000_000), "people.csv")})
    assert answer.status_code == 413


def test_every_answer_carries_the_headers_that_keep_strangers_out(signed_in):
    answer = signed_in().get("/batches")
    assert answer.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    htmx = re.search(r'data-cdn="(https://[^"]+\.js)"', answer.text)[1]  # and nothing else of all that is there
    assert f"script-src 'self' {htmx};" in CONTENT_SECURITY_POLICY
    assert answer.headers["Cache-Control"] == "no-store" and answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "style=" not in answer.text and not re.search(r"<script(?![^>]*src=)", answer.text)


def test_the_session_cookie_is_for_this_site_alone(app, visitor, signed_in):
    cookie = visitor.get("/login").headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie


def test_a_page_that_polls_does_not_stay_signed_in_by_itself(signed_in):
    browser = signed_in()
    url = at_progress(browser)
    browser.get(f"{url}/progress")
    polled = browser.get(f"{url}/live?stage=progress&state=running")
    assert polled.status_code == 200 and "Set-Cookie" not in polled.headers


def test_a_strange_host_is_refused(visitor):
    assert visitor.get("/login", headers={"Host": "evil.example.com"}).status_code == 400


def test_a_wrong_password_and_an_unknown_name_get_the_same_answer(app, visitor, signed_in):
    signed_in()
    wrong = visitor.sign_in("operator1@company.com", "wrong")
    unknown = visitor.sign_in("nobody@company.com", "wrong")
    assert wrong.status_code == unknown.status_code == 422
    strip = re.compile(r'value="[^"]*"|X-CSRFToken[^}]*')
    assert strip.sub("", wrong.text) == strip.sub("", unknown.text)


def test_an_address_may_be_typed_as_it_was_when_the_account_was_made(app, visitor):
    typed, run = "Jörg@Bücher.example.com", app.test_cli_runner().invoke
    run(args=["users", "add", typed])
    password = run(args=["users", "change", typed, "--new-password"]).output.split()[3]
    assert visitor.sign_in(typed, password).status_code == 303


def test_guessing_passwords_is_slowed_down(app, visitor):
    assert [visitor.sign_in("a@company.com", "x").status_code for _ in range(11)][-1] == 429


def test_a_text_that_no_database_keeps_is_no_error_of_ours(app, visitor):
    assert visitor.post("/login", {"email": "ann\0@company.com", "password": "x"}).status_code in (400, 422)


def test_behind_a_proxy_wrong_passwords_are_counted_by_whose_they_are(tmp_path, redis_url):
    app, told = create_app({"INSTANCE_PATH": str(tmp_path / "proxied"), "PROXIES": "1", "REDIS_URL": redis_url}), []
    app.before_request(lambda: told.append(request.remote_addr))
    app.test_client().get("/healthz", headers={"X-Forwarded-For": "6.6.6.6, 203.0.113.7"})
    assert told == ["203.0.113.7"]


def test_an_office_full_of_colleagues_may_sign_in_at_once(app, signed_in):
    for _ in range(12):
        signed_in(Role.VIEWER)


@pytest.mark.parametrize(
    "evil",
    ["https://evil.com", "//evil.com", "/\\evil.com", "/%0a\\evil.com", "/%09/evil.com", "//[", "javascript:alert(1)"],
)
def test_signing_in_leads_to_no_other_site(app, visitor, evil):
    from purge.cli.setup import add_user

    password = add_user("ann@company.com", Role.VIEWER)
    answer = visitor.post(f"/login?next={evil}", {"email": "ann@company.com", "password": password})
    assert (answer.status_code, answer.location) == (303, "/")


def test_the_second_click_on_sign_in_leads_on_like_the_first(signed_in):
    answer = signed_in().client.post("/login?next=/customers", data={"csrf_token": "of the page before"})
    assert (answer.status_code, answer.location) == (303, "/customers")


def test_a_sign_in_page_that_is_out_of_date_comes_anew_and_keeps_where_they_were_going(visitor):
    answer = visitor.client.post("/login?next=/customers", data={"csrf_token": "of the page before"})
    assert (answer.status_code, answer.location) == (303, "/login?next=/customers")
    assert "sign in once more" in visitor.get(answer.location).text


def test_signing_out_when_the_session_has_ended_leads_to_the_sign_in_page(signed_in):
    browser = signed_in()
    browser.client.delete_cookie("purge_session")
    answer = browser.post("/logout", {"csrf_token": "of the session that has ended"})
    assert (answer.status_code, answer.location) == (303, "/login")


def test_what_no_address_can_be_read_from_is_no_error_of_ours(visitor):
    shown = {"HX-Request": "true", "HX-Current-URL": "http://[/customers"}
    answer = visitor.client.get("/customers/7", headers=shown)
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (401, "/login")


def test_signing_out_ends_it(signed_in):
    browser = signed_in()
    browser.post("/logout", page="/batches")
    assert browser.get("/batches").status_code == 302


def test_a_viewer_sees_all_and_changes_nothing(signed_in):
    add_customer("ann@people.com")
    db.session.commit()
    url = at_review(signed_in(), "ann@people.com")
    viewer = signed_in(Role.VIEWER)
    assert viewer.get(f"{url}/review").status_code == 200
    assert "Permanently delete 1" not in viewer.get(f"{url}/review").text
    for act in ("confirmation", "pause", "resume", "cancellation", "discard", "mapping"):
        assert viewer.post(f"{url}/{act}", page="/batches").status_code == 403, act
    assert send(viewer, b"Email\na@b.com\n").status_code == 403
    assert batch_at(url).state is State.READY


def test_the_way_from_the_file_to_the_summary(signed_in):
    browser, ann = signed_in(), add_customer("ann@people.com")
    db.session.commit()
    url = at_review(browser, "ann@people.com", "nobody@people.com", "broken")
    assert browser.get(url).location == f"{url}/review"
    page = browser.get(f"{url}/review").text
    assert "Permanently delete 1 customer<" in page and "missing @" in page and "not found" in page
    assert browser.post(f"{url}/confirmation", plan(browser, url), page=f"{url}/review").location == f"{url}/progress"
    assert "Deleting" in browser.get(f"{url}/progress").text
    work(batches.run, url)
    assert db.session.get(Customer, ann) is None
    ended = browser.get(f"{url}/live?stage=progress")
    assert (ended.status_code, ended.headers["HX-Redirect"]) == (286, f"{url}/summary")
    assert "1 customer was permanently deleted" in browser.get(f"{url}/summary").text
    results = browser.get(f"{url}/results.csv")
    assert results.text.splitlines() == [
        "Row,Outcome,Reason", "2,purged,", "3,not found,", "4,invalid,missing @",
    ]  # fmt: skip
    assert "ann" not in results.text


@pytest.mark.parametrize(
    "error", [OperationalError("SELECT 1", {}, Exception("ann@people.com")), OSError(errno.ENOSPC, "full")]
)
def test_a_database_that_is_away_or_full_is_said_on_the_page(app, signed_in, monkeypatch, error):
    browser = signed_in()

    def fails(*_):
        raise error

    monkeypatch.setattr(batches, "outcomes", fails)
    app.config["PROPAGATE_EXCEPTIONS"] = False
    answer = browser.get("/batches")
    assert answer.status_code == 503 and "its disk is full" in answer.text and "ann@" not in answer.text
    error.errno = errno.EPERM
    assert browser.get("/batches").status_code == (503 if isinstance(error, OperationalError) else 500)


def test_however_many_look_on_the_progress_is_counted_once_in_a_while(signed_in, monkeypatch):
    add_customer("ann@people.com")
    db.session.commit()
    browser = signed_in()
    url, asked = at_review(browser, "ann@people.com"), []
    browser.post(f"{url}/confirmation", plan(browser, url), page=f"{url}/review")
    pages = import_module("purge.views.batches")
    for module, name in ((batches, "progress"), (pages, "fetch")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda of, name=name, real=real: asked.append(name) or real(of))
    monkeypatch.setattr(pages, "LOOK_SECONDS", 60)
    told = {browser.get(f"{url}/live?stage=progress&state=running").text for _ in range(5)}
    assert len(told) == 1 and asked == ["fetch", "progress"] and "Deleting" in told.pop()
    assert browser.get("/batches/999/live?stage=progress").status_code == 404
    assert asked == ["fetch", "progress", "fetch"]
    monkeypatch.setattr(pages, "LOOK_SECONDS", -1)
    browser.get(f"{url}/live?stage=progress&state=running")
    assert asked == ["fetch", "progress", "fetch", "fetch", "progress"]


def test_a_batch_that_stands_still_says_so_to_those_who_look_on(signed_in):
    browser, still = signed_in(), "Nothing has moved for a while"
    url = at_progress(browser)
    page, said_aloud = browser.get(f"{url}/progress").text, '<div id="still" role="status">'
    assert f"{said_aloud}</div>" in page and page.index(said_aloud) < page.index("/live?")  # outside what is replaced
    db.session.execute(text("UPDATE batch SET moved_at = '2026-01-01 00:00:00'"))
    db.session.commit()
    assert f'{said_aloud}<p class="notice">{still}' in browser.get(f"{url}/progress").text
    polled = browser.get(f"{url}/live?stage=progress&state=running").text
    assert f'<div id="still" hx-swap-oob="innerHTML"><p class="notice">{still}' in polled


def test_a_page_whose_buttons_are_of_another_state_is_loaded_anew(signed_in):
    """Or somebody who looks on has no Pause after somebody else has resumed."""
    browser = signed_in()
    url = at_progress(browser)
    polled = re.search(r'hx-get="([^"]+/live[^"]+)"', browser.get(f"{url}/progress").text)[1].replace("&amp;", "&")
    assert browser.get(polled).status_code == 200
    browser.post(f"{url}/pause", page=f"{url}/progress")
    time.sleep(0.6)  # until it is asked again
    assert browser.get(polled).headers["HX-Redirect"] == f"{url}/progress"


def test_a_batch_that_waits_for_a_yes_is_counted_in_the_navigation_and_says_until_when(signed_in):
    browser = signed_in()
    add_customer("ann@people.com")
    db.session.commit()
    url, waits = at_review(browser, "ann@people.com"), '1<span class="visually-hidden"> waiting for a yes'
    assert waits in browser.get("/customers").text and "it is thrown away" in browser.get(f"{url}/review").text
    browser.post(f"{url}/discard", page=f"{url}/review")
    assert waits not in browser.get("/customers").text


@pytest.fixture
def connection(app, tmp_path):
    app.config |= {"DROP_AGE_SECONDS": 0, "DROP_REST_SECONDS": 0}
    server = FaultyServer(tmp_path / "drop")
    yield connect(server), server
    server.stop()


def test_a_dropped_file_that_runs_by_itself_waits_for_nobody_and_says_how_to_stop_it(connection, signed_in):
    connection, server = connection
    add_customer("ann@people.com")
    put(server, "people.csv", "ann@people.com")
    for _ in range(2):
        poll(connection)
    work(batches.check, url := f"/batches/{db.session.scalar(select(Batch.id))}")
    browser, by_itself, waits = signed_in(), "runs by itself", "waiting for a yes"
    for when in ("It runs by itself at the next look", "is paused: it runs by itself once that is started again"):
        page = browser.get(f"{url}/review").text
        assert when in page and waits not in page and "Nobody has said yes" not in page
        assert "If it has not run by" in page and "it is thrown away" in page
        assert ">about to run<" in browser.get("/batches").text
        pickup.pause(connection)  # it only puts it off
        db.session.commit()
    db.session.execute(update(SftpConnection).values(runs_up_to=0))
    db.session.commit()
    page = browser.get(f"{url}/review").text
    assert by_itself not in page and waits in page and "Nobody has said yes" in page
    assert f">{waits}<" in browser.get("/batches").text


def test_a_part_of_a_page_that_is_out_of_date_has_the_page_loaded_anew(app, signed_in):
    browser = signed_in()
    answer = browser.client.post("/customers/1/purge", headers={"HX-Request": "true"})
    assert answer.status_code == 400 and answer.headers["HX-Refresh"] == "true"
    assert "Nothing was done" in browser.get("/batches").text


def test_who_signs_out_is_signed_out_everywhere(app, signed_in):
    browser = signed_in()
    copied = browser.client.get_cookie("purge_session").value
    other = app.test_client()
    other.set_cookie("purge_session", copied)
    assert other.get("/batches").status_code == 200
    browser.post("/logout", page="/batches")
    other.set_cookie("purge_session", copied)
    assert "/login" in other.get("/batches").location


def test_every_stage_sends_you_to_where_the_batch_is(signed_in):
    browser = signed_in()
    add_customer("ann@people.com")
    db.session.commit()
    url = at_review(browser, "ann@people.com")
    for stage in ("mapping", "checking", "progress", "summary", ""):
        assert browser.get(f"{url}/{stage}".rstrip("/")).location == f"{url}/review"


def test_a_second_click_on_the_red_button_changes_nothing(signed_in):
    browser = signed_in()
    add_customer("ann@people.com")
    db.session.commit()
    url = at_review(browser, "ann@people.com")
    shown = plan(browser, url)
    for _ in range(2):
        assert browser.post(f"{url}/confirmation", shown, page="/batches").location == f"{url}/progress"
    work(batches.run, url)
    assert browser.post(f"{url}/confirmation", shown, page="/batches").location == f"{url}/summary"
    assert batches.progress(batch_at(url)).outcomes[Outcome.PURGED] == 1


def test_confirming_another_plan_than_the_one_shown_deletes_nobody(signed_in):
    browser = signed_in()
    add_customer("ann@people.com")
    db.session.commit()
    url = at_review(browser, "ann@people.com")
    answer = browser.post(f"{url}/confirmation", {"plan": "f" * 64}, page=f"{url}/review")
    assert answer.status_code == 422 and "not the plan you were shown" in answer.text
    assert batch_at(url).state is State.READY


def test_a_wrong_number_is_said_on_the_page(signed_in):
    browser, lines = signed_in(), [f"p{n}@people.com" for n in range(11)]
    for line in lines:
        add_customer(line)
    db.session.commit()
    url = at_review(browser, *lines)
    answer = browser.post(f"{url}/confirmation", {**plan(browser, url), "typed": "12"}, page=f"{url}/review")
    assert answer.status_code == 422 and "Type the number of customers to delete: 11" in answer.text
    answer = browser.post(f"{url}/confirmation", {**plan(browser, url), "typed": "1" * 5_000}, page=f"{url}/review")
    assert answer.status_code == 422


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'Email\n"ann@people.com\n', "opened in line 2 is never closed"),
        (b"PK\x03\x04", "a spreadsheet"),
        (b"Email\n", "no data rows"),
    ],
)
def test_a_refused_file_is_said_at_the_drop_zone_and_nothing_is_stored(signed_in, content, words):
    answer = send(signed_in(), content)
    assert answer.status_code == 422 and words in answer.text and "Nothing was stored" in answer.text
    assert db.session.scalar(select(func.count()).select_from(Batch)) == 0
    assert db.session.scalar(select(func.count()).select_from(UploadPart)) == 0


@pytest.mark.parametrize(
    ("address", "page"),
    [
        ("/uploads", "/settings/upload-tags"),
        ("/customers/found", "/customers"),
        ("/batches/7/confirmation", "/batches/7"),
        ("/settings/sftp-connections/7/host-keys/fetch", "/settings/sftp-connections/7"),
        ("/search/offers", "/"),
    ],
)
def test_an_address_that_only_takes_clicks_leads_to_where_its_button_stands(signed_in, address, page):
    assert signed_in(Role.VIEWER).get(address).location == page


def test_who_signs_in_again_comes_back_to_the_list_as_it_was_filtered(app, visitor):
    shown = {"HX-Request": "true", "HX-Current-URL": "http://localhost/customers?emails=off"}
    answer = visitor.client.get("/customers/7", headers=shown)
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (401, "/login?next=/customers?emails%3Doff")


def test_a_click_after_the_session_has_ended_is_told_to_have_done_nothing(signed_in):
    browser, nothing = signed_in(), "Nothing was done by your last click"
    url = uploaded(browser, "ann@people.com")
    browser.client.delete_cookie("purge_session")
    for path, page in [
        (f"{url}/discard", url),
        (f"{url}/mapping", f"{url}/mapping"),
        ("/customers/1/emails", "/customers/1"),
    ]:
        answer = browser.post(path)
        assert answer.location == f"/login?next={page}"
        assert nothing in browser.get(answer.location).text and nothing not in browser.get(answer.location).text
    shown = {"HX-Request": "true", "HX-Current-URL": "http://localhost/customers/7"}
    to_login = browser.post("/customers/7/purge", headers=shown).headers["HX-Redirect"]
    assert to_login == "/login?next=/customers/7" and nothing in browser.get(to_login).text
    browser.post("/customers/found", headers=shown)  # which only asks
    assert nothing not in browser.get(to_login).text


def test_no_file_and_no_action_are_said_in_words(signed_in):
    browser = signed_in()
    assert "Choose a CSV file first" in browser.post("/uploads", PURGE, page="/settings/upload-tags").text
    assert "Choose what should happen" in browser.post("/uploads", {}, page="/settings/upload-tags").text


def test_of_several_files_at_once_none_is_taken(signed_in):
    files = [(io.BytesIO(f"Email\n{name}@people.com\n".encode()), f"{name}.csv") for name in ("ann", "ben")]
    answer = signed_in().post("/uploads", {**PURGE, "file": files}, page="/settings/upload-tags")
    assert answer.status_code == 422 and "Send one file at a time." in answer.text
    assert db.session.scalar(select(Batch.id)) is None


def test_a_file_beyond_the_limit_of_a_form_gets_a_page(app, signed_in):
    app.config["MAX_CONTENT_LENGTH"] = 2_000
    answer = send(signed_in(), b"Email\n" + b"ann@people.com\n" * 1_000)
    assert answer.status_code == 413 and "Send it in parts" in answer.text


def test_only_of_an_upload_is_it_said_to_send_it_in_parts(signed_in):
    large = {"receipt": (io.BytesIO(b"{}" * 2_000_000), "receipt.json")}
    answer = signed_in().post("/check-a-receipt", large, page="/check-a-receipt")
    assert answer.status_code == 413 and "more than this page takes" in answer.text and "in parts" not in answer.text


def test_the_template_file_is_a_file_that_can_be_mapped(signed_in):
    answer = signed_in().get("/settings/upload-tags/template.csv")
    assert answer.text == "Customer Email\r\n" and "attachment" in answer.headers["Content-Disposition"]


def test_the_mapping_shows_errors_at_their_cells_with_the_spreadsheets_numbers(signed_in):
    browser = signed_in()
    answer = send(browser, b"Name,Email\nAnn,ann@people.com\n\nBen,ben.people.com\n")
    page = browser.get(answer.location).text
    assert '<th scope="row">4</th>' in page and "missing @" in page and "1 row with errors" in page
    assert 'name="upload"' in page and "1 blank row" in page
    wrong = browser.get(f"{answer.location}/rows?column=0").text
    assert 'name="upload"' not in wrong and "No row has a valid address" in wrong


def test_a_row_for_something_else_is_no_purge_unless_somebody_says_so(signed_in):
    browser, types = signed_in(), ("purge", "unsubscribe", " Purge ")
    addresses = [f"{name}@people.com" for name in ("ann", "ben", "cy")]
    for address in addresses:
        add_customer(address)
    lines = [f"{address},{type}" for address, type in zip(addresses, types, strict=True)]
    content = "\n".join(["Email,Type", *lines, ""]).encode()
    told = []
    for said in ({}, {"any_type": "yes"}):
        page = send(browser, content).location
        browser.post(page, {"column": "0", **said}, page=page)
        work(batches.check, page.removesuffix("/mapping"))
        told.append(batch_at(page.removesuffix("/mapping")).planned)
        review = browser.get(page.replace("mapping", "review")).text
        assert ("Every row counts, whatever its type" in review) is bool(said)
    assert told == [2, 3]
    page = send(browser, content).location
    for address in (page, f"{page}/rows?column=0"):
        shown = browser.get(address).text
        assert "2</b> of the first 3 rows are valid" in shown
        assert 'class="bad-cell">unsubscribe<span class="problem">its type is not purge' in shown
    assert "whatever their type" in browser.get(page).text
    whatever = browser.get(f"{page}/rows?column=0&any_type=yes").text
    assert "3</b> of the first 3 rows are valid" in whatever and "problem" not in whatever
    trail = browser.get("/audit-trail").text
    assert trail.count("Column 1 holds the addresses") == 2 and trail.count("s type does not count") == 1


def test_a_file_may_begin_with_rows_for_something_else(signed_in):
    """To let somebody purge those as well would be the only way on."""
    browser = signed_in()
    add_customer("zoe@people.com")
    others = "".join(f"p{n}@people.com,unsubscribe\n" for n in range(100))
    page = send(browser, f"Email,Type\n{others}zoe@people.com,purge\n".encode()).location
    shown = browser.get(page).text
    assert "100 rows with errors" in shown and 'name="upload"' in shown
    browser.post(page, {"column": "0"}, page=page)
    work(batches.check, page.removesuffix("/mapping"))
    assert batch_at(page.removesuffix("/mapping")).planned == 1
    nobody = browser.get(send(browser, f"Email,Type\n{others}".encode()).location).text
    assert 'name="upload"' not in nobody and "and “purge” as its type" in nobody


@pytest.mark.parametrize("type", ["", " ", "purged", "no purge"])
def test_only_the_word_itself_is_the_type(signed_in, type):
    browser = signed_in()
    wide = ",".join(f"column {n}" for n in range(40))
    page = send(browser, f"Email,{wide},TYPE\nann@people.com{',x' * 40},{type}\nshort\n".encode()).location
    shown = browser.get(page).text
    assert "its type is not purge" in shown and 'name="upload"' not in shown
    without_javascript = browser.post(page, {"column": "0", "any_type": "yes", "show": ""}, page=page).text
    assert "1</b> of the first 2 rows is valid" in without_javascript and 'value="yes" checked' in without_javascript


def test_two_columns_that_say_what_a_row_is_for_are_one_too_many(signed_in):
    browser = signed_in()
    add_customer("ann@people.com")
    page = send(browser, b"Email,type,Type_\nann@people.com,purge,unsubscribe\n").location
    shown = browser.get(page).text
    assert "two columns called “type”" in shown and 'name="upload"' not in shown
    refused = browser.post(page, {"column": "0"}, page=page)
    assert refused.status_code == 422 and "two columns called “type”" in refused.text
    assert browser.post(page, {"column": "0", "any_type": "yes"}, page=page).status_code == 303


def test_of_a_wide_file_the_first_columns_are_shown_and_the_chosen_one(signed_in):
    browser = signed_in()
    header, row = [f"column {n}" for n in range(1_000)], [f"cell {n}" for n in range(999)]
    url = send(browser, f"{','.join(header)}\n{','.join([*row, 'ann.people.com'])}\n".encode()).location
    page = browser.get(f"{url}/rows?column=999").text
    assert "cell 0<" in page and "cell 500<" not in page and "969 further columns" in page and "missing @" in page


def test_two_likely_columns_are_left_to_the_admin(signed_in):
    browser = signed_in()
    url = send(browser, b"E-mail,Mail\na@people.com,b@people.com\n").location
    assert "Choose a column first" in browser.get(url).text
    assert browser.post(url, {"column": ""}, page=url).status_code == 422
    assert browser.post(url, {"column": "7"}, page=url).status_code == 422
    assert browser.post(url, {"column": "1"}, page=url).status_code == 303


def test_a_column_that_was_chosen_is_still_chosen_when_the_page_is_loaded_anew(signed_in):
    browser = signed_in()
    url = send(browser, b"Name,Email\nAnn,ann@people.com\n").location
    assert '<option value="1" selected>Email' in browser.get(url).text
    chosen = browser.get(f"{url}/rows?column=0").headers["HX-Replace-Url"]
    assert chosen.startswith(url) and '<option value="0" selected>Name' in browser.get(chosen).text


def test_what_a_viewer_sees_of_the_rows_stays_as_it_is(signed_in):
    """They cannot choose a column, so to ask again would lose it."""
    url, asks = send(signed_in(), b"Name,Email\nAnn,ann.people.com\n").location, "hx-get="
    page = signed_in(Role.VIEWER).get(url).text
    assert "missing @" in page and asks not in page and asks in signed_in().get(url).text


def test_without_javascript_another_column_is_shown_by_the_form(signed_in):
    browser = signed_in()
    url = send(browser, b"Name,Email\nAnn,ann@people.com\n").location
    page = browser.post(url, {"column": "0", "show": ""}, page=url).text
    assert "No row has a valid address" in page


def test_windows_1252_goes_nowhere_without_a_yes(signed_in):
    browser = signed_in()
    url = send(browser, "Email,Name\nzoe@people.com,Zoë\n".encode("cp1252")).location
    page = browser.get(url).text
    assert "Zoë" in page and 'name="upload"' not in page
    assert browser.post(url, {"column": "0"}, page=url).status_code == 422
    assert 'name="upload"' in browser.get(f"{url}/rows?column=0&encoding_agreed=yes").text
    assert browser.post(url, {"column": "0", "encoding_agreed": "yes"}, page=url).status_code == 303


def test_cells_are_shown_as_text(signed_in):
    browser = signed_in()
    url = send(browser, b"Email,<i>Name</i>\na@people.com,<script>alert(1)</script>\n", "<b>x</b>.csv").location
    page = browser.get(url).text
    assert "<script>alert" not in page and "<i>Name" not in page and "<b>x" not in page


def test_discarding_ends_in_a_page_that_says_so(signed_in):
    browser = signed_in()
    url = uploaded(browser, "ann@people.com")
    assert browser.post(f"{url}/discard", page=f"{url}/mapping").location == f"{url}/summary"
    assert "nobody was deleted" in browser.get(f"{url}/summary").text


@pytest.mark.parametrize(
    ("part", "whole", "words"),
    [
        (2, 3_000_000, "less than 0.01 %"),
        (1, 3_000, "0.033 %"),
        (1, 40, "2 %"),
        (1_190, 1_208, "99 %"),
        (1_204, 1_208, "more than 99 %"),
        (1_208, 1_208, "100 %"),
    ],
)
def test_a_share_is_never_nothing_and_never_all_unless_it_is(part, whole, words):
    assert share(part, whole) == words


def test_a_dry_run_is_said_to_be_answered_only_where_it_was_checked(signed_in):
    browser, answered = signed_in(), "Its answer is on the SFTP server"
    urls = [uploaded(browser, "ann@people.com"), at_review(browser, "nobody@people.com"), at_review(browser, "a@b.com")]
    db.session.execute(update(Batch).values(is_dry=True, state=State.DISCARDED))
    db.session.commit()
    told = [answered in browser.get(f"{url}/summary").text for url in urls]
    assert told == [False, True, True] and browser.get("/batches").text.count(">dry run<") == 2
    db.session.execute(update(Batch).values(stopped_by_id=batch_at(urls[0]).created_by_id))
    db.session.commit()
    assert answered not in browser.get(f"{urls[1]}/summary").text and ">dry run<" not in browser.get("/batches").text


def test_who_was_brought_back_stays_unless_somebody_says_yes_and_it_came_from_the_command_line(app, signed_in):
    ann = add_customer("ann@people.com")
    db.session.commit()
    batch_id = batches.open_returned([(ann, fingerprinter()("ann@people.com"))])
    browser = signed_in()
    assert "it is thrown away, and these people stay" in browser.get(f"/batches/{batch_id}/review").text
    assert "<td>Command line</td>" in browser.get("/batches").text


def test_what_was_discarded_after_its_check_still_says_what_it_would_have_done(signed_in):
    browser = signed_in()
    hang_everything_on(add_customer("ann@people.com"), read_map(db.metadata), "mark")
    db.session.commit()
    url = at_review(browser, "ann@people.com", "nobody@people.com", "nobody@people.com")
    browser.post(f"{url}/discard", page=f"{url}/review")
    told = " ".join(re.sub(r"<[^>]+>", " ", browser.get(f"{url}/summary").text).split())
    for words in (
        "Rows checked 3",
        "Would have been deleted 1",
        "Rows without a deletion 2",
        "1 not found",
        "1 duplicate",
    ):
        assert words in told
    assert "nobody was deleted" in told and "1 share link" in told


@pytest.mark.parametrize("ask", ["get", "post"])
def test_the_mapping_of_what_was_discarded_leads_to_the_page_that_says_so(signed_in, ask):
    browser = signed_in()
    url = uploaded(browser, "ann@people.com")
    browser.post(f"{url}/discard", page=f"{url}/mapping")
    again = {"get": browser.get, "post": lambda at: browser.post(at, {"column": "0", "show": "yes"}, page="/batches")}
    assert again[ask](f"{url}/mapping").location == f"{url}/summary"
    part = browser.get(f"{url}/mapping/rows?column=0", headers={"HX-Request": "true"})
    assert (part.status_code, part.headers["HX-Redirect"]) == (200, f"{url}/summary")


@pytest.mark.postgresql  # on SQLite it reads on, as it was
def test_a_mapping_discarded_while_its_page_is_made_leads_to_the_page_that_says_so(signed_in):
    browser = signed_in()
    url = uploaded(browser, "ann@people.com")

    asked = []

    @event.listens_for(db.engine, "before_cursor_execute")
    def discard(_connection, _cursor, statement, *_):
        if "FROM upload_part" in statement and not asked:
            asked.append(statement)
            with db.engine.begin() as other:
                other.execute(delete(UploadPart))
                other.execute(update(Batch).values(state=State.DISCARDED))

    assert browser.get(f"{url}/mapping").location == f"{url}/summary"


def test_pausing_resuming_and_cancelling_from_the_page(signed_in):
    browser = signed_in()
    url = at_progress(browser)
    for act, state in [("pause", State.PAUSED), ("resume", State.RUNNING), ("cancellation", State.CANCELLING)]:
        browser.post(f"{url}/{act}", page=f"{url}/progress")
        assert batch_at(url).state is state
    work(batches.run, url)
    summary = browser.get(f"{url}/summary").text
    assert "Cancelled: nobody was deleted" in summary and "Cancelled by operator" in summary
    assert ">cancelled<" in browser.get("/batches").text


def test_a_click_that_came_too_late_is_told_and_the_second_of_two_is_not(signed_in):
    browser = signed_in()
    url = at_progress(browser)
    refusals = {
        "discard": "Only a batch that nobody confirmed",
        "resume": "Only a paused batch",
        "pause": "Only a running",
    }
    for act, words in refusals.items():
        if act == "resume":
            browser.post(f"{url}/cancellation", page=f"{url}/progress")
        browser.post(f"{url}/{act}", page=f"{url}/progress")
        assert words in browser.get(f"{url}/progress").text
    for _ in range(2):
        browser.post(f"{url}/cancellation", page=f"{url}/progress")
        assert "Only a running" not in browser.get(url, follow_redirects=True).text
        work(batches.run, url)
    other = at_review(browser, "ann@people.com")
    browser.post(f"{other}/confirmation", plan(browser, other), page=f"{other}/review")
    work(batches.run, other)
    browser.post(f"{other}/cancellation", page="/customers")
    assert "Only a running or paused batch can be cancelled" in browser.get(f"{other}/summary").text


def test_the_list_says_who_when_what_and_how_many(signed_in):
    browser = signed_in()
    uploaded(browser, "ann@people.com", "ben@people.com")
    page = browser.get("/batches").text
    assert "people.csv" in page and "@company.com" in page and "waiting for its mapping" in page


def test_a_refused_check_is_said_on_the_summary(signed_in):
    browser = signed_in()
    url = uploaded(browser, "ann@people.com")
    values = {"state": State.REFUSED, "refusal": "The check never ended."}
    db.session.execute(update(Batch).values(values))
    db.session.commit()
    assert "The check never ended." in browser.get(url, follow_redirects=True).text
