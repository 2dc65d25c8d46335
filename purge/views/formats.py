"""How numbers, sizes and times are written."""

from datetime import datetime

from flask import Flask
from markupsafe import Markup

from purge.extensions import now


def register(app: Flask) -> None:
    """Make them known to the templates."""
    app.jinja_env.filters.update(number=number, size=size, duration=duration, moment=moment, ago=ago, plural=plural)


def number(value: int) -> str:
    """1204 as 1,204."""
    return f"{value:,}"


def plural(value: int, one: str, many: str | None = None) -> str:
    """A number and its noun: 1 customer, 1,204 customers."""
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def size(value: int) -> str:
    """Bytes as a person reads them."""
    for unit in ("bytes", "kB", "MB"):
        if value < 1000 or unit == "MB":
            return f"{value:,.0f} {unit}" if unit == "bytes" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 1:
        return "under a second"
    if seconds < 60:
        return plural(round(seconds), "second")
    if seconds < 3600:
        return plural(round(seconds / 60), "minute")
    return f"{plural(int(seconds // 3600), 'hour')} {round(seconds % 3600 / 60)} min"


def moment(value: datetime) -> Markup:
    """A date and time, in UTC."""
    return Markup('<time datetime="{}">{} UTC</time>').format(value.isoformat(), f"{value:%-d %b %Y, %H:%M}")


def ago(value: datetime) -> Markup:
    """How long it is since."""
    since = (now() - value).total_seconds()
    words = "just now" if since < 2 else f"{duration(since)} ago"
    return Markup('<time datetime="{}">{}</time>').format(value.isoformat(), words)
