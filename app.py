"""create_app(), the command line, and `python app.py`: everything on this machine."""

import gc

gc.disable()  # to look for garbage among what is loaded, and is none, was a sixth of every process's start

import logging
import os
import sys
import tempfile
from collections.abc import Mapping

from flask import Flask
from flask_bootstrap import Bootstrap5
from jinja2 import StrictUndefined
from werkzeug.middleware.proxy_fix import ProxyFix

from purge import cli, logs, pickup, views  # noqa: F401 its tables belong to the schema
from purge.config import CHECKOUT, SESSION, ConfigError, load_config
from purge.customers import search_index
from purge.extensions import db, limiter, login_manager, migrate, prepare_postgresql, prepare_sqlite
from purge.pace import share_one_heap

# Nor will any of it ever be: to look through it again and again was a fifth of a check's time, and half a second at the end
# of every process.
gc.freeze()
gc.enable()

APP_LOAD_ERROR = 4  # to gunicorn: no other worker would do better


def create_app(environ: Mapping[str, str] = os.environ) -> Flask:
    """The app with these settings; raises ConfigError."""
    config = load_config(environ)
    share_one_heap()  # before anything here begins a thread
    tempfile.tempdir = f"{config['INSTANCE_PATH']}/tmp"  # a form's file spills into our own folder and nowhere else
    os.environ["SQLITE_TMPDIR"] = tempfile.tempdir
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # it logs names of files; our own sentences say the rest
    app = Flask(__name__, instance_path=config["INSTANCE_PATH"])
    app.config.update(config)
    app.jinja_env.undefined = StrictUndefined
    if config["PROXIES"]:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=config["PROXIES"], x_proto=0, x_host=0)
    db.init_app(app)
    migrate.init_app(app, db, directory=str(CHECKOUT / "migrations"), render_as_batch=True)
    Bootstrap5(app)
    login_manager.init_app(app)
    limiter.init_app(app)
    views.register(app)
    cli.register(app)
    with app.app_context():
        if db.engine.dialect.name == "sqlite":
            prepare_sqlite(db.engine)
            search_index.prepare_sqlite(db.engine)
        else:
            prepare_postgresql(db.engine, SESSION)
    return app


def web() -> Flask:
    """The app for gunicorn; where the settings or the database are not what this version needs, that is said and it ends."""
    logs.begin()
    try:
        app = create_app()
        with app.app_context():
            cli.refuse_unfit()
        return app
    except ConfigError as error:
        print(f"Purge cannot start. {error.message}", file=sys.stderr, flush=True)
        sys.exit(APP_LOAD_ERROR)


if __name__ == "__main__":
    import embedded

    try:
        sys.exit(embedded.main(create_app()))
    except ConfigError as error:
        print(f"Purge cannot start. {error.message}", file=sys.stderr)
        sys.exit(error.exit_code)
