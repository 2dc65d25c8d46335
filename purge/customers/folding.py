"""Text as it is looked for: without case and accents. For finding only; who somebody is, purge.email_address says."""

import unicodedata
from functools import cache

# Letters that Unicode does not take apart and people type without their stroke or ligature.
_LETTERS = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i", "ħ": "h"})
# What keyboards and word processors put where another keyboard has ' and -.
_MARKS = dict.fromkeys(map(ord, "‘’ʼʹ´′"), "'") | dict.fromkeys(map(ord, "‐‑‒–—−"), "-")
SHORTEST_INSIDE = 3  # characters: fewer are looked for at the beginning of a word only
_PRIVATE, _PLANE = 0xF0000, 0xFFFE
_CONTROLS = dict.fromkeys(range(32), " ")


def fold(text: str) -> str:
    """Lower case, no accents, nothing invisible; character by character, so that places can be traced back."""
    if text.isascii():
        return text.translate(_CONTROLS).lower()
    return "".join(map(_fold_character, text))


def words(text: str) -> list[str]:
    """The folded words of a text."""
    return fold(text).split()


def search_text(*parts: str | None) -> str:
    """The words of all parts, each with its beginning marked, two spaces before it and one after."""
    return "".join(f"  {at_start(word)} " for part in parts if part for word in words(part))


def sort_text(*parts: str | None) -> str:
    """What a list is ordered by: the folded words' first 24 characters, for every character more makes its index larger."""
    return " ".join(word for part in parts if part for word in words(part))[:24]


def at_start(word: str) -> str:
    """The word, its first character moved into a private plane: so "Mai…" shares no three characters with "gmail"."""
    first = ord(word[0])
    return chr(_PRIVATE + first) + word[1:] if first < _PLANE else word


def spans(text: str, wanted: list[str]) -> list[tuple[int, int]]:
    """Where in `text` the folded words `wanted` stand: (start, end), in order, not overlapping."""
    if text.isascii():
        whole, places = fold(text), range(len(text))  # character for character: the usual case, and a page has hundreds
    else:
        pieces = [fold(character) for character in text]
        whole, places = "".join(pieces), [place for place, piece in enumerate(pieces) for _ in piece]
    stand = []
    for word in wanted:
        at = whole.find(word)
        while at >= 0:
            if len(word) >= SHORTEST_INSIDE or at == 0 or whole[at - 1].isspace():
                stand.append((places[at], places[at + len(word) - 1] + 1))
            at = whole.find(word, at + len(word))
    found: list[tuple[int, int]] = []
    for start, end in sorted(stand):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


@cache
def _fold_character(character: str) -> str:
    character = character.translate(_MARKS)
    apart = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())
    folded = "".join(
        piece for piece in apart if not unicodedata.combining(piece) and unicodedata.category(piece) != "Cf"
    )
    return "".join(
        " " if unicodedata.category(piece) in ("Cc", "Cs") else piece for piece in folded.translate(_LETTERS)
    )
