"""The commands: `flask --help`."""

from flask import Flask

from purge.cli.processes import doctor, schedule, worker
from purge.cli.purge_csv import purge
from purge.cli.setup import demo_data, init_db, users


def register(app: Flask) -> None:
    """Add our commands to `flask`."""
    for command in (init_db, users, demo_data, worker, schedule, doctor, purge):
        app.cli.add_command(command)
