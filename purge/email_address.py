"""One normal form and one verdict for an e-mail address. Every comparison of two addresses is made here, once, in Python."""

import re
import string
import unicodedata
from enum import StrEnum

from email_validator import EmailNotValidError, validate_email

LONGEST = 254

# An address this matches is valid to email-validator, and its normal form is itself in lower case; a property
# test holds the two together. Whatever is out of the ordinary (what may be Punycode; a domain for special
# use) goes to email-validator itself, which takes thirty times as long.
_ATOM = r"[a-z0-9!#$%&'*+/=?^_`{|}~-]++"
_LABEL = r"(?!-|..--)[a-z0-9-]{1,63}+(?<!-)"
_LAST_LABEL = r"(?!-|..--|(?:arpa|invalid|local|localhost|onion|test)\Z)[a-z0-9-]{0,62}[a-z]\Z"
_PLAIN = re.compile(rf"{_ATOM}(?:\.{_ATOM})*+@(?:{_LABEL}\.)+{_LAST_LABEL}")  # `++` gives nothing back: half the time
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


class Problem(StrEnum):
    """What keeps a text from being an address; `words` say it to a person and never quote the text."""

    EMPTY = "empty"
    LINE_BREAK = "line_break"
    SEVERAL = "several"
    NAME_AROUND = "name_around"
    MISSING_AT = "missing_at"
    TWO_ATS = "two_ats"
    NOTHING_BEFORE = "nothing_before"
    NOTHING_AFTER = "nothing_after"
    SPACE = "space"
    NO_DOT = "no_dot"
    STRAY_DOT = "stray_dot"
    TOO_LONG = "too_long"
    BAD_CHARACTER = "bad_character"
    BAD_DOMAIN = "bad_domain"

    @property
    def words(self) -> str:
        return _WORDS[self]


_WORDS = {
    Problem.EMPTY: "no address",
    Problem.LINE_BREAK: "a line break inside",
    Problem.SEVERAL: "more than one address",
    Problem.NAME_AROUND: "more than the bare address",
    Problem.MISSING_AT: "missing @",
    Problem.TWO_ATS: "more than one @",
    Problem.NOTHING_BEFORE: "nothing before the @",
    Problem.NOTHING_AFTER: "nothing after the @",
    Problem.SPACE: "a space inside",
    Problem.NO_DOT: "no dot after the @",
    Problem.STRAY_DOT: "a dot too many",
    Problem.TOO_LONG: "too long",
    Problem.BAD_CHARACTER: "a character that no address has",
    Problem.BAD_DOMAIN: "the part after the @ is no domain that gets mail",
}


def read(text: str) -> tuple[str | None, Problem | None]:
    """The address's normal form, or what is wrong with it.

    Trimmed, NFC, ASCII letters of the local part in lower case, the domain as IDNA 2008 encodes it. No other folding:
    two addresses that may belong to two people never become one.
    """
    text = text.strip()
    if text.isascii():
        lower = text.lower()
        if len(text) <= LONGEST and _PLAIN.match(lower):
            return lower, None
        if text.count("@") != 1 or " " in text:  # to email-validator it is none either
            return None, _problem(text)
    try:
        valid = validate_email(unicodedata.normalize("NFC", text), check_deliverability=False)
    except EmailNotValidError:
        return None, _problem(text)
    return f"{valid.local_part.translate(_LOWER)}@{valid.ascii_domain}", None


def bare(pasted: str) -> str:
    """An address without what mail programs and chats put around it; for looking somebody up, and not for a file."""
    visible = "".join(c for c in pasted if unicodedata.category(c) != "Cf").strip(" \t\r\n.,;")
    inside = re.search(r"<([^<>]*)>\Z", visible)
    return re.sub(r"\Amailto:", "", inside[1] if inside else visible, flags=re.IGNORECASE).strip()


def _problem(text: str) -> Problem:
    """The first thing a person would mend."""
    local, _, domain = text.rpartition("@")
    found = {
        Problem.EMPTY: not text,
        Problem.LINE_BREAK: "\n" in text or "\r" in text,
        Problem.MISSING_AT: "@" not in text,
        Problem.NAME_AROUND: "<" in text or ">" in text or text.lower().startswith("mailto:"),
        Problem.SEVERAL: text.count("@") > 1 and any(mark in text for mark in ",; |/"),
        Problem.TWO_ATS: text.count("@") > 1,
        Problem.NOTHING_BEFORE: not local,
        Problem.NOTHING_AFTER: not domain,
        Problem.SPACE: any(c.isspace() for c in text),
        Problem.TOO_LONG: len(text) > LONGEST or any(len(label) > 63 for label in domain.split(".")),
        Problem.STRAY_DOT: ".." in text or any(part.startswith(".") or part.endswith(".") for part in (local, domain)),
        Problem.NO_DOT: "." not in domain,
        Problem.BAD_CHARACTER: bool(re.search(r"[\"(),:;<>\[\]\\]", text)) or not text.isprintable(),
    }
    return next((problem for problem, is_so in found.items() if is_so), Problem.BAD_DOMAIN)
