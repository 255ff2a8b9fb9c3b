import functools
import json
from collections import Counter

import pytest

from dimgpt.config import DataConfig, SourceConfig
from dimgpt.data.preparing.preparation import (
    make_executor,
    merge,
    plan_preparation,
    prepare_source,
    write_share,
)
from dimgpt.data.token_file import TokenFile

pytest.importorskip("datatrove", reason="datatrove is not installed")


def tokens(folder, tokenizer):
    file = TokenFile(folder, "train", fingerprint=tokenizer.fingerprint)
    return Counter(file.document(n).tobytes() for n in range(file.num_documents))


@pytest.mark.slow
def test_four_tasks_of_the_local_executor_write_the_documents_of_one_run(tokenizer, tmp_path):
    for name in range(5):
        texts = [f"chat {n} dort dans la cour {name}" for n in range(50)]
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    source = SourceConfig(name="cats", path=str(tmp_path))
    config = DataConfig(sources=(source,), min_document_characters=4, validation_ratio=0.1)
    tokenizer.save(tmp_path / "vocab.txt")
    sizes = {"block_bytes": 500, "part_blocks": 4}
    step = functools.partial(
        write_share,
        config=config,
        vocabulary_path=tmp_path / "vocab.txt",
        pretraining_dir=tmp_path / "four",
        finetuning_dir=tmp_path / "talk",
        **sizes,
    )
    executor = make_executor("local", step, num_shares=4, logging_dir=tmp_path / "logs", workers=2)
    executor.run()
    merge(plan_preparation(source, tokenizer, tmp_path / "four", config=config, **sizes))
    whole = prepare_source(source, tokenizer, tmp_path / "one", config=config, **sizes)
    assert tokens(tmp_path / "four" / "cats", tokenizer) == tokens(whole, tokenizer)


def test_slurm_gets_one_array_of_tasks(tmp_path):
    step = functools.partial(
        write_share,
        config=DataConfig(),
        vocabulary_path=tmp_path / "vocab.txt",
        pretraining_dir=tmp_path,
        finetuning_dir=tmp_path,
    )
    executor = make_executor(
        "slurm", step, num_shares=64, logging_dir=tmp_path, time="02:00:00", partition="cpu"
    )
    assert executor.world_size == 64
    assert executor.pipeline == [step]


def test_without_datatrove_an_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datatrove.executor", None)
    with pytest.raises(ImportError, match=r"pip install 'datatrove\[ray\]'"):
        make_executor("local", None, num_shares=1, logging_dir=tmp_path)
