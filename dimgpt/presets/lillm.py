"""lilLM: two small English models in the shape of Llama.

Learning rates and schedule are those of its `pretrain.py`; the batch is that of its published
sizes, on two cards. Its AdamW also decayed the norms, which is not repeated here.
"""

from dimgpt.config import (
    DataConfig,
    ModelConfig,
    SamplingConfig,
    TokenizerConfig,
    TrainingConfig,
)
from dimgpt.presets.preset import Preset
from dimgpt.presets.sources import OPENWEBTEXT

_SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", *(f"<r{number}>" for number in range(13)))


def _lillm(name: str, description: str, *, embedding_dim: int, num_layers: int) -> Preset:
    return Preset(
        name=name,
        description=description,
        model=ModelConfig(
            vocab_size=8_192,
            window_size=None,
            embedding_dim=embedding_dim,
            num_layers=num_layers,
            num_heads=16,
            num_kv_heads=8,
            # int(2/3 * 4 * embedding_dim), rounded up to a multiple of 128.
            ffn_dim=-(-int(2 / 3 * 4 * embedding_dim) // 128) * 128,
            norm_eps=1e-6,
            init="fan_in",
            scaled_outputs="both",
        ),
        data=DataConfig(
            sources=(OPENWEBTEXT,),
            tokenizer=TokenizerConfig(
                kind="byte_level", special_tokens=_SPECIAL_TOKENS, first_space=True
            ),
            vocab_size=8_192,
        ),
        pretraining=_TRAINING,
        finetuning=_TRAINING,
        sampling=SamplingConfig(temperature=0.7, top_k=50),
        languages=("en",),
        prompt="The latest Marvel movie has",
        questions=(),
    )


_TRAINING = TrainingConfig(
    batch_size=32,
    accumulation_steps=8,
    decay_steps=598_000,
    # About 8 billion tokens.
    max_steps=61_000,
    adam_betas=(0.9, 0.999),
    adam_eps=1e-8,
    weight_decay=0.01,
    validation_interval=200,
    validation_batches=20,
)

LILLM_39M = _lillm(
    "lillm-39m",
    "lilLM: 40 million parameters, 8 billion English tokens",
    embedding_dim=512,
    num_layers=12,
)
LILLM_300M = _lillm(
    "lillm-300m",
    "lilLM: 292 million parameters, 8 billion English tokens",
    embedding_dim=1024,
    num_layers=24,
)
