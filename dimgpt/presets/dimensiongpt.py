"""The published DimensionGPT, with its data as they can be had today."""

from dimgpt.config import (
    DataConfig,
    ModelConfig,
    SamplingConfig,
    TrainingConfig,
)
from dimgpt.presets.preset import Preset
from dimgpt.presets.sources import DIMENSIONGPT_CONVERSATIONS, DIMENSIONGPT_SOURCES

DIMENSIONGPT = Preset(
    name="dimensiongpt-0.2b",
    description="the published model: 209 million parameters, 52 billion tokens, one GPU",
    model=ModelConfig(),
    data=DataConfig(sources=DIMENSIONGPT_SOURCES, conversations=DIMENSIONGPT_CONVERSATIONS),
    pretraining=TrainingConfig(),
    finetuning=TrainingConfig(),
    sampling=SamplingConfig(temperature=0.5, top_p=0.9, no_repeat_strength=1.0),
    languages=("fr",),
    prompt="La France est",
    questions=("Bonjour, qui es-tu ?", "Quelle est la capitale de la France ?"),
    system_prompt=(
        "Une discussion entre un utilisateur et DimensionGPT, un modèle de langage conversationnel "
        "français créé par le développeur indépendant Dimension et basé sur l'architecture GPT."
    ),
)
