"""A database that is not what this version needs is refused, in a sentence, before anything is done to it."""

import logging
import time
from itertools import count

from sqlalchemy.exc import DBAPIError, ProgrammingError, SQLAlchemyError

from purge import schema
from purge.config import ConfigError
from purge.extensions import db, reading

log = logging.getLogger(__name__)

LOOK_SECONDS = 2


def refuse_unfit(is_patient: bool = False) -> None:
    """Raises ConfigError where the database is not what this version needs. One out of reach may come back: who is patient,
    because they delete, waits for it."""
    for waited in count():
        try:
            with reading(), db.engine.connect() as connection:
                sentences = schema.missing(connection)
        except ProgrammingError as error:
            raise ConfigError(f"The database does not let itself be looked at: {first_line(error)}.") from None
        except SQLAlchemyError as error:
            if waited == 0:
                does = "waiting for it" if is_patient else "started all the same"
                log.warning("the database is out of reach (%s); %s", type(error).__name__, does)
            if not is_patient:
                return
            time.sleep(LOOK_SECONDS)
        else:
            break
    if sentences:
        raise ConfigError(" ".join(sentences))


def first_line(error: DBAPIError) -> str:
    """Of what the database said; the lines after it may quote a row."""
    return str(error.orig).partition("\n")[0]
