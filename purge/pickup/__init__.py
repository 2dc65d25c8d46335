"""Picking dropped files up from SFTP servers, each into a batch of its own."""

from purge.pickup.connections import (
    Step,
    new_private_key,
    pause,
    resume,
    set_private_key,
    test,
    worries,
    worrying,
)
from purge.pickup.model import DroppedFile, FileState, SftpConnection
from purge.pickup.poll import due, let_run, poll

__all__ = [
    "DroppedFile",
    "FileState",
    "SftpConnection",
    "Step",
    "due",
    "let_run",
    "new_private_key",
    "pause",
    "poll",
    "resume",
    "set_private_key",
    "test",
    "worries",
    "worrying",
]
