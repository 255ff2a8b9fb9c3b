"""A chat format as the Jinja template that other programs read.

https://huggingface.co/docs/transformers/chat_templating. Rendered and encoded, it gives the ids of
`ChatIds` for a complete conversation, or for a prompt. `{% generation %}` marks the learned text;
`transformers` makes a mask from it. There is one difference: if the text of a message spells a
special token, other programs read that token.
"""

import re
from string import Template

from dimgpt.text.chat_format import ChatFormat

_TEMPLATE = Template("""\
{%- set openers = $openers %}
{%- set closers = $closers %}
{%- set state = namespace(is_learned=false) %}
{{- $beginning -}}
{%- for message in messages$filter %}
{%- set role = $role %}
{%- if loop.first %}{{- openers[role] -}}{% endif %}
{%- if role in $learned %}{% set state.is_learned = true %}
{%- elif role in $unlearned %}{% set state.is_learned = false %}{% endif %}
{%- if loop.last %}{% set next = $last %}
{%- else %}{% set next = openers[$next_role] %}{% endif %}
{%- set text = $text + $closer %}
{%- if state.is_learned %}{% generation %}{{- text -}}{% endgeneration %}
{%- else %}{{- text -}}{% endif %}
{{- $rest -}}
{%- endfor %}""")


def chat_template(chat: ChatFormat, *, first_space: bool = False) -> str:
    """Write a format as a template.

    Args:
        chat: The format.
        first_space: Write the space that the tokenizer puts before each stretch of text, for a
            program that does not. An empty answer gets one, too.
    """
    names, stops = ("|".join(map(re.escape, part)) for part in (chat.special_tokens, chat.stops))
    openers, closers = dict(chat.openers), dict(chat.closers)
    if first_space:
        for edges in (openers, closers):
            for role, edge in edges.items():
                edges[role] = re.sub(rf"({names})(?!{names}| |\Z)", r"\1 ", edge)
    # A learned message ends with a stop; without closers, with the opener of the next message.
    parts = {role: re.split(f"({stops})", closer, maxsplit=1) for role, closer in closers.items()}
    stopping = [role for role, opener in openers.items() if re.search(stops, opener)]
    other = chat.other_role
    instead = "" if other is None else f" if {{role}} in openers else {other!r}"
    return _TEMPLATE.substitute(
        openers=openers,
        closers={role: ["".join(part[:2]), "".join(part[2:])] for role, part in parts.items()},
        beginning=repr(chat.beginning or ""),
        filter=" if message.role in openers" if other is None else "",
        role="message.role" + instead.format(role="message.role"),
        next_role="loop.nextitem.role" + instead.format(role="loop.nextitem.role"),
        learned=[*chat.learned],
        unlearned=[role for role in closers if role not in chat.learned] or stopping,
        last=f"{openers['assistant']!r} if add_generation_prompt else {chat.end or ''!r}",
        text=_message_text(chat, first_space=first_space),
        closer="closers[role][0]" if closers else "next",
        rest="closers[role][1] + next" if closers else "''",
    )


def _message_text(chat: ChatFormat, *, first_space: bool) -> str:
    text = "message.content"
    if chat.cleaned:
        text += "".join(f" | replace({letter!r}, '')" for letter in chat.cleaned) + " | trim"
    elif chat.strips:
        text += ".lstrip()"
    if first_space and chat.openers["assistant"].endswith(chat.special_tokens):
        text = f"('' if {text}.startswith(' ') else ' ') + {text}"
    return text
