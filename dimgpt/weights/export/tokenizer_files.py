"""The tokenizer files of an export, for either kind of tokenizer, and the templates of its chats.

A template writes a conversation as the tokens that training laid out, and marks what the model is
to say with `{% generation %}`, which gives the mask of its tokens. Brackets of special tokens that
a message holds are dropped by DimensionGPT's template, as cleaning drops them.
"""

import json
from typing import Any

from dimgpt.text.byte_level import ByteLevelTokenizer
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.weights.export.wordpiece import greedy_tokenizer_json

# What closes a message, the next role, is part of what the model says: it ends its own turn.
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


def tokenizer_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """Describe a tokenizer as `tokenizer.json` does."""
    if isinstance(tokenizer, ByteLevelTokenizer):
        return json.loads(tokenizer.to_bytes())
    return greedy_tokenizer_json(tokenizer.tokens)


def chat_template(tokenizer: Tokenizer) -> str | None:
    """Return the template of a tokenizer's conversations in Jinja, `None` if it knows none."""
    if not isinstance(tokenizer, ByteLevelTokenizer):
        return _DIMENSIONGPT_TEMPLATE
    is_lillm = {"<r0>", "<r1>", "</s>"} <= set(tokenizer.tokens)
    return _LILLM_TEMPLATE if is_lillm else None
