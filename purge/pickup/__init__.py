"""Picking dropped files up from SFTP servers, each into a batch of its own."""

from purge.pickup.connections import (
    Step,
    bound,
    can_sign_in,
    every,
    look_soon,
    looking_into,
    new_private_key,
    pause,
    remove,
    resume,
    set_private_key,
    test,
    unanswered,
    worries,
    worrying,
)
from purge.pickup.files import about_to_run, forget_names, is_paused
from purge.pickup.model import DroppedFile, FileState, SftpConnection
from purge.pickup.poll import at_rest, due, poll

__all__ = [
    "DroppedFile",
    "FileState",
    "SftpConnection",
    "Step",
    "about_to_run",
    "at_rest",
    "bound",
    "can_sign_in",
    "due",
    "every",
    "forget_names",
    "is_paused",
    "look_soon",
    "looking_into",
    "new_private_key",
    "pause",
    "poll",
    "remove",
    "resume",
    "set_private_key",
    "test",
    "unanswered",
    "worries",
    "worrying",
]
