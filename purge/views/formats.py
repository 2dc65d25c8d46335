"""How numbers, sizes and times are written."""

from datetime import date, datetime
from decimal import Decimal
from html import escape
from shlex import quote

from flask import Flask
from markupsafe import Markup

from purge.customers import spans
from purge.extensions import now
from purge.models import Customer


def register(app: Flask) -> None:
    """Make them known to the templates."""
    app.jinja_env.filters.update(
        number=number,
        size=size,
        duration=duration,
        exactly=exactly,
        moment=moment,
        from_text=datetime.fromisoformat,
        ago=ago,
        plural=plural,
        share=share,
        day=day,
        money=money,
        name=name,
        marked=marked,
        bdi=bdi,
        quoted=quote,
    )


def number(value: int) -> str:
    """1204 as 1,204."""
    return f"{value:,}"


def plural(value: int, one: str, many: str | None = None) -> str:
    """A number and its noun: 1 customer, 1,204 customers."""
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def share(part: int, whole: int) -> str:
    """How much of it that is, in per cent; never nothing, and never all unless it is."""
    percent = 100 * part / whole
    if percent < 0.01:
        return "less than 0.01 %"
    if part < whole and percent >= 99.5:
        return "more than 99 %"
    return f"{percent:.2g} %" if percent < 1 else f"{percent:.0f} %"


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
    minutes = round(seconds / 60)
    return plural(minutes // 60, "hour") + (f" {minutes % 60} min" if minutes % 60 else "")


def exactly(seconds: int) -> str:
    """A duration that somebody set, never rounded to another one."""
    return plural(seconds, "second") if seconds % 60 else duration(seconds)


def moment(value: datetime) -> Markup:
    """A date and time, in UTC."""
    return Markup('<time datetime="{}">{} UTC</time>').format(value.isoformat(), f"{value:%-d %b %Y, %H:%M}")


def ago(value: datetime) -> Markup:
    """How long it is since."""
    since = (now() - value).total_seconds()
    words = "just now" if since < 2 else f"{duration(since)} ago"
    return Markup('<time datetime="{}">{}</time>').format(value.isoformat(), words)


def day(value: date) -> Markup:
    """A date; of a moment, its date in UTC."""
    plain = value.date() if isinstance(value, datetime) else value
    return Markup(f'<time datetime="{plain.isoformat()}">{plain:%-d %b %Y}</time>')  # noqa: S704 - digits and a month


def money(amount: Decimal, currency: str) -> str:
    """An amount with its currency."""
    sign = {"GBP": "£", "EUR": "€", "USD": "$"}.get(currency)
    return f"{sign}{amount:,.2f}" if sign else f"{amount:,.2f} {currency}"


def name(customer: Customer) -> str:
    """How a customer is called here."""
    return " ".join(filter(None, (customer.first_name, customer.surname))) or "A customer without a name"


def bdi(text: str) -> Markup:
    """Somebody's own words inside ours: whichever way they are written, ours stay as they are."""
    return Markup("<bdi>{}</bdi>").format(text)


def marked(text: str, wanted: list[str]) -> Markup:
    """The text, with what was looked for marked in it."""
    pieces, end = [], 0  # of plain strings: Markup looks at every piece again, and a page of the list has hundreds
    for start, stop in spans(text, wanted):
        pieces += [escape(text[end:start]), "<mark>", escape(text[start:stop]), "</mark>"]
        end = stop
    return Markup("".join([*pieces, escape(text[end:])]))  # noqa: S704 - every piece is escaped
