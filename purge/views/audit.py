"""The audit trail, to be read by a person."""

from flask import Blueprint, render_template, request
from sqlalchemy import select

from purge.batches import Door, Outcome
from purge.evidence import audit
from purge.evidence.audit import Act, AuditEvent
from purge.extensions import db
from purge.models import User
from purge.pickup import SftpConnection
from purge.views.formats import plural

blueprint = Blueprint("audit", __name__, url_prefix="/audit-trail")

PAGE = 50
_WORDS = {
    Act.BEGUN: "The audit trail begins here, with the ledger as it was",
    Act.REFUSED: "Refused: its check never came to its end",
    Act.PAUSED: "Paused",
    Act.RESUMED: "Resumed",
    Act.CANCELLED: "The rest was cancelled",
    Act.CONNECTION_PAUSED: "paused",
    Act.CONNECTION_RESUMED: "set to pick up files",
    Act.CONNECTION_REMOVED: "removed",
}


@blueprint.get("")
def every():
    """The newest first; `before` is the number where the page before ended, and `chunks` asks for those too."""
    before, chunks = request.args.get("before", type=int), bool(request.args.get("chunks"))
    here = [AuditEvent.number < before] if before else []
    found = audit.events(*here, *([] if chunks else [AuditEvent.act != Act.CHUNK]), most=PAGE + 1)
    names = people()
    page = [(event, is_sealed, _who(event, names), _words(event, names)) for event, is_sealed in found[:PAGE]]
    older = found[PAGE - 1][0].number if len(found) > PAGE else None
    return render_template("audit/every.html", page=page, older=older, before=before, chunks=chunks)


def people() -> dict[int, str]:
    """The addresses of those who sign in here, by the numbers that events have; there are never many."""
    return dict(db.session.execute(select(User.id, User.email)).all())


def outcomes_in_words(outcomes: dict[str, int]) -> str:
    """As 1,204 purged, 37 not found."""
    return ", ".join(f"{rows:,} {Outcome(outcome).words}" for outcome, rows in outcomes.items()) or "no rows"


def _who(event: AuditEvent, names: dict[int, str]) -> str:
    if event.user_id:
        return names[event.user_id]
    return "The command line" if event.batch_id is None or event.facts.get("door") == Door.CLI else "Purge itself"


def _words(event: AuditEvent, names: dict[int, str]) -> str:
    facts = event.facts
    match event.act:
        case Act.OPENED:
            return f"Came in by {Door(facts['door']).words}, {plural(facts['rows'], 'row')}"
        case Act.CONFIRMED:
            by_itself = ", as its SFTP connection allows" if facts["door"] == Door.SFTP and not event.user_id else ""
            return f"The purge of {plural(facts['planned'], 'customer')} was confirmed{by_itself}"
        case Act.DISCARDED:
            return "Thrown away; nobody was deleted"
        case Act.CHUNK:
            return f"A chunk: {outcomes_in_words(facts['outcomes'])}"
        case Act.FINISHED:
            return f"Ended: {outcomes_in_words(facts['outcomes'])}"
        case Act.USER_ADDED:
            return f"An account was added: {names.get(facts['account'])}, {facts['role']}"
        case Act.USER_CHANGED:
            changes = {
                f"now {facts['role']}": facts["role"],
                "a new password": facts["new_password"],
                "closed": facts["closed"],
            }
            told = ", ".join(words for words, is_so in changes.items() if is_so)
            return f"An account was changed: {names.get(facts['account'])}, {told}"
        case _:
            return _of_connection(event) if "sftp_connection" in facts else _WORDS[event.act]


def _of_connection(event: AuditEvent) -> str:
    facts, connection = event.facts, db.session.get(SftpConnection, event.facts["sftp_connection"])
    fuse = f"up to {plural(facts.get('runs_up_to', 0), 'customer')} a file without a yes"
    told = {
        Act.CONNECTION_ADDED: f"added; {fuse}",
        Act.CONNECTION_CHANGED: f"changed ({', '.join(facts.get('changed', [])) or 'nothing'}); {fuse}",
        Act.CONNECTION_PINNED: f"host keys pinned: {', '.join(facts.get('keys', [])) or 'none'}",
        **_WORDS,
    }
    return f"SFTP connection “{connection.name}”: {told[event.act]}"
