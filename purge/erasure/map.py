"""The erasure map: what becomes of every column when a customer is purged, said beside the column itself."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Column, ColumnElement, MetaData, Table

CUSTOMER = "customer"


class Action(StrEnum):
    DELETE = "delete"
    ANONYMISE = "anonymise"
    KEEP = "keep"


@dataclass(frozen=True)
class Rule:
    """What becomes of a table or a column, and why; `to` is what an anonymised column is set to, an SQL expression or None."""

    action: Action
    why: str
    to: ColumnElement | None = None
    told: tuple[str, str] | None = None  # after a 1, and after other numbers: how it is announced before a purge


def delete(why: str, told: tuple[str, str] | None = None) -> dict[str, Any]:
    """The row goes (a table's rule)."""
    return {"erasure": Rule(Action.DELETE, why, told=told)}


def anonymise(why: str, *, to: ColumnElement | None = None, told: tuple[str, str] | None = None) -> dict[str, Any]:
    """The row stays; the column is emptied, or set to `to`."""
    return {"erasure": Rule(Action.ANONYMISE, why, to, told)}


def keep(why: str) -> dict[str, Any]:
    """Nobody can be found by it."""
    return {"erasure": Rule(Action.KEEP, why)}


@dataclass(frozen=True)
class TableErasure:
    """One table's part in a purge: `links` are its foreign keys to the customer."""

    table: Table
    rule: Rule
    links: tuple[Column, ...]

    @property
    def is_shared(self) -> bool:
        """Whether a row may be of two customers; then its foreign keys wait for the transaction's end."""
        return len(self.links) > 1

    @property
    def emptied(self) -> list[Column]:
        """The columns that are emptied, but for the links."""
        return [column for column, to in self._anonymised() if to is None and column not in self.links]

    @property
    def replaced(self) -> dict[Column, ColumnElement]:
        """The columns whose value gives way to another, and to which."""
        return {column: to for column, to in self._anonymised() if to is not None}

    def _anonymised(self) -> Iterator[tuple[Column, ColumnElement | None]]:
        for column in self.table.columns:
            rule = column.info["erasure"]
            if rule.action is Action.ANONYMISE:
                yield column, rule.to


@dataclass(frozen=True)
class ErasureMap:
    """The tables that hold something of a customer, leaves first; the customer itself stands apart."""

    customer: Table
    tables: tuple[TableErasure, ...]


def read_map(metadata: MetaData) -> ErasureMap:
    """The map as the columns' own rules say it."""
    customer = metadata.tables[CUSTOMER]
    tables = []
    for table in reversed(metadata.sorted_tables):
        links = tuple(column for column in table.columns if column.references(customer.c.id))
        if links and table is not customer:
            tables.append(TableErasure(table, table.info["erasure"], links))
    return ErasureMap(customer, tuple(tables))
