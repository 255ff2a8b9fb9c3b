"""The tokenizer that a preset asks for: trained, taken from a file, or fetched from a hub."""

import pytest

from dimgpt.config import DataConfig, TokenizerConfig
from dimgpt.pipeline.tokenizers import make_tokenizer
from dimgpt.text.byte_level import TOYGPT_SPECIAL_TOKENS, train_byte_level

TEXTS = ["The cat sat on the mat. " * 5, "Le chat mange une souris, été comme hiver. " * 5]


@pytest.fixture(scope="module")
def gpt_2():
    return train_byte_level(TEXTS, 290, special_tokens=("<|endoftext|>",))


def config(vocab_size=300, **options):
    return DataConfig(
        tokenizer=TokenizerConfig(kind="byte_level", **options), vocab_size=vocab_size
    )


def test_a_byte_level_one_is_trained_with_its_special_tokens():
    tokenizer = make_tokenizer(config(special_tokens=("<a>", "</s>"), first_space=True), TEXTS)
    assert tokenizer.tokens[:2] == ("<a>", "</s>")
    assert tokenizer.decode(tokenizer.encode("cat")) == " cat"


def test_a_ready_file_gets_the_tokens_that_the_preset_adds(gpt_2, tmp_path):
    gpt_2.save(tmp_path / "tokenizer.json")
    options = {"path": str(tmp_path / "tokenizer.json"), "special_tokens": TOYGPT_SPECIAL_TOKENS}
    tokenizer = make_tokenizer(config(**options), documents=[])
    assert tokenizer.tokens == (*gpt_2.tokens, *TOYGPT_SPECIAL_TOKENS)


def test_a_ready_one_of_another_kind_or_place_is_refused(gpt_2, tmp_path):
    gpt_2.save(tmp_path / "tokenizer.json")
    other = DataConfig(tokenizer=TokenizerConfig(path=str(tmp_path / "tokenizer.json")))
    with pytest.raises(ValueError, match="is a byte_level tokenizer: kind is 'greedy'"):
        make_tokenizer(other, documents=[])
    with pytest.raises(FileNotFoundError, match="no tokenizer at"):
        make_tokenizer(config(path=str(tmp_path / "no.json")), documents=[])


def test_a_greedy_one_takes_no_special_tokens():
    with pytest.raises(ValueError, match="has its ten special tokens"):
        TokenizerConfig(special_tokens=("<a>",))


def test_a_ready_one_is_fetched_from_a_hub(gpt_2, hub_server, tmp_path):
    hub_server.add("openai/gpt2", {"tokenizer.json": gpt_2.to_bytes(), "a.bin": b"1"})
    options = {"path": "hf://openai/gpt2/tokenizer.json"}
    tokenizer = make_tokenizer(config(**options), [], endpoint=hub_server.endpoint)
    assert tokenizer.fingerprint == gpt_2.fingerprint
    with pytest.raises(FileNotFoundError, match=r"no file 'vocab.json': it has a.bin, tokenizer"):
        options = {"path": "hf://openai/gpt2/vocab.json"}
        make_tokenizer(config(**options), [], endpoint=hub_server.endpoint)
