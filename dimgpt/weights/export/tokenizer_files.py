"""The tokenizer of an export: its `tokenizer.json`, and its chat format as a Jinja template.

The `tokenizer.json` of a vocabulary of DimensionGPT is put together by hand from the parts of the
`tokenizers` library, because the ids in other programs must be exactly ours. WordPiece with an
empty continuation prefix is greedy longest match; a normaliser cleans, and a decoder restores
emoji. The ids differ in three cases, none of them in ordinary text: several combining signs in a
row at the start of a text or line lose all but the first; a character that the vocabulary holds
within longer tokens only makes its whole word unknown; and text that spells a special token is read
as one, unless the caller passes `split_special_tokens=True`. Words of thousands of characters are
slow there.

A chat template writes a conversation as the tokens that training laid out. `{% generation %}` marks
what the model is to say, from which `transformers` makes the mask of its tokens. DimensionGPT's
template drops the brackets of special tokens from messages, as cleaning drops them.
"""

import json
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.normalizers import Replace

from dimgpt.text.alphabet import ALPHABET, CIRCLED_DIGITS, REPLACEMENTS, STAND_INS
from dimgpt.text.byte_level import ByteLevelTokenizer
from dimgpt.text.cleaning import WORD_PATTERN, transliterate
from dimgpt.text.special_tokens import NEW_LINE, SPECIAL_TOKEN_TEXTS, SPECIAL_TOKENS, TAB
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.weights.export.charsmap import compile_charsmap

_START = SPECIAL_TOKENS[2]
_UNKNOWN_CHARACTER = "\N{REPLACEMENT CHARACTER}"
_SPELLED = {TAB: "\t", NEW_LINE: "\n"}
# The library looks up a character together with the signs on it, and finds the first one only. This
# sign joins the character after it.
_JOINS_NEXT = "\N{ARABIC END OF AYAH}"
_OTHER_SIGNS = "\uff9e\uff9f"  # the half-width voiced sound marks
_END_OF_TABLES = 0x20000  # unidecode writes nothing for characters beyond

# The next role closes a message and belongs to what the model says: it ends its own turn.
_DIMENSIONGPT_TEMPLATE = """\
{%- set roles = {'system': '⮜system⮞', 'user': '⮜user⮞', 'assistant': '⮜assistant⮞'} %}
{%- set state = namespace(is_spoken=false) %}
{{- '⮜start-of-text⮞' + roles.get(messages[0].role, '⮜human⮞') }}
{%- for message in messages %}
{%- if message.role == 'user' %}{% set state.is_spoken = false %}
{%- elif message.role != 'system' %}{% set state.is_spoken = true %}{% endif %}
{%- if not loop.last %}{% set next = roles.get(loop.nextitem.role, '⮜human⮞') %}
{%- else %}{% set next = '⮜assistant⮞' if add_generation_prompt else '⮜end-of-text⮞' %}{% endif %}
{%- set text = message.content | replace('⮜', '') | replace('⮞', '') | trim + next %}
{%- if state.is_spoken %}{% generation %}{{- text -}}{% endgeneration %}
{%- else %}{{- text -}}{% endif %}
{%- endfor %}"""

_LILLM_TEMPLATE = """\
{%- for message in messages %}
{%- if message.role == 'user' %}{{- '<r0>user<r1>' + message.content + '</r2>' -}}
{%- elif message.role == 'assistant' %}{{- '<r0>assistant<r1>' -}}
{% generation %}{{- message.content + '</s>' -}}{% endgeneration %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<r0>assistant<r1>' -}}{% endif %}"""


def greedy_tokenizer_json(tokens: Sequence[str]) -> dict[str, Any]:
    """Describe a tokenizer that gives the ids of `GreedyTokenizer(tokens)`.

    With `add_special_tokens`, the default of its readers, a text gets ⮜start-of-text⮞ before it.
    """
    known = set("".join(tokens[len(SPECIAL_TOKENS) :]))
    unknown = "".join(character for character in ALPHABET if character not in known)
    cleaning, splits = _cleaning(), [pre_tokenizers.Split(Regex(WORD_PATTERN), "isolated")]
    if unknown:  # each such character is one unknown, not the whole word around it
        cleaning.append(Replace(Regex(f"[{_ranges(unknown)}]"), _UNKNOWN_CHARACTER))
        splits.append(pre_tokenizers.Split(_UNKNOWN_CHARACTER, "isolated"))
    tokenizer = tokenizers.Tokenizer(
        models.WordPiece(
            {_SPELLED.get(token, token): id for id, token in enumerate(tokens)},
            unk_token=SPECIAL_TOKENS[0],
            continuing_subword_prefix="",
            max_input_chars_per_word=1_000_000_000,  # longer words would be one unknown
        )
    )
    tokenizer.add_special_tokens([token for token in SPECIAL_TOKENS if token not in _SPELLED])
    tokenizer.normalizer = normalizers.Sequence(cleaning)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[_START, "$A"],
        pair=[_START, "$A", "$B"],
        special_tokens=[(_START, SPECIAL_TOKENS.index(_START))],
    )
    texts = SPECIAL_TOKEN_TEXTS.items()
    tokenizer.decoder = decoders.Sequence(
        [
            *(decoders.Replace(token, text) for token, text in texts if token not in _SPELLED),
            # The last stand-in first, since its emoji begins those of others.
            *(decoders.Replace(part, emoji) for emoji, part in reversed(STAND_INS.items())),
            decoders.Fuse(),
        ]
    )
    description: dict[str, Any] = json.loads(tokenizer.to_str())
    return description


def chat_template(tokenizer: Tokenizer) -> str | None:
    """Return the template of a tokenizer's conversations in Jinja, `None` if it knows none."""
    if not isinstance(tokenizer, ByteLevelTokenizer):
        return _DIMENSIONGPT_TEMPLATE
    is_lillm = {"<r0>", "<r1>", "</s>"} <= set(tokenizer.tokens)
    return _LILLM_TEMPLATE if is_lillm else None


@cache
def transliterations() -> dict[str, str]:
    """Return what each character outside the alphabet is written as; dropped ones are left out."""
    allowed = {*ALPHABET, "\t", "\n", "\r"}
    characters = (chr(code) for code in range(_END_OF_TABLES) if not 0xD800 <= code < 0xE000)
    pairs = ((letter, transliterate(letter)) for letter in characters if letter not in allowed)
    return {letter: text for letter, text in pairs if text}


def _cleaning() -> list[normalizers.Normalizer]:
    """Do what `normalize_text` does, rule by rule."""
    table = transliterations()
    signs = {letter: text for letter, text in table.items() if _is_sign(letter)}
    digits = {digit: transliterate(digit) for digit in CIRCLED_DIGITS}
    return [
        *(
            Replace(source, target)
            for rules in ({"\r": ""}, REPLACEMENTS, digits, STAND_INS)
            for source, target in rules.items()
        ),
        Replace(Regex(f"[^{_ranges([*ALPHABET, *table])}\\t\\n]"), ""),
        Replace(_JOINS_NEXT, table[_JOINS_NEXT]),
        normalizers.Precompiled(compile_charsmap(signs)),
        normalizers.Precompiled(compile_charsmap(table)),
        Replace(Regex(r" +\n"), "\n"),
        Replace(Regex(r"\t+\n"), "\n"),
        Replace(Regex(r"\n{3,}"), "\n\n"),
        normalizers.Strip(),
    ]


def _is_sign(character: str) -> bool:
    """Say whether a character is shown on the one before it."""
    return unicodedata.category(character).startswith("M") or character in _OTHER_SIGNS


def _ranges(characters: Sequence[str]) -> str:
    """Write characters as the inside of a character class."""
    ranges: list[list[int]] = []
    for code in sorted(map(ord, set(characters))):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(rf"\x{{{low:x}}}-\x{{{high:x}}}" for low, high in ranges)
