"""The audit trail, to be read by a person."""

from flask import Blueprint, render_template, request
from sqlalchemy import select

from purge.batches import Door, Outcome
from purge.evidence import audit
from purge.evidence.audit import Act, AuditEvent, Event
from purge.extensions import db
from purge.models import User
from purge.views.formats import plural

blueprint = Blueprint("audit", __name__, url_prefix="/audit-trail")

PAGE = 50
_WORDS = {
    Act.REFUSED: "Refused: its check never came to its end",
    Act.PAUSED: "Paused",
    Act.RESUMED: "Resumed",
    Act.CANCELLED: "The rest was cancelled",
    Act.DISCARDED: "Thrown away; nobody was deleted",
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
    page = [(event, by(event.by, names), _words(event, names)) for event in found[:PAGE]]
    older = found[PAGE - 1].number if len(found) > PAGE else None
    return render_template("audit/every.html", page=page, older=older, before=before, chunks=chunks)


def people() -> dict[int, str]:
    """The addresses of those who sign in here, by the numbers that events have: as the trail says, or else their accounts."""
    added = audit.of_act(db.session.connection(), Act.USER_ADDED)
    sealed = {event.facts["account"]: event.facts["email"] for event in added}
    return dict(db.session.execute(select(User.id, User.email)).all()) | sealed


def by(who: int | str | None, names: dict[int, str]) -> str:
    """Who it was, in words."""
    if isinstance(who, int):
        return names.get(who, f"account {who}")
    return "Purge itself" if who is None else who.capitalize()


def outcomes_in_words(outcomes: dict[str, int]) -> str:
    """As 1,204 purged, 37 not found."""
    return ", ".join(f"{outcomes[one]:,} {one.words}" for one in Outcome if one in outcomes) or "nothing"


def _words(event: Event, names: dict[int, str]) -> str:
    facts = event.facts
    match event.act:
        case None:
            return ""
        case Act.BEGUN:
            accepted = f"; {plural(len(facts['changed']), 'event')} changed before" if facts["changed"] else ""
            return f"The audit trail begins here, with the ledger as it was{accepted}"
        case Act.OPENED:
            return f"Came in by {Door(facts['door']).words}, {plural(facts['rows'], 'row')}"
        case Act.MAPPED:
            whatever_type = ", and a row's type does not count" if facts.get("any_type") else ""
            return f"Column {facts['column']} holds the addresses{whatever_type}"
        case Act.CHECKED:
            nobody = f"; without a deletion: {outcomes_in_words(facts['outcomes'])}" if facts["outcomes"] else ""
            return f"Checked: {plural(facts['planned'], 'customer')} to delete{nobody}"
        case Act.CONFIRMED:
            by_itself = "" if event.by else ", as its SFTP connection allows"
            return f"The purge of {plural(facts['planned'], 'customer')} was confirmed{by_itself}"
        case Act.CHUNK:
            return f"A chunk: {outcomes_in_words(facts['outcomes'])}"
        case Act.FINISHED:
            return f"Ended: {outcomes_in_words(facts['outcomes'])}" if "outcomes" in facts else "Ended"
        case Act.USER_ADDED:
            return f"An account was added: {facts['email']}, {facts['role']}"
        case Act.USER_CHANGED:
            changes = {
                f"now {facts['role']}": facts["role"],
                "a new password": facts["new_password"],
                "closed": facts["closed"],
            }
            told = ", ".join(words for words, is_so in changes.items() if is_so)
            return f"An account was changed: {by(facts['account'], names)}, {told}"
        case _ if "sftp_connection" in facts:
            return _of_connection(event)
        case _:
            return _WORDS.get(event.act, event.act)


def _of_connection(event: Event) -> str:
    facts = event.facts
    fuse = f"up to {plural(facts.get('runs_up_to', 0), 'customer')} a file without a yes"
    changed, paused = facts.get("changed", []), ""
    if facts.get("paused"):
        is_elsewhere = {"host", "port"} & set(changed)
        why = (
            "another server, so its host keys were forgotten"
            if is_elsewhere
            else "a new key, to be let in by the server"
        )
        paused = f"; {why}, and it was paused"
    left = f", and {plural(facts['left'], 'file')} left on its server" if facts.get("left") else ""
    told = {
        Act.CONNECTION_ADDED: f"added; {fuse}",
        Act.CONNECTION_CHANGED: f"changed ({', '.join(changed) or 'nothing'}); {fuse}{paused}",
        Act.CONNECTION_PINNED: f"host keys pinned: {', '.join(facts.get('keys', [])) or 'none'}",
        **_WORDS,
        Act.CONNECTION_REMOVED: f"{_WORDS[Act.CONNECTION_REMOVED]}{left}",
    }
    return f"SFTP connection “{facts['name']}”: {told.get(event.act, event.act)}"
