"""Batches of purge requests: open, map, check, confirm, run, account for. Nothing here commits but the check and the run."""

from purge.batches.account import (
    failures,
    in_words,
    last_moved,
    oldest_pending,
    outcomes,
    progress,
    results,
    results_csv,
    total_outcomes,
    unrecorded,
    waiting_chunks,
    what_falls,
    what_fell,
)
from purge.batches.check import check
from purge.batches.control import (
    TYPED_ABOVE,
    cancel,
    confirm,
    discard,
    end_all_waiting,
    forgotten,
    pause,
    resume,
    waiting_for_yes,
)
from purge.batches.mapping import affected_rows, map_fields, preview
from purge.batches.model import Batch, Door, Ground, NotPossible, Outcome, State, due
from purge.batches.opening import masked, open_csv, seen_before
from purge.batches.receipt import contradicted, has_receipt, receipt
from purge.batches.returned import Returned, open_returned, returned
from purge.batches.run import run
from purge.batches.settle import clear_files, forget_names, settle
from purge.batches.single import open_single, pending_single, purge_of, single_outcome, today, waiting_purge
from purge.batches.single import preview as preview_single
from purge.batches.upload import Lost

__all__ = [
    "TYPED_ABOVE",
    "Batch",
    "Door",
    "Ground",
    "Lost",
    "NotPossible",
    "Outcome",
    "Returned",
    "State",
    "affected_rows",
    "cancel",
    "check",
    "clear_files",
    "confirm",
    "contradicted",
    "discard",
    "due",
    "end_all_waiting",
    "failures",
    "forget_names",
    "forgotten",
    "has_receipt",
    "in_words",
    "last_moved",
    "map_fields",
    "masked",
    "oldest_pending",
    "open_csv",
    "open_returned",
    "open_single",
    "outcomes",
    "pause",
    "pending_single",
    "preview",
    "preview_single",
    "progress",
    "purge_of",
    "receipt",
    "results",
    "results_csv",
    "resume",
    "returned",
    "run",
    "seen_before",
    "settle",
    "single_outcome",
    "today",
    "total_outcomes",
    "unrecorded",
    "waiting_chunks",
    "waiting_for_yes",
    "waiting_purge",
    "what_falls",
    "what_fell",
]
