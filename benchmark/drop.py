"""Dropped files, from the SFTP server's folder to their answers: python -m benchmark.drop INSTALLATION FOLDER-OR-CSV"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from app import create_app
from benchmark.river import peak
from jobs.drop_server import USERNAME, Place
from purge import batches, pickup
from purge.batches import Batch, State
from purge.config import CHECKOUT
from purge.extensions import db
from purge.pickup import SftpConnection

SMALL_FILES, SMALL_ROWS = 1_000, 10


def split(file: Path, folder: Path) -> Path:
    """A folder with a thousand small files, of a large one's first rows."""
    folder.mkdir()
    header, *rows = file.read_text().splitlines()[: SMALL_FILES * SMALL_ROWS + 1]
    for number in range(SMALL_FILES):
        some = rows[number * SMALL_ROWS :][:SMALL_ROWS]
        (folder / f"{number:04}.csv").write_text("\n".join([header, *some, ""]))
    return folder


def main(folder: str, dropped: Path) -> dict:
    """Seconds until every file is answered and gone, and peak memory in MB; everything is done by one process."""
    files = list(dropped.iterdir()) if dropped.is_dir() else [dropped]
    app = create_app({"INSTANCE_PATH": folder, "DROP_AGE_SECONDS": "1"})
    with app.app_context(), _server(Path(folder) / "sftp") as (place, port):
        connection_id = _connect(place, port)
        for file in files:
            shutil.copy(file, place.files)
        began = time.perf_counter()
        while any(place.files.glob("*.csv")) or any(place.files.glob(".*.claimed")):
            pickup.poll(connection_id, opened=lambda batch: None)
            for state, act in ((State.CHECKING, batches.check), (State.RUNNING, batches.run)):
                waiting = db.session.scalars(db.select(Batch.id).where(Batch.state == state)).all()
                db.session.rollback()
                for batch_id in waiting:
                    act(batch_id)
        seconds = time.perf_counter() - began
        assert len(list((place.files / "results").glob("*.result.csv"))) == len(files)
        return {"files": len(files), "seconds": seconds, "peak": peak()}


@contextmanager
def _server(folder: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = Place(folder)
    place.prepare(port)
    command = [sys.executable, "-m", "flask", "--app", "app.py", "drop-server", "--port", str(port)]
    environ = {**os.environ, "INSTANCE_PATH": str(folder.parent)}
    with subprocess.Popen(command, cwd=CHECKOUT, env=environ) as process:
        try:
            time.sleep(3)
            yield place, port
        finally:
            process.terminate()


def _connect(place: Place, port: int) -> int:
    connection = SftpConnection(name="benchmark", host="127.0.0.1", port=port, username=USERNAME, folder="/")
    key = place.host_key()
    connection.host_keys, connection.runs_up_to = [f"{key.get_name()} {key.get_base64()}"], 10**7
    pickup.set_private_key(connection, pickup.new_private_key())
    place.let_in(connection.public_key, "benchmark")
    db.session.add(connection)
    db.session.flush()
    connection_id = connection.id
    db.session.commit()
    return connection_id


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
