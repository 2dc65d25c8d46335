"""One normal form, one verdict."""

import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import example, given, settings
from hypothesis import strategies as st

from purge.email_address import _PLAIN, Problem, read


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("ann@people.com", "ann@people.com"),
        ("  Ann.O'Connor+News@People.COM\u00a0", "ann.o'connor+news@people.com"),
        ("José@people.com", "josé@people.com"),
        ("Jose\u0301@people.com", "josé@people.com"),
        ("ÉMILE@people.com", "Émile@people.com"),
        ("\u212aate@people.com", "kate@people.com"),  # NFC itself says that the Kelvin sign is a K
        ("ann@straße.de", "ann@xn--strae-oqa.de"),
        ("ann@xn--strae-oqa.de", "ann@xn--strae-oqa.de"),
        ("ann@STRASSE.de", "ann@strasse.de"),
        ("ann@münchen.de", "ann@xn--mnchen-3ya.de"),
        ("Postmaster@people.com", "postmaster@people.com"),
    ],
)
def test_the_normal_form(text, key):
    assert read(text) == (key, None)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("straße@people.com", "strasse@people.com"),
        ("ſam@people.com", "sam@people.com"),
        ("İda@people.com", "ida@people.com"),
        ("a.nn@people.com", "ann@people.com"),
        ("ann+x@people.com", "ann@people.com"),
        ("ann@straße.de", "ann@strasse.de"),
        ("аnn@people.com", "ann@people.com"),
    ],
)
def test_two_people_never_become_one(one, other):
    assert read(one)[0] != read(other)[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no address"),
        ("   ", "no address"),
        ("ann.people.com", "missing @"),
        ("ann@@people.com", "more than one @"),
        ("@people.com", "nothing before the @"),
        ("ann@", "nothing after the @"),
        ("an n@people.com", "a space inside"),
        ("ann@people", "no dot after the @"),
        ("ann..b@people.com", "a dot too many"),
        (".ann@people.com", "a dot too many"),
        ("ann@people.com.", "a dot too many"),
        ("Ann <ann@people.com>", "more than the bare address"),
        ("ann@people.com, ben@people.com", "more than one address"),
        ("ann@people.com\nben@people.com", "a line break inside"),
        ("ann@" + "p" * 64 + ".com", "too long"),
        ("ann(x)@people.com", "a character that no address has"),
        ("ann@people.local", "the part after the @ is no domain that gets mail"),
        ("ann@127.0.0.1", "the part after the @ is no domain that gets mail"),
    ],
)
def test_what_is_wrong_is_said_in_words(text, words):
    key, problem = read(text)
    assert key is None and problem.words == words


ordinary = st.text("abzAZ09._+-'@!éß \t", min_size=1, max_size=30)
likely = st.builds(
    lambda local, labels: f"{local}@{'.'.join(labels)}",
    st.text("abzAZ09._+-'&é", min_size=1, max_size=70),
    st.lists(st.text("abzAZ09-éß", min_size=1, max_size=66) | st.sampled_from(["xn--a", "test", "com"]), min_size=1),
)


@given(likely | ordinary | st.text(max_size=40))
@settings(max_examples=1500, deadline=None)
@example("a@b.c-d")
@example("a@b.co-")
@example("a@b.1c")
@example("a@xn--strae-oqa.de")
@example("a@ab--cd.com")
@example("a" * 300 + "@people.com")
@example("ann@people.com\n")
def test_the_verdict_is_email_validators(text):
    try:
        theirs = validate_email(text.strip(), check_deliverability=False)
    except EmailNotValidError:
        theirs = None
    key, problem = read(text)
    assert (theirs is None) == (key is None) == (problem is not None)
    if theirs:
        assert key.split("@")[-1] == theirs.ascii_domain
        assert key.rpartition("@")[0].casefold() == theirs.local_part.casefold()


@given(likely)
@settings(max_examples=1500, deadline=None)
def test_the_short_way_is_only_taken_where_it_changes_nothing(text):
    if text.isascii() and len(text) <= 254 and _PLAIN.match(text.lower()):
        theirs = validate_email(text, check_deliverability=False)
        assert f"{theirs.local_part}@{theirs.ascii_domain}".lower() == text.lower()


@given(likely)
def test_the_normal_form_is_its_own_normal_form(text):
    key, _ = read(text)
    if key:
        assert read(key) == (key, None)


@pytest.mark.parametrize("problem", Problem)
def test_every_problem_has_words(problem):
    assert problem.words and "@x" not in problem.words
