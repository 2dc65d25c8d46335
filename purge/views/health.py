"""For machines: is it up, may it be sent work, and how is it. Open to those who ask, so it tells no words and no names."""

import hmac
from contextlib import suppress

from flask import Blueprint, Response, abort, current_app, jsonify, request
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
    generate_latest,
)
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from jobs import health
from purge import batches
from purge.batches import Batch, Outcome, State
from purge.extensions import db

blueprint = Blueprint("health", __name__)
disable_created_metrics()  # they would say when somebody looked, and not since when is counted


@blueprint.get("/healthz")
def up():
    """This process answers; nothing else is asked."""
    return Response("up\n", mimetype="text/plain")


@blueprint.get("/readyz")
def ready():
    """200 when everything an installation needs is as it should be, else 503; `flask doctor` says it in words."""
    findings = health.look()
    is_ready = all(finding.is_well for finding in findings)
    checks = {finding.name: finding.is_well for finding in findings}
    return jsonify(ready=is_ready, checks=checks), 200 if is_ready else 503


@blueprint.get("/metrics")
def metrics():
    """For Prometheus, with METRICS_TOKEN as its bearer token; not there where none is set."""
    token = current_app.config["METRICS_TOKEN"]
    if not token:
        abort(404)
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if not hmac.compare_digest(given.encode(), token.encode()):
        abort(401)
    return Response(generate_latest(_measured()), content_type=CONTENT_TYPE_LATEST)


def _measured() -> CollectorRegistry:
    registry = CollectorRegistry()
    well = Gauge("purge_well", "1 where this is as it should be", ["part"], registry=registry)
    value = Gauge(
        "purge_part",
        "Workers listening; seconds since a batch moved (of files or of single customers) or was confirmed; else as purge_well",
        ["part"],
        registry=registry,
    )
    found = {finding.name: finding for finding in health.look()}
    for finding in found.values():
        well.labels(finding.name).set(finding.is_well)
        value.labels(finding.name).set(finding.value)
    if found["database"].is_well:
        with suppress(SQLAlchemyError):  # which is told above
            _count(registry)
    return registry


def _count(registry: CollectorRegistry) -> None:
    states = Gauge("purge_batches", "Batches by state", ["state"], registry=registry)
    counted = dict(db.session.execute(select(Batch.state, func.count()).group_by(Batch.state)).all())
    for state in State:
        states.labels(state.value).set(counted.get(state, 0))
    rows = Counter("purge_requests", "Purge requests by outcome, of every batch", ["outcome"], registry=registry)
    totals = batches.total_outcomes()
    for outcome in Outcome:
        rows.labels(outcome.value).inc(totals[outcome])
