"""The systems that can be run by name, as plain tables of settings.

`demo` trains in minutes on any machine, from a corpus that comes with the code. `french-5m` is the
real run of the README, for a computer without a GPU. `dimensiongpt-0.2b` is the published model.
"""

from dataclasses import dataclass

from dimgpt.config import (
    ConversationSourceConfig,
    DataConfig,
    ModelConfig,
    SamplingConfig,
    SourceConfig,
    TrainingConfig,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """Everything that a run from raw text to chat needs to be told."""

    name: str
    """Also the name of its folders in `data/` and `models/`."""
    description: str
    model: ModelConfig
    data: DataConfig
    pretraining: TrainingConfig
    finetuning: TrainingConfig
    sampling: SamplingConfig
    prompt: str
    """Text that is completed now and then while the model trains."""
    questions: tuple[str, ...]
    """What the chat is asked first."""
    system_prompt: str | None = None
    """What the chat begins with."""


_DEMO = Preset(
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
    pretraining=TrainingConfig(
        batch_size=16,
        accumulation_steps=1,
        learning_rate=3e-3,
        min_learning_rate=3e-4,
        warmup_steps=60,
        decay_steps=840,
        max_steps=900,
        adam_eps=1e-8,
        validation_interval=100,
        validation_batches=8,
        sample_interval=300,
        checkpoint_interval=300,
    ),
    finetuning=TrainingConfig(
        batch_size=16,
        accumulation_steps=1,
        learning_rate=3e-3,
        min_learning_rate=3e-4,
        warmup_steps=60,
        decay_steps=1_940,
        max_steps=2_000,
        adam_eps=1e-8,
        validation_interval=200,
        validation_batches=8,
        sample_interval=500,
        checkpoint_interval=500,
    ),
    sampling=SamplingConfig(temperature=0.5, top_p=0.9, max_new_tokens=100),
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

_FRENCH_5M = Preset(
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
        sources=(
            SourceConfig(
                name="books",
                group="French books",
                path="data/french/books.jsonl.gz",
                multiplier=0.2,
            ),
            SourceConfig(
                name="wiki_news",
                group="Wikipedia and news",
                path="data/french/wiki_news.jsonl.gz",
                multiplier=4.0,
            ),
            SourceConfig(
                name="institutions",
                group="French institutions",
                path="data/french/institutions.jsonl.gz",
                multiplier=2.0,
            ),
        ),
        conversations=(
            ConversationSourceConfig(name="instruct", path="data/french/instruct.jsonl.gz"),
        ),
        vocab_size=8_000,
        vocabulary_characters=30_000_000,
        validation_ratio=0.02,
    ),
    pretraining=TrainingConfig(
        batch_size=32,
        accumulation_steps=1,
        learning_rate=3e-3,
        min_learning_rate=3e-4,
        warmup_steps=100,
        decay_steps=1_500,
        max_steps=1_600,
        adam_eps=1e-8,
        validation_interval=100,
        validation_batches=8,
        checkpoint_interval=100,
        sample_interval=200,
    ),
    finetuning=TrainingConfig(
        batch_size=32,
        accumulation_steps=1,
        learning_rate=1e-3,
        min_learning_rate=1e-4,
        warmup_steps=20,
        decay_steps=280,
        max_steps=300,
        adam_eps=1e-8,
        validation_interval=25,
        validation_batches=8,
        checkpoint_interval=50,
        sample_interval=100,
    ),
    sampling=SamplingConfig(temperature=0.7, top_p=0.9, no_repeat_strength=0.3, max_new_tokens=150),
    prompt="La ville de Paris",
    questions=("Bonjour !", "Quelle est la capitale de l'Italie ?", "Qui a écrit Les Misérables ?"),
)


def _instruct(
    name: str, ratio: float, system_prompt_ratios: dict[str, float]
) -> ConversationSourceConfig:
    """Describe one group of the conversations that the published model was fine-tuned on."""
    return ConversationSourceConfig(
        name=name,
        path="hf://datasets/angeluriot/DimensionGPT_instruct",
        hub_config=f"{name}_conversations",
        ratio=ratio,
        system_prompts_path="hf://datasets/angeluriot/DimensionGPT_instruct",
        system_prompts_hub_config=f"{name}_preprompts",
        system_prompt_ratios=system_prompt_ratios,
    )


_DIMENSIONGPT = Preset(
    name="dimensiongpt-0.2b",
    description="the published model: 209 million parameters, 52 billion tokens, one GPU",
    model=ModelConfig(),
    data=DataConfig(
        # Today's data sets for three of the six published groups; add your own for the others
        # (news 0.3, institutions 2.0, others 2.0).
        sources=(
            SourceConfig(
                name="common_crawl",
                group="Common Crawl",
                path="hf://datasets/HuggingFaceFW/fineweb-2",
                hub_config="fra_Latn",
                multiplier=1.0,
            ),
            SourceConfig(
                name="wikipedia",
                group="Wikipedia",
                path="hf://datasets/wikimedia/wikipedia",
                hub_config="20231101.fr",
                multiplier=4.0,
            ),
            SourceConfig(
                name="books",
                group="French books",
                path="hf://datasets/PleIAs/French-PD-Books",
                text_column="complete_text",
                multiplier=0.2,
            ),
        ),
        conversations=(
            _instruct("human", 0.099, {"human": 0.3}),
            _instruct("chatbot", 0.9, {"chatbot": 0.5, "dimension_gpt": 0.4}),
            _instruct("dimension_gpt", 0.001, {"dimension_gpt": 1.0}),
        ),
    ),
    pretraining=TrainingConfig(),
    finetuning=TrainingConfig(),
    sampling=SamplingConfig(temperature=0.5, top_p=0.9, no_repeat_strength=1.0),
    prompt="La France est",
    questions=("Bonjour, qui es-tu ?", "Quelle est la capitale de la France ?"),
    system_prompt=(
        "Une discussion entre un utilisateur et DimensionGPT, un modèle de langage conversationnel "
        "français créé par le développeur indépendant Dimension et basé sur l'architecture GPT."
    ),
)

PRESETS = {preset.name: preset for preset in (_DEMO, _FRENCH_5M, _DIMENSIONGPT)}


def get_preset(name: str) -> Preset:
    """Return a preset by name.

    Raises:
        ValueError: There is none of that name.
    """
    if name not in PRESETS:
        raise ValueError(f"preset is {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
