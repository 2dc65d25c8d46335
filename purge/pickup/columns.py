"""Which columns of a dropped file hold the address and the type: nobody is there to be asked."""

import re

from purge import batches
from purge.batches import Batch
from purge.intake.customer_csv import Refused

TYPE = "type"


def columns(batch: Batch, email_column: str) -> tuple[int, int | None]:
    """The column of this name, however it is spaced or written, and the column `type` if there is one; raises Refused."""
    header = [_plain(name) for name in batches.preview(batch, None).header]
    found = [index for index, name in enumerate(header) if name == _plain(email_column)]
    if len(found) != 1:
        how_many = "two columns" if found else "no column"
        raise Refused(f"The file has {how_many} called “{email_column}”. Its first row must hold the columns' names.")
    types = [index for index, name in enumerate(header) if name == TYPE]
    if len(types) > 1:
        raise Refused("The file has two columns called “type”. Rename or remove one of them.")
    return found[0], types[0] if types else None


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()
