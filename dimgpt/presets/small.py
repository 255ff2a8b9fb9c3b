"""The two systems that train on any computer: the demo's small French world, and real French."""

from dataclasses import replace

from dimgpt.config import (
    ConversationSourceConfig,
    DataConfig,
    ModelConfig,
    PreferenceSourceConfig,
    Preset,
    SamplingConfig,
    SourceConfig,
    TrainingConfig,
)

_RUN = TrainingConfig(
    batch_size=16,
    accumulation_steps=1,
    optimizer="muon",
    muon_learning_rate=0.01,
    muon_warmup_steps=100,
    muon_weight_decay=0.5,
    learning_rate=3e-3,
    min_learning_rate=0.0,
    schedule="linear",
    warmup_steps=60,
    decay_steps=None,
    adam_betas=(0.9, 0.99),  # small batches need a longer average of the second moment
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
        qk_norm=True,
        tie_embeddings=False,
        init_std=0.08,
        scaled_outputs="zero",
    ),
    data=DataConfig(
        sources=(SourceConfig(name="stories", path="demo://stories/15000"),),
        conversations=(
            ConversationSourceConfig(name="conversations", path="demo://conversations/60000"),
        ),
        preferences=(
            PreferenceSourceConfig(
                name="preferences", path="demo://preferences/4000", validation_ratio=0.02
            ),
        ),
        vocab_size=1_000,
        vocabulary_characters=2_000_000,
        use_conversations_in_vocabulary=True,
        min_document_characters=16,
        validation_ratio=0.01,
        instruction_weight=0.05,
        packing="best_fit",
        later_conversations="uniform",
    ),
    pretraining=replace(
        _RUN,
        max_steps=800,
        validation_interval=100,
        sample_interval=400,
        checkpoint_interval=400,
    ),
    finetuning=replace(
        _RUN,
        max_steps=600,
        validation_interval=100,
        sample_interval=300,
        checkpoint_interval=300,
    ),
    preferences=TrainingConfig(
        batch_size=16,
        accumulation_steps=1,
        learning_rate=3e-5,
        min_learning_rate=0.0,
        schedule="linear",
        warmup_steps=15,
        decay_steps=None,
        max_steps=150,
        adam_eps=1e-8,
        weight_decay=0.0,
        validation_interval=50,
        validation_batches=5,
        sample_interval=50,
        checkpoint_interval=50,
    ),
    sampling=SamplingConfig(temperature=0.5, top_p=0.9, max_new_tokens=100),
    languages=("fr",),
    prompt="Un jour,",
    questions=(
        "Bonjour !",
        "Qui es-tu ?",
        "Combien font 34 + 5 ?",
        "Quel est le contraire de grand ?",
        "Conjugue raconter à l'imparfait avec nous.",
        "Ce matin, Tom chante dans le jardin. Clara mange une pomme. Où chante Tom ?",
    ),
)

_FRENCH_RUN = TrainingConfig(
    batch_size=32,
    accumulation_steps=1,
    learning_rate=3e-3,
    min_learning_rate=3e-4,
    warmup_steps=100,
    decay_steps=None,
    max_steps=1_600,
    adam_eps=1e-8,
    validation_interval=100,
    validation_batches=8,
    checkpoint_interval=100,
    sample_interval=200,
)

FRENCH_5M = Preset(
    name="french-5m",
    description="5 million parameters on 50 million characters of real French; an hour on a CPU",
    model=ModelConfig(
        vocab_size=8_000,
        context_length=256,
        window_size=128,
        embedding_dim=256,
        num_layers=4,
        num_heads=8,
        num_kv_heads=2,
        ffn_dim=682,
    ),
    data=DataConfig(
        sources=tuple(
            SourceConfig(
                name=name, group=group, path=f"data/french/{name}.jsonl.gz", multiplier=multiplier
            )
            for name, group, multiplier in (
                ("books", "French books", 0.2),
                ("wiki_news", "Wikipedia and news", 4.0),
                ("institutions", "French institutions", 2.0),
            )
        ),
        conversations=(
            # So small a model holds no facts: it learns to be polite, and to say so.
            ConversationSourceConfig(name="small_talk", path="demo://small-talk/20000"),
        ),
        vocab_size=8_000,
        vocabulary_characters=30_000_000,
        validation_ratio=0.02,
        packing="best_fit",
        later_conversations="uniform",
    ),
    pretraining=_FRENCH_RUN,
    finetuning=replace(
        _FRENCH_RUN,
        learning_rate=1e-3,
        min_learning_rate=1e-4,
        warmup_steps=20,
        max_steps=150,
        validation_interval=25,
        checkpoint_interval=50,
        sample_interval=50,
    ),
    sampling=SamplingConfig(temperature=0.7, top_p=0.9, no_repeat_strength=0.3, max_new_tokens=150),
    languages=("fr",),
    prompt="La ville de Paris",
    questions=("Bonjour !", "Qui es-tu ?", "Qui a écrit Les Misérables ?"),
)
