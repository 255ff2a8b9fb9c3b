"""Where the texts of the published systems can be found, as tables of records.

DimensionGPT read six groups of French. Many of its data sets are gated now, need a script that
nobody should run, or state no open licence. The table here has plain files in the same groups, with
sizes and multipliers that give the groups their published shares. Licences are quoted from the
publishers' pages of early 2025, and `expected_bytes` are rounded from them; read the pages before
you publish a model.

These data sets of DimensionGPT are left out:
- gated: bigscience-data/roots_fr_wikipedia, _wikivoyage, _wikinews (with its own rule of cleaning),
  _the_pile_europarl, _ted_talks_iwslt; sil-ai/bloom-lm;
- made by a script, without an open licence: intfloat/multilingual_cc_news (none stated; most of the
  news), csebuetnlp/xlsum (cc-by-nc-sa-4.0), mlsum (for research only), EdinburghNLP/orange_sum
  (unknown);
- plain files without a stated licence: gustavecortal/fr_covid_news, cassandra-themis/QR-AN.
ontocord/CulturaY (cc-by-4.0) and eckendoerffer/wikipedia_fr may still be available. FineWeb-2 and
Wikimedia's own Wikipedia replace them here.
"""

from dimgpt.config import ConversationSourceConfig, SourceConfig

# The branch where the hub itself has turned a data set into Parquet: there is no script to run.
_PARQUET = "refs/convert/parquet"
_WIKIMEDIA_LICENCE = "cc-by-sa-3.0, gfdl"
_TITLED = "{title}\n\n{text}"

PUBLISHED_SHARES = {
    "Common Crawl": 0.7689,
    "Wikipedia": 0.1396,
    "French news": 0.0728,
    "French books": 0.0120,
    "French institutions": 0.0063,
    "Others": 0.0003,
}
"""Share of the draws of each group of DimensionGPT, in 0..1: its training tokens × multiplier."""

DIMENSIONGPT_SOURCES = (
    SourceConfig(
        name="common_crawl",
        group="Common Crawl",
        path="hf://datasets/HuggingFaceFW/fineweb-2",
        hub_config="fra_Latn",
        licence="odc-by; Common Crawl's terms of use",
        # Not given on its page: about 330 million documents of about 4 kB.
        expected_bytes=1_300_000_000_000,
        # The original took 150 billion characters; more here, since Wikipedia is larger today.
        max_bytes=175_000_000_000,
    ),
    # Clean text: the original detokenized its Wikipedia, eckendoerffer/wikipedia_fr, which was not.
    SourceConfig(
        name="wikipedia",
        group="Wikipedia",
        path="hf://datasets/wikimedia/wikipedia",
        hub_config="20231101.fr",
        text_template=_TITLED,
        multiplier=4.0,
        licence=_WIKIMEDIA_LICENCE,
        expected_bytes=8_000_000_000,
    ),
    SourceConfig(
        name="wikisource",
        group="Wikipedia",
        path="hf://datasets/wikimedia/wikisource",
        hub_config="20231201.fr",
        text_template=_TITLED,
        multiplier=4.0,
        licence=_WIKIMEDIA_LICENCE,
        expected_bytes=90_000_000,
    ),
    SourceConfig(
        name="news",
        group="French news",
        path="hf://datasets/eckendoerffer/news_fr",
        # The files themselves are text with a document a line. All three splits, as the original.
        revision=_PARQUET,
        files="default/*/*.parquet",
        cleaning="detokenize",
        multiplier=0.3,
        licence="cc-by-3.0",
        expected_bytes=2_440_000_000,
    ),
    SourceConfig(
        # Old newspapers, read by OCR, for the original's CC-News: intfloat/multilingual_cc_news
        # states no licence and is made by a script.
        name="newspapers",
        group="French news",
        path="hf://datasets/PleIAs/French-PD-Newspapers",
        text_column="complete_text",
        multiplier=0.3,
        licence="public domain",
        # 69.8 billion words. The column is that of the books of the same publisher, not looked up.
        expected_bytes=420_000_000_000,
        max_bytes=52_000_000_000,
    ),
    SourceConfig(
        name="books",
        group="French books",
        path="hf://datasets/PleIAs/French-PD-Books",
        text_column="complete_text",
        multiplier=0.2,
        licence="public domain",
        # 16.4 billion words.
        expected_bytes=100_000_000_000,
        # The original took 10 billion characters.
        max_bytes=10_300_000_000,
    ),
    *(
        SourceConfig(
            name=name,
            group=group,
            path="hf://datasets/OpenLLM-France/Lucie-Training-Dataset",
            hub_config=hub_config,
            multiplier=multiplier,
            licence="cc-by-nc-sa-4.0 for the collection; see its page for each part",
            expected_bytes=expected_bytes,
        )
        # The first three together hold about 1.65 GB; how much is in each is a guess. The original
        # drew its own sets twice, which were smaller.
        for name, hub_config, group, multiplier, expected_bytes in (
            ("europarl", "Europarl-fr", "French institutions", 0.9, 330_000_000),
            (
                "parliament_questions",
                "QuestionsEcritesParlement",
                "French institutions",
                0.9,
                440_000_000,
            ),
            (
                "parliament_debates",
                "InterventionsParlement",
                "French institutions",
                0.9,
                880_000_000,
            ),
            ("dialogues", "Claire-fr", "Others", 0.07, 1_000_000_000),
        )
    ),
)
"""The six groups of DimensionGPT."""

OPENWEBTEXT = SourceConfig(
    name="openwebtext",
    path="hf://datasets/Skylion007/openwebtext",
    licence="cc0-1.0",
    expected_bytes=39_800_000_000,
)
"""What lilLM was trained on."""

TOYGPT_SOURCES = (
    SourceConfig(
        name="wikisource",
        path="hf://datasets/wikimedia/wikisource",
        hub_config="20231201.en",
        licence=_WIKIMEDIA_LICENCE,
        # 1.4 GB of Parquet.
        expected_bytes=2_500_000_000,
    ),
    SourceConfig(
        name="redpajama",
        path="hf://datasets/togethercomputer/RedPajama-Data-1T-Sample",
        revision=_PARQUET,
        licence="that of each of its parts",
    ),
    SourceConfig(
        name="wikipedia",
        path="hf://datasets/wikimedia/wikipedia",
        hub_config="20231101.en",
        licence=_WIKIMEDIA_LICENCE,
        expected_bytes=20_000_000_000,
    ),
)
"""What toyGPT was trained on; its readme dates Wikisource only."""

DIMENSIONGPT_SYSTEM_PROMPT = (
    "Une discussion entre un utilisateur et DimensionGPT, un modèle de langage conversationnel "
    "français créé par le développeur indépendant Dimension et basé sur l'architecture GPT."
)

DIMENSIONGPT_CONVERSATIONS = tuple(
    ConversationSourceConfig(
        name=name,
        path="hf://datasets/angeluriot/DimensionGPT_instruct",
        hub_config=f"{name}_conversations",
        ratio=ratio,
        system_prompts_path="hf://datasets/angeluriot/DimensionGPT_instruct",
        system_prompts_hub_config=f"{name}_preprompts",
        system_prompt_ratios=system_prompt_ratios,
        validation_ratio=validation_ratio,
        validation_system_prompt=DIMENSIONGPT_SYSTEM_PROMPT if validation_ratio else None,
        licence="not stated; made from French Instruct, mit",
    )
    for name, ratio, validation_ratio, system_prompt_ratios in (
        ("human", 0.099, 0.0, {"human": 0.3}),
        ("chatbot", 0.9, 0.01, {"chatbot": 0.5, "dimension_gpt": 0.4}),
        ("dimension_gpt", 0.001, 0.0, {"dimension_gpt": 1.0}),
    )
)
"""The three groups that DimensionGPT was fine-tuned on, with their system prompts.

It validated on 1 % of the chatbot's conversations, behind one system prompt.
"""

FRENCH_INSTRUCT = ConversationSourceConfig(
    name="french_instruct", path="hf://datasets/angeluriot/french_instruct", licence="mit"
)
"""276,000 conversations in French."""

LILLM_CONVERSATIONS = (
    *(
        ConversationSourceConfig(
            name=hub_config.replace("-", "_"),
            path="hf://datasets/HuggingFaceTB/smoltalk",
            hub_config=hub_config,
            ratio=ratio,
            licence="that of each of its parts; see its page",
        )
        # By their conversations, in thousands, rough and not looked up: 36, 50, 100, 2, 30, 100;
        # magpie-ultra 300.
        for hub_config, ratio in (
            ("smol-constraints", 0.058),
            ("smol-rewrite", 0.081),
            ("smol-summarize", 0.162),
            ("everyday-conversations", 0.004),
            ("explore-instruct-rewriting", 0.049),
            ("openhermes-100k", 0.162),
        )
    ),
    ConversationSourceConfig(
        name="magpie_ultra",
        path="hf://datasets/argilla/magpie-ultra-v1.0",
        hub_config="top_300k_shorter_conversations",
        ratio=0.484,
        licence="Llama 3.1's licence, whose model wrote it",
    ),
)
"""The open parts of lilLM's mixture; of magpie-ultra it left out mathematics and code.

Its ready mixture, CohleM/lillm-sft-dataset-512-including-hard-coded-mixture, and its set about
itself, CohleM/lillm-sft-hard-coded, are not here: whether they are still public is not known.
"""
