import functools
import json

import pytest

from dimgpt.config import ConversationSourceConfig, SourceConfig
from dimgpt.pipeline.data import merge_shares, prepare_files, write_share
from dimgpt.pipeline.vocabulary import prepare_vocabulary
from dimgpt.presets import PRESETS
from dimgpt.settings import override
from dimgpt.workspace import Workspace

executor = pytest.importorskip("datatrove.executor", reason="datatrove is not installed")


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*.*")
        if path.is_file() and "lock" not in path.name
    }


@pytest.mark.slow
def test_four_tasks_of_the_local_executor_write_the_documents_of_one_run(tmp_path):
    sources = []
    for name in ("cats", "dogs", "birds", "trees"):
        texts = [f"chat {n} dort dans la cour {name}" for n in range(50)]
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (tmp_path / f"{name}.jsonl").write_text(lines)
        sources.append(SourceConfig(name=name, path=str(tmp_path / f"{name}.jsonl")))
    demo = PRESETS["demo"]
    data = override(
        demo.data,
        sources=tuple(sources),
        conversations=(ConversationSourceConfig(name="talk", path="demo://conversations/60"),),
        use_conversations_in_vocabulary=False,
        vocab_size=200,
        validation_ratio=0.1,
    )
    one, four = (
        Workspace(preset=override(demo, data=data), data_root=tmp_path / name)
        for name in ("one", "four")
    )
    for workspace in (one, four):
        tokenizer = prepare_vocabulary(workspace)
    prepare_files(one, tokenizer)
    step = functools.partial(write_share, workspace=four)
    logs = str(tmp_path / "logs")
    executor.LocalPipelineExecutor([step], tasks=4, logging_dir=logs, workers=2).run()
    assert len(list(four.data_dir("pretraining").glob("*.unfinished"))) == 4
    merge_shares(four)
    assert contents(four.data_folder) == contents(one.data_folder)
