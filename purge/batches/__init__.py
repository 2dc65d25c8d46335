"""Batches of purge requests: open, map, check, confirm, run, account for. Nothing here commits but the check and the run."""

from purge.batches.account import failures, outcomes, progress, results, waiting_chunks, what_falls, what_fell
from purge.batches.check import check
from purge.batches.control import TYPED_ABOVE, cancel, confirm, discard, forgotten, pause, resume
from purge.batches.mapping import affected_rows, map_fields, preview
from purge.batches.model import Batch, Door, NotPossible, Outcome, State
from purge.batches.opening import open_csv, seen_before
from purge.batches.run import run
from purge.batches.settle import settle

__all__ = [
    "TYPED_ABOVE",
    "Batch",
    "Door",
    "NotPossible",
    "Outcome",
    "State",
    "affected_rows",
    "cancel",
    "check",
    "confirm",
    "discard",
    "failures",
    "forgotten",
    "map_fields",
    "open_csv",
    "outcomes",
    "pause",
    "preview",
    "progress",
    "results",
    "resume",
    "run",
    "seen_before",
    "settle",
    "waiting_chunks",
    "what_falls",
    "what_fell",
]
