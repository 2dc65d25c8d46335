"""The commands: `flask --help`."""

from flask import Flask

from purge.cli.copying import copy_ledger
from purge.cli.processes import doctor, drop_server_command, schedule, worker
from purge.cli.purge_csv import purge
from purge.cli.setup import demo_data, init_db, users
from purge.cli.unfit import refuse_unfit

__all__ = ["refuse_unfit", "register"]


def register(app: Flask) -> None:
    """Add our commands to `flask`."""
    for command in (init_db, users, demo_data, worker, schedule, drop_server_command, doctor, purge, copy_ledger):
        app.cli.add_command(command)
