import pytest
import torch

from dimgpt.config import ModelConfig
from dimgpt.model.transformer import Transformer
from dimgpt.pipeline.inspection import answers_of_checkpoints, open_passages
from dimgpt.presets import get_preset
from dimgpt.runtime import choose_runtime
from dimgpt.settings import override, to_dict
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.text.special_tokens import SPECIAL_TOKENS
from dimgpt.training.checkpoint import Checkpoint, CheckpointStore
from dimgpt.workspace import Workspace

SHAPE = {"embedding_dim": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "ffn_dim": 24}


@pytest.fixture
def workspace(tmp_path):
    roots = {"data_root": tmp_path / "data", "models_root": tmp_path / "models"}
    return Workspace(preset=get_preset("demo"), **roots)


def answers(workspace, tokenizer):
    sampling = override(workspace.preset.sampling, max_new_tokens=5, seed=0)
    runtime = choose_runtime(device="cpu")
    options = {"runtime": runtime, "sampling": sampling}
    return answers_of_checkpoints(workspace, "pretraining", "abc", tokenizer, **options)


def test_each_step_of_a_run_writes_on_from_the_prompt_and_a_part_of_a_model_is_refused(workspace):
    tokenizer = GreedyTokenizer([*SPECIAL_TOKENS, *"abcdefgh "])
    assert answers(workspace, tokenizer) == []
    config = ModelConfig(vocab_size=tokenizer.vocab_size, context_length=16, **SHAPE)
    store = CheckpointStore(workspace.run_dir("pretraining") / "checkpoints")
    for step, kinds in ((9, ("step",)), (10, ("step", "best"))):
        torch.manual_seed(step)
        tensors = {"model": Transformer(config).state_dict()}
        for kind in kinds:
            state = {"model": to_dict(config)}
            store.save(Checkpoint(step=step, tensors=tensors, state=state), kind=kind)
    rows = answers(workspace, tokenizer)
    assert [row["checkpoint"] for row in rows] == ["step-00000009", "step-00000010"]
    assert all(row["text"].startswith("abc") for row in rows)
    store.save(Checkpoint(step=11, tensors={"model": {}}, state={"model": to_dict(config)}))
    with pytest.raises(ValueError, match="has no complete model"):
        answers(workspace, tokenizer)


def test_where_no_data_are_there_is_no_index(workspace):
    assert open_passages(workspace) is None
