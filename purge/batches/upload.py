"""An uploaded file, kept with its batch only until the check has read it, and sealed for as long as it is kept."""

import hmac
import io
from collections.abc import Callable
from typing import BinaryIO

from flask import current_app
from sqlalchemy import Connection, Row, Select, delete, insert, select

from purge.batches.model import Batch, UploadPart
from purge.sealing import Seal

PART_BYTES = 1 << 20


class Lost(Exception):
    """The file ends before its last byte: it was destroyed, or a part of it is not there."""


def store(connection: Connection, batch_id: int, stream: BinaryIO) -> None:
    """Seal the stream, piece by piece, into the database."""
    seal = Seal("upload")
    for number, part in enumerate(iter(lambda: stream.read(PART_BYTES), b"")):
        sealed = seal.close(part, _place(batch_id, number))
        connection.execute(insert(UploadPart).values(batch_id=batch_id, number=number, sealed=sealed))


def open_upload(batch: Batch | Row, scalar: Callable[[Select], bytes | None]) -> BinaryIO:
    """The bytes as they came, read piece by piece through `scalar`, which asks the database for one value; raises Lost."""
    return io.BufferedReader(_Upload(batch.id, batch.file_bytes, scalar), PART_BYTES)


def destroy(connection: Connection, batch_id: int) -> None:
    """The file is gone for good."""
    connection.execute(delete(UploadPart).where(UploadPart.batch_id == batch_id))


def content_digest(stream: BinaryIO) -> bytes:
    """Knows the same file again. Keyed: the plain hash of a file with one address in it is as good as the address."""
    digest = hmac.new(current_app.config["LEDGER_KEY"], digestmod="sha256")
    for block in iter(lambda: stream.read(PART_BYTES), b""):
        digest.update(block)
    return digest.digest()


class _Upload(io.RawIOBase):
    def __init__(self, batch_id: int, size: int, scalar: Callable[[Select], bytes | None]):
        self.batch_id, self.missing, self.scalar = batch_id, size, scalar
        self.seal, self.number, self.rest = Seal("upload"), 0, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        if not self.rest:
            self.rest = memoryview(self._next_part())
        size = min(len(buffer), len(self.rest))
        buffer[:size], self.rest = self.rest[:size], self.rest[size:]
        return size

    def _next_part(self) -> bytes:
        if not self.missing:
            return b""
        wanted = select(UploadPart.sealed).where(UploadPart.batch_id == self.batch_id, UploadPart.number == self.number)
        sealed = self.scalar(wanted)
        if sealed is None:
            raise Lost
        part = self.seal.open(sealed, _place(self.batch_id, self.number))
        self.number += 1
        self.missing -= len(part)
        return part


def _place(batch_id: int, number: int) -> str:
    return f"{batch_id}:{number}"
