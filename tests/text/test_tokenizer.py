"""One way to open a tokenizer file, whatever its kind."""

import pytest

from dimgpt.text.byte_level import ByteLevelTokenizer, train_byte_level
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.text.tokenizer import TOKENIZER_FILES, Tokenizer


@pytest.mark.parametrize("kind", TOKENIZER_FILES)
def test_any_tokenizer_file_opens_as_its_own_kind(kind, small_tokenizer, tmp_path):
    byte_level = train_byte_level(["The cat sat on the mat, and the cat ate."] * 20, 280)
    saved = {"greedy": small_tokenizer, "byte_level": byte_level}[kind]
    path = tmp_path / TOKENIZER_FILES[kind]
    saved.save(path)
    for given in (path, str(path)):
        opened = Tokenizer.load(given)
        assert type(opened) is {"greedy": GreedyTokenizer, "byte_level": ByteLevelTokenizer}[kind]
        assert opened.fingerprint == saved.fingerprint
        assert opened.encode("the cat") == saved.encode("the cat")


def test_a_vocabulary_opens_under_another_name(small_tokenizer, tmp_path):
    small_tokenizer.save(tmp_path / "words")
    assert Tokenizer.load(tmp_path / "words").tokens == small_tokenizer.tokens


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json", "notes.md"])
@pytest.mark.parametrize("content", [b"", b"a\nb", b"\xff\xfe", b"{}"])
def test_a_file_that_is_no_tokenizer_is_refused_in_one_line(name, content, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=name) as caught:
        Tokenizer.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nothing.txt", "nothing.json", "."])
def test_a_missing_file_and_a_folder_are_refused_in_one_line(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"give the path of a") as caught:
        Tokenizer.load(tmp_path / name)
    assert "\n" not in str(caught.value)
