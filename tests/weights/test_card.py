import json
from pathlib import Path

import pytest

from dimgpt.config import ModelConfig
from dimgpt.weights.card import Card, Usage, card_text

FULL = Card(
    name="my_model*",
    facts={"Validation bits per byte": "1.234"},
    mixture=({"source": "a<b>|c", "tokens": 12_345, "ratio": 0.25}, {"source": "d", "tokens": 1}),
    training={"batch_size": 16, "adam_betas": (0.9, 0.95), "use_compile": None},
    languages=("fr",),
    licence="mit",
    notes=("Data a: CC BY.",),
)


def test_everything_that_is_known_is_told() -> None:
    text = card_text(FULL, ModelConfig(), has_curves=True)
    for line in (
        'language: ["fr"]',
        'license: "mit"',
        "# my\\_model\\*",
        "| Parameters | 208,929,792 |",
        "| Validation bits per byte | 1.234 |",
        "| Window | 256 tokens |",
        "| a\\<b\\>\\|c | 12,345 | 0.25 |",
        "| d | 1 |  |",
        "![Loss and accuracy](curves.png)",
        "| adam\\_betas | \\[0.9, 0.95\\] |",
        "- Data a: CC BY.",
    ):
        assert line in text.splitlines(), line


def test_what_is_not_known_has_no_line() -> None:
    text = card_text(Card(name="m"), ModelConfig(window_size=None))
    assert "## Data" not in text
    assert "## Training" not in text
    assert "license" not in text
    assert "language:" not in text
    assert "| Window | full |" in text


def test_parts_that_are_not_the_usual_ones_are_told() -> None:
    config = ModelConfig(
        attention_pattern=("window", "window", "window", "full"), qk_norm=True, logit_cap=15.0
    )
    text = card_text(Card(name="m"), config)
    assert "| Window | 256 tokens in 12 of 16 layers, full in the others |" in text
    parts = "attention_pattern=('window', 'window', 'window', 'full'), qk_norm=True, logit_cap=15.0"
    assert f"| Architecture | {parts.replace('_', chr(92) + '_')} |" in text
    assert "Architecture" not in card_text(Card(name="m"), ModelConfig())
    text = card_text(Card(name="m"), ModelConfig(attention_pattern=("full",)))
    assert "| Window | full |" in text


def test_sentences_make_one_list() -> None:
    usage = Usage(text="Open it.", notes=("One.", "Two."))
    text = card_text(Card(name="m"), ModelConfig(), usage=usage)
    assert "Open it.\n\n- One.\n- Two.\n" in text


@pytest.mark.parametrize("hostile", ["a\n# b", "---\nlicense: mit", "](javascript:x)", "<script>"])
def test_a_name_from_elsewhere_stays_one_line_of_text(hostile: str) -> None:
    card = Card(name=hostile, facts={hostile: hostile}, licence=hostile, notes=(hostile,))
    text = card_text(card, ModelConfig())
    header, body = text.split("\n---\n", 1)
    assert [line.split(":")[0] for line in header.splitlines()[1:]] == [
        "license",
        "pipeline_tag",
        "tags",
    ]
    assert "<script>" not in body
    assert len([line for line in body.splitlines() if line.startswith("# ")]) == 1


def test_usage_is_told_with_its_limits() -> None:
    usage = Usage(text="run it", notes=("Not beyond 17 tokens.",), library="gguf", tags=("x",))
    text = card_text(FULL, ModelConfig(), usage=usage)
    assert 'library_name: "gguf"' in text
    assert 'tags: ["dimgpt", "x"]' in text
    assert "run it\n\n- Not beyond 17 tokens." in text


def test_a_card_comes_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    path.write_bytes(FULL.to_json())
    again = Card.from_json(path)
    assert again.mixture == FULL.mixture
    assert card_text(again, ModelConfig()) == card_text(FULL, ModelConfig())


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"facts": []}', '{"mixture": [1]}', '{"notes": [2]}', '{"x": 1}', '{"name": 3}'],
)
def test_a_damaged_card_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "card.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="is no valid model card") as caught:
        Card.from_json(path)
    assert "\n" not in str(caught.value)
    assert json.loads(FULL.to_json())["name"] == "my_model*"
