"""The three published systems, with data that are available today.

- DimensionGPT: a French model; the defaults of `dimgpt.config` are its settings.
- lilLM: small English models in the shape of Llama. Learning rates and schedule are those of its
  `pretrain.py`; the batch is that of its published sizes, on two GPUs.
- toyGPT: English models in the shape of GPT-2, with sinusoidal positions. Learning rate, schedule
  and batch are those of its command line and its `model.py`.
"""

from dimgpt.config import (
    DataConfig,
    ModelConfig,
    Preset,
    SamplingConfig,
    TokenizerConfig,
    TrainingConfig,
)
from dimgpt.presets.sources import (
    DIMENSIONGPT_CONVERSATIONS,
    DIMENSIONGPT_SOURCES,
    DIMENSIONGPT_SYSTEM_PROMPT,
    LILLM_CONVERSATIONS,
    OPENWEBTEXT,
    PUBLISHED_SHARES,
    TOYGPT_SOURCES,
)
from dimgpt.text.byte_level import LILLM_SPECIAL_TOKENS, TOYGPT_SPECIAL_TOKENS

DIMENSIONGPT = Preset(
    name="dimensiongpt-0.2b",
    description="the published model: 209 million parameters, 52 billion tokens, one GPU",
    model=ModelConfig(),
    data=DataConfig(
        sources=DIMENSIONGPT_SOURCES,
        published_shares=PUBLISHED_SHARES,
        conversations=DIMENSIONGPT_CONVERSATIONS,
        later_conversations="uniform",
    ),
    pretraining=TrainingConfig(),
    finetuning=TrainingConfig(),
    sampling=SamplingConfig(temperature=0.5, top_p=0.9, no_repeat_strength=1.0),
    languages=("fr",),
    prompt="La France est",
    questions=("Bonjour, qui es-tu ?", "Quelle est la capitale de la France ?"),
    system_prompt=DIMENSIONGPT_SYSTEM_PROMPT,
)

_LILLM_TRAINING = TrainingConfig(
    batch_size=32,
    accumulation_steps=8,
    decay_steps=598_000,
    # About 8 billion tokens.
    max_steps=61_000,
    adam_betas=(0.9, 0.999),
    adam_eps=1e-8,
    weight_decay=0.01,
    decay_vectors=True,
    validation_interval=200,
    validation_batches=20,
)

_LILLM_FINETUNING = TrainingConfig(
    batch_size=64,
    accumulation_steps=8,
    # Constant from the first step on.
    learning_rate=3e-4,
    min_learning_rate=3e-4,
    warmup_steps=0,
    max_steps=2_500,
    adam_betas=(0.9, 0.999),
    adam_eps=1e-8,
    weight_decay=0.01,
    decay_vectors=True,
    # The places are those of its model. The original's own `--init_from resume` ran without.
    dropout=0.2,
    attention_dropout=0.2,
    validation_interval=20,
    validation_batches=5,
)


def _lillm(name: str, size: str, *, embedding_dim: int, num_layers: int) -> Preset:
    return Preset(
        name=name,
        description=f"lilLM: {size} parameters, 8 billion English tokens",
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
            dropout_places=("outputs",),
            init="fan_in",
            scaled_outputs="both",
        ),
        data=DataConfig(
            sources=(OPENWEBTEXT,),
            conversations=LILLM_CONVERSATIONS,
            packing="pad",
            instruction_weight=0.0,
            tokenizer=TokenizerConfig(
                kind="byte_level", special_tokens=LILLM_SPECIAL_TOKENS, first_space=True
            ),
            vocab_size=8_192,
        ),
        pretraining=_LILLM_TRAINING,
        finetuning=_LILLM_FINETUNING,
        sampling=SamplingConfig(temperature=0.7, top_k=50),
        languages=("en",),
        prompt="The latest Marvel movie has",
        questions=("What is the capital of France?",),
    )


_TOYGPT_VOCAB_SIZE = 50_262
_TOYGPT_TRAINING = TrainingConfig(
    batch_size=4,
    accumulation_steps=1,
    learning_rate=2.5e-4,
    min_learning_rate=2.5e-5,
    decay_steps=1_053_600,
    # One pass over 1.5 billion tokens.
    max_steps=732_000,
    adam_betas=(0.9, 0.999),
    adam_eps=1e-8,
    decay_vectors=True,
    max_grad_norm=1e9,  # never reached: the original does not clip
    # Every hundredth of the pass.
    validation_interval=7_320,
    patience=10,
    checkpoint_interval=7_320,
    keep_checkpoints=1,
    keep_best=2,
    sample_interval=7_320,
)


def _toygpt(name: str, *, embedding_dim: int, num_layers: int, num_heads: int) -> Preset:
    return Preset(
        name=name,
        description=f"toyGPT: {num_layers} layers of width {embedding_dim}, 1.5 billion tokens",
        model=ModelConfig(
            vocab_size=_TOYGPT_VOCAB_SIZE,
            window_size=None,
            embedding_dim=embedding_dim,
            num_layers=num_layers,
            num_heads=num_heads,
            num_kv_heads=num_heads,
            ffn_dim=4 * embedding_dim,
            dropout=0.1,
            dropout_places=("embedding", "outputs", "qkv", "stream"),
            attention_dropout=0.1,
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
                special_tokens=TOYGPT_SPECIAL_TOKENS,
            ),
            vocab_size=_TOYGPT_VOCAB_SIZE,
            validation_ratio=0.01,
            test_ratio=0.01,
        ),
        pretraining=_TOYGPT_TRAINING,
        finetuning=_TOYGPT_TRAINING,
        sampling=SamplingConfig(temperature=0.0, top_repeat_penalty=1.3, max_new_tokens=300),
        languages=("en",),
        prompt="This is the end",
    )


PUBLISHED = (
    DIMENSIONGPT,
    _lillm("lillm-39m", "40 million", embedding_dim=512, num_layers=12),
    _lillm("lillm-300m", "292 million", embedding_dim=1024, num_layers=24),
    _toygpt("toygpt-small", embedding_dim=768, num_layers=12, num_heads=8),
    _toygpt("toygpt-medium", embedding_dim=1024, num_layers=16, num_heads=8),
    _toygpt("toygpt-large", embedding_dim=2048, num_layers=24, num_heads=16),
)
