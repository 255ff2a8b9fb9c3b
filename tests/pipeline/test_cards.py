from dataclasses import replace

from dimgpt.pipeline.cards import languages_of
from dimgpt.presets import PRESETS


def test_the_texts_of_a_preset_have_its_language() -> None:
    for preset in PRESETS.values():
        assert languages_of(preset.data.sources) == preset.languages
        assert len(preset.languages) == 1
    assert languages_of(PRESETS["demo"].data.conversations) == ("fr",)


def test_of_other_texts_no_language_is_told() -> None:
    assert languages_of(()) == ()
    source = PRESETS["lillm-39m"].data.sources[0]
    assert languages_of([replace(source, path="mine.txt")]) == ()
    wikipedia = next(s for s in PRESETS["toygpt-small"].data.sources if s.name == "wikipedia")
    assert languages_of([wikipedia]) == ("en",)  # and not French, which has the same address
