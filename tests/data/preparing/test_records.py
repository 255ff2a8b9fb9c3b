import pytest

from dimgpt.config import SourceConfig
from dimgpt.data.conversations.formats import names_of, text_of
from dimgpt.data.preparing.items import document_of

TEMPLATE = SourceConfig(name="a", path="x", text_template="{title}\n\n{text}")


def test_a_document_is_the_text_of_its_column_untouched():
    source = SourceConfig(name="a", path="x", text_column="body")
    assert document_of("row 1", {"body": " a\n", "text": "b"}, source) == " a\n"


@pytest.mark.parametrize(
    ("values", "document"),
    [
        ({"title": " Un titre ", "text": "Un texte.\n"}, "Un titre\n\nUn texte."),
        ({"title": None, "text": "Un texte."}, "Un texte."),
        ({"title": "Un titre", "text": ""}, "Un titre"),
        ({"title": "", "text": None}, ""),
        ({"title": "{text} {0}", "text": "{title.__class__}"}, "{text} {0}\n\n{title.__class__}"),
    ],
)
def test_a_template_joins_its_columns_and_reads_nothing_into_them(values, document):
    assert document_of("row 1", values, TEMPLATE) == document


def test_a_template_around_nothing_is_nothing():
    source = SourceConfig(name="a", path="x", text_template="Titre : {title}")
    assert document_of("row 1", {"title": " "}, source) == ""
    assert document_of("row 1", {"title": "A"}, source) == "Titre : A"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text": "a"}, "a.csv, row 3 has no 'title': it has 'text'; correct text_template"),
        ({"title": 3, "text": "a"}, "a.csv, row 3: 'title' is int: it must be text"),
        ({}, "a.csv, row 3 has no 'title': it has nothing; correct text_template"),
    ],
)
def test_a_column_that_is_missing_or_no_text_is_named_with_its_place(values, message):
    with pytest.raises(ValueError, match="row 3") as caught:
        document_of("a.csv, row 3", values, TEMPLATE)
    assert str(caught.value) == message


def test_null_is_no_text_where_it_is_the_whole_document():
    with pytest.raises(ValueError, match="'text' is null"):
        text_of("row 1", {"text": None}, "text")
    assert names_of({"a": 1, "b": 2}) == "'a', 'b'"
