"""toyGPT: English models in the shape of GPT-2, with fixed waves for positions.

Learning rate, schedule and batch are those of its command line and its `model.py`.
"""

from dimgpt.config import (
    DataConfig,
    ModelConfig,
    SamplingConfig,
    TokenizerConfig,
    TrainingConfig,
)
from dimgpt.presets.preset import Preset
from dimgpt.presets.sources import TOYGPT_SOURCES

_VOCAB_SIZE = 50_262


def _toygpt(name: str, *, embedding_dim: int, num_layers: int, num_heads: int) -> Preset:
    return Preset(
        name=name,
        description=f"toyGPT: {num_layers} layers of width {embedding_dim}, 1.5 billion tokens",
        model=ModelConfig(
            vocab_size=_VOCAB_SIZE,
            window_size=None,
            embedding_dim=embedding_dim,
            num_layers=num_layers,
            num_heads=num_heads,
            num_kv_heads=num_heads,
            ffn_dim=4 * embedding_dim,
            dropout=0.1,
            norm="layer",
            positions="sinusoidal",
            feed_forward="gelu",
            use_biases=True,
            use_final_norm=False,
            scaled_outputs="none",
        ),
        data=DataConfig(
            sources=TOYGPT_SOURCES,
            tokenizer=TokenizerConfig(
                kind="byte_level",
                path="hf://openai-community/gpt2/tokenizer.json",
                special_tokens=("<pad>", "<msk>", "<cls>", "<sep>", "<|startoftext|>"),
            ),
            vocab_size=_VOCAB_SIZE,
            validation_ratio=0.01,
            test_ratio=0.01,
        ),
        pretraining=_TRAINING,
        finetuning=_TRAINING,
        sampling=SamplingConfig(temperature=0.0, repetition_penalty=1.3, max_new_tokens=300),
        languages=("en",),
        prompt="This is the end",
        questions=(),
    )


_TRAINING = TrainingConfig(
    batch_size=4,
    accumulation_steps=1,
    learning_rate=2.5e-4,
    min_learning_rate=2.5e-5,
    decay_steps=1_053_600,
    # One pass over 1.5 billion tokens.
    max_steps=732_000,
    adam_betas=(0.9, 0.999),
    adam_eps=1e-8,
    validation_interval=7_000,
    checkpoint_interval=7_000,
    sample_interval=7_000,
)

TOYGPT_SMALL = _toygpt("toygpt-small", embedding_dim=768, num_layers=12, num_heads=8)
TOYGPT_MEDIUM = _toygpt("toygpt-medium", embedding_dim=1024, num_layers=16, num_heads=8)
TOYGPT_LARGE = _toygpt("toygpt-large", embedding_dim=2048, num_layers=24, num_heads=16)
