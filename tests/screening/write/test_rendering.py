"""The environment of the templates."""

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from semforensics.screening.write.rendering import TEMPLATES, label, share, signed


def test_values_are_escaped_and_made_visible() -> None:
    """A value is text, in an attribute too; only markup of our own is markup."""
    template = TEMPLATES.from_string('<p title="{{ value }}">{{ value }}{{ ours }}</p>')

    page = template.render(value='"><b>\u202e\x00{{ 1 }}', ours=Markup("<i></i>"))

    shown = "&#34;&gt;&lt;b&gt;\\u202e\\u0000{{ 1 }}"
    assert page == f'<p title="{shown}">{shown}<i></i></p>'


def test_a_value_that_is_not_given_is_an_error() -> None:
    """A template with a misspelt name writes nothing rather than an empty place."""
    with pytest.raises(UndefinedError, match="nmae"):
        TEMPLATES.from_string("{{ nmae }}").render(name="")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("sha256", "SHA-256"),
        ("n_fake", "Number of generated"),
        ("tile_px", "Tile (px)"),
        ("Software tags", "Software tags"),
    ],
)
def test_keys_become_words(key: str, words: str) -> None:
    """A reader sees words; what is words already stays."""
    assert label(key) == words


def test_numbers_are_shown_with_fixed_digits() -> None:
    """A share is never 0 or 1, a score has its sign, and what is not known is a dash."""
    assert [share(value) for value in (0.0, 0.25, 1.0)] == ["< 0.001", "0.250", "> 0.999"]
    assert [signed(value) for value in (1.0, -1.0)] == ["+1.00", "\N{MINUS SIGN}1.00"]
    assert share(None) == signed(None) == "\N{EN DASH}"
