"""The demo: a small French world that trains in minutes on any machine."""

from dataclasses import replace

from dimgpt.config import (
    ConversationSourceConfig,
    DataConfig,
    ModelConfig,
    SamplingConfig,
    SourceConfig,
    TrainingConfig,
)
from dimgpt.presets.preset import Preset

_RUN = TrainingConfig(
    batch_size=16,
    accumulation_steps=1,
    learning_rate=3e-3,
    min_learning_rate=0.0,
    schedule="linear",
    warmup_steps=60,
    adam_betas=(0.9, 0.99),  # batches are small: squares are averaged over more of them
    adam_eps=1e-8,
    validation_batches=8,
)

DEMO = Preset(
    name="demo",
    description="a small French world; minutes on any machine",
    model=ModelConfig(
        vocab_size=1_000,
        context_length=128,
        window_size=96,
        embedding_dim=128,
        num_layers=4,
        num_heads=4,
        num_kv_heads=2,
        ffn_dim=341,
        init_std=0.08,
    ),
    data=DataConfig(
        sources=(SourceConfig(name="stories", path="demo://stories/15000"),),
        conversations=(
            ConversationSourceConfig(name="conversations", path="demo://conversations/60000"),
        ),
        vocab_size=1_000,
        vocabulary_characters=2_000_000,
        use_conversations_in_vocabulary=True,
        min_document_characters=16,
        validation_ratio=0.01,
        instruction_weight=0.05,
    ),
    pretraining=replace(
        _RUN,
        decay_steps=840,
        max_steps=900,
        validation_interval=100,
        sample_interval=300,
        checkpoint_interval=300,
    ),
    finetuning=replace(
        _RUN,
        decay_steps=1_940,
        max_steps=2_000,
        validation_interval=200,
        sample_interval=500,
        checkpoint_interval=500,
    ),
    sampling=SamplingConfig(temperature=0.5, top_p=0.9, max_new_tokens=100),
    languages=("fr",),
    prompt="Ce matin,",
    questions=(
        "Bonjour !",
        "Qui es-tu ?",
        "Combien font 34 + 5 ?",
        "Quel est le contraire de grand ?",
        "Conjugue raconter à l'imparfait avec nous.",
        "Ce matin, Tom chante dans le jardin. Clara mange une pomme. Où chante Tom ?",
    ),
)
