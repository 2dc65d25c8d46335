"""The commands: `flask --help`."""

from flask import Flask

from purge.cli.processes import doctor, drop_server_command, schedule, worker
from purge.cli.purge_csv import purge
from purge.cli.restored import copy_ledger, purge_again
from purge.cli.setup import demo_data, init_db, users
from purge.cli.unfit import refuse_unfit

__all__ = ["refuse_unfit", "register"]


def register(app: Flask) -> None:
    """Add our commands to `flask`."""
    processes = worker, schedule, drop_server_command
    for command in (init_db, users, demo_data, *processes, doctor, purge, copy_ledger, purge_again):
        app.cli.add_command(command)
