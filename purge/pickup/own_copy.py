"""A copy on our own disk, for as long as a server or the database is waited for."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from sqlalchemy.exc import OperationalError

from purge.intake.sftp import OurOwn


@contextmanager
def own_copy(of: str) -> Iterator[BinaryIO]:
    """Our own disk and database may fail, and neither file nor server is to blame; the disk often when a copy is closed, and not
    before. Raises OurOwn."""
    try:
        with tempfile.TemporaryFile() as copy:
            yield copy
    except OSError as error:
        raise OurOwn(f"The {of} could not be kept here: {(error.strerror or 'its disk fails').lower()}.") from None
    except OperationalError:
        raise OurOwn(f"The {of} could not be kept here: the app’s own database failed.") from None
