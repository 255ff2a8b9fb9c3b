"""The benchmarks' own code: that both sides do the same work, and where results go."""

import json
import sys
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimgpt.text.greedy_tokenizer import GreedyTokenizer

ROOT = Path(__file__).parents[1]
FIXTURES_DIR = ROOT / "tests" / "fixtures" / "dimensiongpt_tokenizer"


@pytest.fixture
def benchmarks(monkeypatch):
    """Import as a script of the folder does."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


@pytest.fixture(scope="module")
def tokenizer():
    return GreedyTokenizer.load(FIXTURES_DIR / "vocab.txt")


def test_the_plain_baseline_gives_the_originals_ids(benchmarks, tokenizer):
    from plain_encoding import encode_plainly

    ids = {token: id for id, token in enumerate(tokenizer.tokens)}
    for line in (FIXTURES_DIR / "cases.jsonl").read_text("utf-8").splitlines():
        case = json.loads(line)
        assert encode_plainly(case["text"], ids) == case["ids"], case["id"]


@pytest.mark.slow
@given(text=st.text(st.sampled_from(" \t\n\r«»’—①❤é12ab!\ufe0f🇫🇷")))
@settings(max_examples=100, deadline=None)
def test_both_sides_and_the_peer_encode_alike(tokenizer, text):
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from data_preparation import wordpiece
        from plain_encoding import encode_plainly
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    ids = {token: id for id, token in enumerate(tokenizer.tokens)}
    expected = tokenizer.encode(text)
    assert encode_plainly(text, ids) == expected
    assert wordpiece(tokenizer)(tokenizer.clean(text)).tolist() == expected


def test_a_result_is_one_line_and_is_kept_on_request(benchmarks, monkeypatch, tmp_path, capsys):
    import reporting

    monkeypatch.setattr(reporting, "__file__", str(tmp_path / "reporting.py"))
    monkeypatch.setattr(sys, "argv", ["claim.py"])
    reporting.report("claim", {"ratio": reporting.spread([3, 1, 2])})
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(sys, "argv", ["claim.py", "--write"])
    reporting.report("claim", {"ratio": reporting.spread([3, 1, 2])})
    lines = capsys.readouterr().out.splitlines()
    kept = tmp_path / "results" / f"{date.today().isoformat()}-claim.json"
    assert [json.loads(line) for line in lines] == [json.loads(kept.read_text())] * 2
    assert json.loads(lines[0])["ratio"] == {"median": 2, "lowest": 1, "highest": 3}


def test_texts_are_repeated_until_they_are_enough(benchmarks):
    from vocabulary import repeat_up_to

    assert list(repeat_up_to(["abc", "de"], 9)) == ["abc", "de", "abc", "de"]
    assert list(repeat_up_to(["abc", "de"], 3)) == ["abc"]
