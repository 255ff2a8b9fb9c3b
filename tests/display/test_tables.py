import re
from dataclasses import dataclass

import pytest

from dimgpt.display.tables import Bars, ColouredTokens, Scrolling, Table

EVIL = "<script>alert('x')</script>\" onmouseover='y"


def html(shown):
    return shown._repr_html_()


def tags(text):
    return {name.lower() for name in re.findall(r"<\s*([a-zA-Z]+)", text)}


@dataclass(frozen=True)
class Row:
    group_name: str
    num_tokens: int
    ratio: float
    is_kept: bool = True


@pytest.mark.parametrize(
    "shown",
    [
        Table.of({EVIL: EVIL}, title=EVIL),
        Table.of([{EVIL: EVIL}]),
        ColouredTokens(tokens=(EVIL,), ids=(3,), notes=(EVIL,)),
        ColouredTokens(tokens=(EVIL,), ids=(3,), shades=(0.5,)),
        Bars(names=(EVIL,), ratios=(0.5,)),
        Scrolling(text=EVIL, title=EVIL),
    ],
    ids=lambda shown: type(shown).__name__,
)
def test_text_cannot_become_html(shown):
    assert tags(html(shown)) <= {"b", "table", "tr", "th", "td", "div", "span"}
    # An attribute is in single quotes, so those of the text must not be there as they are.
    assert "alert('x')" not in html(shown)
    assert "onmouseover='y" not in html(shown)
    assert "&lt;script&gt;" in html(shown)


@pytest.mark.parametrize(
    "shown",
    [
        Table.of({}),
        Table.of([]),
        Table(header=(), rows=()),
        Table(header=("a", "b"), rows=()),
        ColouredTokens(tokens=(), ids=()),
        Bars(names=(), ratios=()),
    ],
    ids=repr,
)
def test_nothing_to_show_is_shown(shown):
    assert isinstance(str(shown), str)
    assert html(shown).count("<td") == 0


def test_a_table_of_nothing_keeps_its_title():
    assert str(Table.of([], title="Sources")) == "Sources"
    assert "Sources" in html(Table.of([], title="Sources"))


def test_names_and_values_stand_in_columns():
    assert str(Table.of({"a": 1234567, "longer": 0.5}, title="T")) == (
        "T\n  a       1,234,567\n  longer  0.5"
    )


def test_settings_that_matter_come_first_and_a_notebook_folds_the_others():
    table = Table.of({"a": 1, "b": 2, "c": 3}, title="T", first=("c", "a"))
    assert [name for name, _ in table.rows] == ["c", "a", "b"]
    shown, folded = html(table).split("<details><summary>1 more</summary>")
    assert re.findall(r">([a-c])</td>", shown) == ["c", "a"]
    assert re.findall(r">([a-c])</td>", folded) == ["b"]
    assert "details" not in html(Table.of({"a": 1}, first=("a",)))
    with pytest.raises(KeyError):
        Table.of({"a": 1}, first=("b",))


def test_records_stand_under_their_fields_in_words():
    table = Table.of([Row("é", 12_000, 0.25), Row("bb", 1, 1e-9, False)])
    assert table.header == ("group name", "num tokens", "ratio", "is kept")
    assert table.rows == (("é", "12,000", "0.25", "True"), ("bb", "1", "1e-09", "False"))
    assert str(table).splitlines()[0].split() == "group name num tokens ratio is kept".split()
    assert Table.of([{"a b": 1}]).header == ("a b",)


def test_tokens_in_a_terminal_are_divided_by_bars():
    assert str(ColouredTokens(tokens=("Le", " chat"), ids=(1, 2))) == "Le| chat"


def test_a_token_shows_its_id_its_note_and_its_line_break():
    shown = html(ColouredTokens(tokens=("a", "\n"), ids=(7, 4), notes=("loss 1", "loss 2")))
    assert "title='7: loss 1'" in shown
    assert "⏎\n" in shown


def test_a_shade_makes_the_colour_stronger():
    shown = html(ColouredTokens(tokens=("a", "b"), ids=(1, 2), shades=(0.0, 1.0)))
    strengths = [float(value) for value in re.findall(r"rgba\(\d+,\d+,\d+,([\d.]+)\)", shown)]
    assert strengths == [0.06, 0.80]


def test_a_legend_shows_each_shade_or_the_weakest_and_the_strongest():
    text = {"tokens": tuple("abcdef"), "ids": tuple(range(6)), "legend": "weight <b>"}
    few = html(ColouredTokens(**text, shades=(0.05, 1.0, 1.0, 0.05, 0.0, 0.0)))
    assert "weight &lt;b&gt;" in few
    assert re.findall(r"> ([\d.]+) <", few) == ["0", "0.05", "1"]
    assert "title='1: weight &lt;b&gt; 1'" in few
    many = html(ColouredTokens(**text, shades=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6)))
    assert re.findall(r"> ([\d.]+) <", many) == ["0.1", "0.6"]
    assert "weight" not in html(ColouredTokens(**text))


def test_text_is_dark_on_white_in_every_theme():
    shown = html(ColouredTokens(tokens=("a",), ids=(1,), shades=(1.0,), legend="weight"))
    assert "background:#fff" in shown
    assert shown.count("color:#111") == 3, "the token, the legend and its sample"


def test_tokens_without_an_id_each_are_refused():
    with pytest.raises(ValueError, match="zip"):
        html(ColouredTokens(tokens=("a", "b"), ids=(1,)))


def test_bars_are_as_long_as_their_share():
    lines = str(Bars(names=("a", "bbb"), ratios=(1.0, 0.25))).splitlines()
    assert [line.count("█") for line in lines] == [40, 10]
    assert lines[1].startswith("bbb █")
    assert lines[1].endswith("25.0%")
    assert "width:25.0%" in html(Bars(names=("a",), ratios=(0.25,)))


def test_a_long_text_scrolls_in_a_notebook_and_is_whole_in_a_terminal():
    shown = Scrolling(text="a\n b", title="Long")
    assert "max-height" in html(shown)
    assert "overflow:auto" in html(shown)
    assert "a\n b</div>" in html(shown)
    assert str(shown) == "Long\na\n b"
    assert str(Scrolling(text="a")) == "a"
