"""The grammar of the demo's French: word forms, and templates that generate and parse alike.

A template is a sentence with slots, `"{name} a {animal a} {colour agree animal}."`. A slot holds
a variable, the form that it takes, and the variables that it agrees with. The digits at the end of
a variable are dropped to find its words, so `name` and `name2` are two different people.
Only singular third persons and their plurals occur in templates; `conjugate` knows all six.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from dimgpt.demo.lexicon import WORDS, Adjective, Name, Noun, Place, Verb

Binding = dict[str, Any]

PERSONS = ("je", "tu", "il", "nous", "vous", "ils")
TENSES = ("présent", "imparfait", "passé composé")
_PRESENT = ("e", "es", "e", "ons", "ez", "ent")
_IMPERFECT = ("ais", "ais", "ait", "ions", "iez", "aient")
_HAVE = ("ai", "as", "a", "avons", "avez", "ont")
_BE = ("suis", "es", "est", "sommes", "êtes", "sont")


def capitalize(text: str) -> str:
    """Return the text with its first letter in upper case, the rest as it is."""
    return text[:1].upper() + text[1:]


def _begins_with_vowel(word: str) -> bool:
    return word[0].lower() in "aeiouyàâäéèêëîïôöùûü"


def elide(word: str, following: str) -> str:
    """Join a short word to the next one: `de` + `Anna` is `d'Anna`, `le` + `chat` is `le chat`."""
    return f"{word[:-1]}'{following}" if _begins_with_vowel(following) else f"{word} {following}"


def the(noun: Noun) -> str:
    """Return the noun with le, la or l'."""
    return elide("le" if noun.gender == "m" else "la", noun.singular)


def a(noun: Noun) -> str:
    """Return the noun with un or une."""
    return f"{'un' if noun.gender == 'm' else 'une'} {noun.singular}"


def own(owner: str, noun: Noun) -> str:
    """Return a noun after its possessive, such as "mon chat"; "sa" becomes "son" before a vowel.

    `owner` is the first letter of the possessive: m, t or s.
    """
    is_masculine = noun.gender == "m" or _begins_with_vowel(noun.singular)
    return f"{owner}{'on' if is_masculine else 'a'} {noun.singular}"


def how_nice(noun: Noun) -> str:
    """Return the noun in an exclamation: Quel beau chat, Quel bel âne, Quelle belle vache."""
    if noun.gender == "f":
        return f"Quelle belle {noun.singular}"
    return f"Quel {'bel' if _begins_with_vowel(noun.singular) else 'beau'} {noun.singular}"


def of(word: Noun | Name) -> str:
    """Return the noun with de: du chat, de l'âne, de Paul, d'Anna."""
    if isinstance(word, Name):
        return elide("de", word.text)
    return f"du {word.singular}" if the(word).startswith("le ") else f"de {the(word)}"


def at(place: Place) -> str:
    """Return the place with its preposition: au parc, à l'école, dans le jardin."""
    if place.preposition == "à" and the(place.noun).startswith("le "):
        return f"au {place.noun.singular}"
    return f"{place.preposition} {the(place.noun)}"


def are_feminine(*words: Noun | Name) -> bool:
    """Return whether all words are feminine; one masculine word makes the agreement masculine."""
    return all(word.gender == "f" for word in words)


def agree(adjective: Adjective, *owners: Noun | Name) -> str:
    """Return the singular that agrees with one owner, or the plural that agrees with several."""
    if len(owners) > 1:
        plurals = adjective.masculine_plural, adjective.feminine_plural
        return plurals[are_feminine(*owners)]
    return adjective.feminine if are_feminine(*owners) else adjective.masculine


def finite(verb: Verb, tense: str, person: int, *, is_feminine: bool = False) -> str:
    """Conjugate without the pronoun; `person` is 0..5 for je .. ils."""
    root = verb.infinitive.removesuffix("er")
    if tense == "passé composé":
        if not verb.uses_etre:
            return f"{_HAVE[person]} {root}é"
        return f"{_BE[person]} {root}é{'e' * is_feminine}{'s' * (person > 2)}"
    ending = (_PRESENT if tense == "présent" else _IMPERFECT)[person]
    # Nous mangeons, il mangeait.
    return root + "e" * (root.endswith("g") and ending[0] in "ao") + ending


def conjugate(verb: Verb, tense: str, person: int) -> str:
    """Conjugate with the masculine pronoun: `nous chantons`, `j'ai chanté`."""
    form = finite(verb, tense, person)
    return elide("je", form) if person == 0 else f"{PERSONS[person]} {form}"


def _perfect(verb: Verb, *subjects: Name | Noun) -> str:
    person = 5 if len(subjects) > 1 else 2
    return finite(verb, "passé composé", person, is_feminine=are_feminine(*subjects))


FORMS: Mapping[str, Callable[..., str]] = {
    "": lambda word: word.text if isinstance(word, Name) else word,
    "that": lambda name: elide("que", name.text),
    "he": lambda word: "elle" if are_feminine(word) else "il",
    "they": lambda *words: "elles" if are_feminine(*words) else "ils",
    "e": lambda word: "e" * are_feminine(word),  # of a feminine participle
    "a": a,
    "the": the,
    "how_nice": how_nice,
    "my": lambda noun: own("m", noun),
    "your": lambda noun: own("t", noun),
    "his": lambda noun: own("s", noun),
    "of": of,
    "plural": lambda noun: noun.plural,
    "the_all": lambda noun: f"les {noun.plural}",
    "of_all": lambda noun: elide("de", noun.plural),
    "at": at,
    "agree": agree,
    "agree_all": lambda adjective, noun: agree(adjective, noun, noun),
    "to": lambda verb: elide("de", verb.infinitive),
    "present": lambda verb: finite(verb, "présent", 2),
    "present_all": lambda verb: finite(verb, "présent", 5),
    "i_present": lambda verb: capitalize(conjugate(verb, "présent", 0)),  # opens a quotation
    "imperfect": lambda verb: finite(verb, "imparfait", 2),
    "imperfect_all": lambda verb: finite(verb, "imparfait", 5),
    "perfect": _perfect,
    "not_present": lambda verb: f"{elide('ne', finite(verb, 'présent', 2))} pas",
    "not_imperfect": lambda verb: f"{elide('ne', finite(verb, 'imparfait', 2))} pas",
    "now": lambda weather: weather.present,
    "then": lambda weather: weather.imperfect,
}
"""Name of a form -> the words in it."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot of a template: its word, its form, and the words with which it agrees."""

    variable: str
    form: str
    names: tuple[str, ...]
    """The variable, and those with which it agrees."""

    @property
    def words(self) -> Sequence[Any]:
        """Every possible word of the slot."""
        return WORDS[_kind(self.variable)]


@cache
def _kind(variable: str) -> str:
    return variable.rstrip("0123456789")


@cache
def parts(template: str) -> tuple[str | Slot, ...]:
    """Cut a template into literal text and slots."""
    pieces: list[str | Slot] = []
    for index, piece in enumerate(re.split(r"\{(.*?)\}", template)):
        if index % 2:
            variable, _, agreement = piece.partition(" ")
            form, *owners = agreement.split(" ")
            pieces.append(Slot(variable, form, (variable, *owners)))
        elif piece:
            pieces.append(piece)
    return tuple(pieces)


@cache
def _surface(form: str, *words: Any) -> str:
    return FORMS[form](*words)


def _render(part: str | Slot, binding: Binding, *, is_first: bool) -> str:
    if isinstance(part, Slot):
        part = _surface(part.form, *(binding[name] for name in part.names))
    return capitalize(part) if is_first else part


def _free_words(slot: Slot, binding: Binding) -> list[Any]:
    """Return the words that a slot may take: the bound one, else those not yet taken."""
    if slot.variable in binding:
        return [binding[slot.variable]]
    kind = _kind(slot.variable)
    taken = [word for variable, word in binding.items() if _kind(variable) == kind]
    return [word for word in slot.words if word not in taken]


def fill(template: str, binding: Binding, rng: Random) -> str:
    """Write a sentence; words drawn for new variables are added to `binding`."""
    pieces = []
    for part in parts(template):
        if isinstance(part, Slot):
            if part.variable not in binding:
                binding[part.variable] = rng.choice(_free_words(part, binding))
            part = _surface(part.form, *[binding[name] for name in part.names])
        pieces.append(part)
    return capitalize("".join(pieces))


def parse(template: str, sentence: str) -> Binding | None:
    """Return the words with which the template gives exactly this sentence, or `None`."""
    return next(_parses(parts(template), sentence, 0, {}), None)


def _parses(
    rest: tuple[str | Slot, ...], sentence: str, start: int, binding: Binding
) -> Iterator[Binding]:
    """Yield each way to read the sentence from `start` to its end as these parts."""
    if not rest:
        if start == len(sentence):
            yield binding
        return
    part, bindings = rest[0], [binding]
    if isinstance(part, Slot):
        bindings = [{**binding, part.variable: word} for word in _free_words(part, binding)]
    for bound in bindings:
        surface = _render(part, bound, is_first=start == 0)
        if sentence.startswith(surface, start):
            yield from _parses(rest[1:], sentence, start + len(surface), bound)
