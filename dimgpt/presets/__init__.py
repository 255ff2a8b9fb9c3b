"""The systems that can be run by name, as plain tables of settings.

`demo` trains in minutes on any machine, from a generated corpus. `french-5m` is the real run of the
README, for a computer without a GPU. `dimensiongpt-0.2b` is the published model, and `lillm-…` and
`toygpt-…` are the two other systems, with their own data and tokenizers. The two French ones also
exist with the modern recipe, as `…-modern`.
"""

from dimgpt.config import Preset
from dimgpt.presets.modern import modern
from dimgpt.presets.published import DIMENSIONGPT, PUBLISHED
from dimgpt.presets.small import DEMO, FRENCH_5M
from dimgpt.settings import nearest

__all__ = ["PRESETS", "Preset", "get_preset"]

# French-5m reads some texts five times, which an untied output memorises.
_MODERN = (modern(FRENCH_5M, leave_out=["untied output"]), modern(DIMENSIONGPT))
PRESETS = {preset.name: preset for preset in (DEMO, FRENCH_5M, *PUBLISHED, *_MODERN)}


def get_preset(name: str) -> Preset:
    """Return a preset by name.

    Raises:
        ValueError: There is none of that name.
    """
    if name not in PRESETS:
        raise ValueError(
            f"preset is {name!r}{nearest(name, PRESETS)}: choose one of {', '.join(PRESETS)}"
        )
    return PRESETS[name]
