"""The tokenizer that a preset asks for: trained, taken from a file, or fetched from a hub."""

import dataclasses

import pytest

from dimgpt.config import (
    ConversationSourceConfig,
    DataConfig,
    SamplingConfig,
    SourceConfig,
    TokenizerConfig,
)
from dimgpt.generation.generator import TextGenerator
from dimgpt.pipeline.data import prepare_files
from dimgpt.pipeline.models import open_model
from dimgpt.pipeline.training import build_trainer, match_model, save_trained
from dimgpt.pipeline.vocabulary import (
    SAMPLE_NAME,
    make_tokenizer,
    prepare_vocabulary,
    read_sample_count,
)
from dimgpt.presets import PRESETS
from dimgpt.runtime import choose_runtime
from dimgpt.settings import override
from dimgpt.text.byte_level import TOYGPT_SPECIAL_TOKENS, train_byte_level
from dimgpt.workspace import Workspace

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
    other = config(path="hf://openai/gpt2/vocab.json")
    with pytest.raises(FileNotFoundError, match=r"no file 'vocab.json': it has a.bin, tokenizer"):
        make_tokenizer(other, [], endpoint=hub_server.endpoint)


@pytest.mark.slow
def test_a_byte_level_model_goes_from_text_to_text(tmp_path):
    """The shape of toyGPT with a vocabulary of lilLM's kind, prepared, trained, saved, opened."""
    lillm, toygpt = PRESETS["lillm-39m"], PRESETS["toygpt-small"]
    stories = SourceConfig(name="stories", path="demo://stories/300")
    data = override(lillm.data, sources=(stories,), conversations=(), vocab_size=400, num_workers=1)
    sizes = {"vocab_size": 400, "context_length": 32, "embedding_dim": 16, "num_layers": 1}
    heads = {"num_heads": 2, "num_kv_heads": 2, "ffn_dim": 32}
    run = override(
        toygpt.pretraining, max_steps=3, warmup_steps=1, decay_steps=2, checkpoint_interval=3
    )
    preset = dataclasses.replace(
        lillm,
        name="toy",
        data=data,
        model=override(toygpt.model, **sizes, **heads),
        pretraining=run,
    )
    roots = {"data_root": tmp_path / "data", "models_root": tmp_path / "models"}
    workspace = Workspace(preset=preset, **roots)
    prepare_files(workspace, prepare_vocabulary(workspace))
    assert workspace.vocabulary_path.name == "tokenizer.json"
    runtime = choose_runtime("fp32", "cpu")
    trainer = build_trainer(match_model(workspace, "pretraining"), "pretraining", runtime=runtime)
    assert trainer.fit().is_finished
    folder = save_trained(workspace, "pretraining", trainer)
    card = (folder / "README.md").read_text()
    assert "| Held-out texts in the training files | 0 of " in card
    assert "| Sampled tokens copied in runs of 20 and more | " in card
    model, tokenizer = open_model(folder, runtime=runtime)
    sampling = SamplingConfig(temperature=0.0, max_new_tokens=5)
    assert isinstance(TextGenerator(model, tokenizer).complete("Ce matin,", sampling), str)
    assert model.config.positions == "sinusoidal"


@pytest.fixture
def small(tmp_path):
    """The demo with a few stories and conversations, which its vocabulary is trained on."""
    demo = PRESETS["demo"]
    sources = (SourceConfig(name="stories", path="demo://stories/100"),)
    groups = (ConversationSourceConfig(name="talk", path="demo://conversations/100"),)
    data = override(demo.data, sources=sources, conversations=groups, vocab_size=300)
    data = override(data, use_conversations_in_vocabulary=True)
    return Workspace(preset=override(demo, data=data), data_root=tmp_path)


def test_what_a_vocabulary_was_trained_on_is_kept_beside_it(small):
    read = []
    tokenizer = prepare_vocabulary(small, progress=read.append)
    count = read_sample_count(small, tokenizer)
    assert list(count.sources) == ["stories", "talk"]
    assert count.sources.total() == count.characters.total() == read[-1]
    assert count.characters["e"] > count.characters["x"]


def test_the_count_of_another_vocabulary_or_a_damaged_one_is_not_shown(small, gpt_2):
    tokenizer = prepare_vocabulary(small)
    assert not read_sample_count(small, gpt_2).sources
    path = small.data_folder / SAMPLE_NAME
    for content in (b"{", b"[]", b"null"):
        path.write_bytes(content)
        assert not read_sample_count(small, tokenizer).sources
    path.unlink()  # as beside a vocabulary of an older version
    assert not read_sample_count(small, tokenizer).sources


def test_a_ready_vocabulary_has_no_count(small, gpt_2, tmp_path):
    gpt_2.save(tmp_path / "tokenizer.json")
    kind = TokenizerConfig(kind="byte_level", path=str(tmp_path / "tokenizer.json"))
    data = dataclasses.replace(small.preset.data, tokenizer=kind, conversations=())
    preset = override(small.preset, data=override(data, vocab_size=gpt_2.vocab_size))
    prepare_vocabulary(override(small, preset=preset))
    assert not (small.data_folder / SAMPLE_NAME).exists()
