"""What the processes write about themselves names nobody."""

import io
import json
import logging

import pytest

from purge import logs
from purge.customers import finding
from purge.extensions import db
from tests.people import add_customer


@pytest.fixture
def lines():
    """What is logged, read back."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.Lines())
    loggers = [logging.getLogger(name) for name in ("purge", "app", "rq.worker")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    for logger in loggers:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


def test_a_request_is_one_line_with_its_id_and_without_its_address(app, signed_in, lines):
    browser, person = signed_in(), add_customer("ann@people.com", first_name="Quetzal")
    db.session.commit()
    answer = browser.get(f"/customers/{person}?term=ann@people.com", headers={"X-Request-ID": "from-the-proxy-7"})
    assert answer.headers["X-Request-ID"] == "from-the-proxy-7"
    told = lines()[-1]
    assert told["request_id"] == "from-the-proxy-7" and told["page"] == "customers.profile" and told["status"] == 200
    assert told["method"] == "GET" and told["milliseconds"] > 0
    for word in ("ann@", "Quetzal", f"/{person}"):
        assert word not in json.dumps(lines())


@pytest.mark.parametrize("given", ["", "short", "a" * 65, "ann@people.com", "a b c d e f g h"])
def test_an_id_that_is_none_is_not_taken_over(app, visitor, given):
    own = [visitor.get("/login", headers={"X-Request-ID": given}).headers["X-Request-ID"] for _ in range(2)]
    assert given not in own and own[0] != own[1] and all(len(one) == 32 for one in own)


def test_what_nobody_foresaw_is_logged_once_by_its_kind_and_place(app, signed_in, lines, monkeypatch):
    def broken(_asked):
        raise KeyError("ann@people.com")

    monkeypatch.setattr(finding, "_list", broken)
    app.config["PROPAGATE_EXCEPTIONS"] = False
    assert signed_in().get("/customers").status_code == 500
    errors = [line for line in lines() if line["level"] == "error"]
    assert [line["error"] for line in errors] == ["KeyError"] and "ann@" not in json.dumps(lines())
    assert any("finding.py" in place for place in errors[0]["where"])


def test_what_rq_says_of_a_failed_job_ends_before_the_errors_text(lines):
    logging.getLogger("rq.worker").error("[Job %s]: exception raised\n%s", "run_batch-7", "KeyError: ann@people.com")
    assert lines()[-1]["message"] == "[Job run_batch-7]: exception raised"
