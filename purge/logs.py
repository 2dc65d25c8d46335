"""What the processes write about themselves: a JSON object a line, with the id of the request, and nobody's data."""

import json
import logging
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime

from purge.config import CHECKOUT

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def begin() -> None:
    """From now on this process logs so, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("purge").setLevel(logging.INFO)
    logging.getLogger("jobs").setLevel(logging.INFO)


class Lines(logging.Formatter):
    """Of an error its kind and where it came from: its text may quote the values it failed on, and those are people."""

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": "an error" if record.exc_info else record.getMessage().partition("\n")[0],  # RQ adds what failed
            "request_id": request_id.get(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0]:
            told["error"] = record.exc_info[0].__name__
            frames = traceback.extract_tb(record.exc_info[2])
            told["where"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames if _is_ours(frame)]
        return json.dumps({key: value for key, value in told.items() if value is not None}, ensure_ascii=False)


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith(str(CHECKOUT)) and "site-packages" not in frame.filename
