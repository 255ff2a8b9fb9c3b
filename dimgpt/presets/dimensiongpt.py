"""The published DimensionGPT, with its data as they can be had today."""

from dimgpt.config import (
    ConversationSourceConfig,
    DataConfig,
    ModelConfig,
    SamplingConfig,
    SourceConfig,
    TrainingConfig,
)
from dimgpt.presets.preset import Preset


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


DIMENSIONGPT = Preset(
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
