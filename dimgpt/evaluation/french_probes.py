"""French minimal pairs: a correct sentence, and one that a small change makes wrong.

Each kind tests one rule. If two forms compete (singular and plural, masculine and feminine), each
is correct about equally often. So a model that only prefers the more frequent form scores 50 %, as
by chance. The pairs are always the same, and none occurs twice.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from dimgpt.evaluation.french_facts import fact_pairs
from dimgpt.evaluation.french_words import (
    ADJECTIVES,
    CONJUGATIONS,
    DEEDS,
    DOINGS,
    FUTURES,
    HEADS,
    PEOPLE,
    THINGS,
    VOWEL_NOUNS,
    table,
)
from dimgpt.evaluation.probes import Pair

Item = TypeVar("Item")
Sentences = Iterator[tuple[str, str]]
_SUBJECTS = ("Il", "Elle", "Mon frère", "La reine")
_MEN = ("Il", "Mon père", "Le roi", "Le soldat", "Mon frère", "Le voisin", "Le médecin")
_TIMES = ("ce matin", "hier soir", "après le dîner")


def french_pairs() -> list[Pair]:
    """Return all pairs, kind by kind."""
    return [Pair(kind, *both) for kind, make in _KINDS.items() for both in make()]


def _both(left: str, right: str, frame: str, other: str) -> Sentences:
    """Yield two pairs: `left` is right in `frame`, and `right` is right in `other`."""
    yield frame.format(left), frame.format(right)
    yield other.format(right), other.format(left)


def _verb_number() -> Sentences:
    for number, (one, many) in enumerate(PEOPLE):
        for does, do, rest in _turn(DOINGS, number, 4):
            yield from _both(does, do, f"{one} {{}} {rest}.", f"{many} {{}} {rest}.")


def _verb_number_across_a_noun() -> Sentences:
    for number, (one, many) in enumerate(HEADS):
        for does, do, rest in _turn(DOINGS, number, 7):
            yield from _both(does, do, f"{one} {{}} {rest}.", f"{many} {{}} {rest}.")


def _determiner_gender() -> Sentences:
    frames = (
        "Nous avons vu {} {} hier soir.",
        "Elle montre {} {} à son frère.",
        "Il a dessiné {} {} sur le papier.",
    )
    for number, (masculine, feminine) in enumerate(THINGS):
        for place, (le, la) in enumerate([("un", "une"), ("le", "la"), ("ce", "cette")]):
            frame = frames[(number + place) % len(frames)]
            yield frame.format(le, masculine[0]), frame.format(la, masculine[0])
            yield frame.format(la, feminine[0]), frame.format(le, feminine[0])


def _adjective_gender() -> Sentences:
    for number, (masculine, feminine) in enumerate(THINGS):
        verb = ("était très", "semble bien", "n'est pas")[number % 3]
        for grand, grande, *_ in _turn(ADJECTIVES, number, 4):
            frames = f"Le {masculine[0]} {verb} {{}}.", f"La {feminine[0]} {verb} {{}}."
            yield from _both(grand, grande, *frames)


def _adjective_number() -> Sentences:
    for number, things in enumerate(THINGS):
        for article, column, (one, many) in zip(("Le", "La"), (0, 1), things, strict=True):
            for adjective in _turn(ADJECTIVES, number, 2):
                forms = adjective[column], adjective[column + 2]
                if forms[0] != forms[1]:
                    frames = f"{article} {one} était très {{}}.", f"Les {many} étaient très {{}}."
                    yield from _both(*forms, *frames)


def _participle() -> Sentences:
    stems = ("parti", "arrivé", "venu", "tombé", "entré", "sorti", "revenu", "descendu", "rentré")
    men, women = ("Il", "Ils", "Mon père", "Mes frères"), ("Elle", "Elles", "Ma mère", "Mes sœurs")
    for number, (man, woman) in enumerate(zip(men, women, strict=True)):
        is_plural = man in ("Ils", "Mes frères")
        verb, ending = ("sont", "s") if is_plural else ("est", "")
        for place, stem in enumerate(stems):
            rest = f"{verb} {{}} {_TIMES[(number + place) % 3]}."
            forms = f"{stem}{ending}", f"{stem}e{ending}"
            yield from _both(*forms, f"{man} {rest}", f"{woman} {rest}")


def _negation() -> Sentences:
    for number, (does, _, rest) in enumerate(DOINGS):
        for place, word in enumerate(("pas", "plus", "jamais")):
            subject, ne = _SUBJECTS[(number + place) % 4], "n'" if does[0] in "aé" else "ne "
            yield f"{subject} {ne}{does} {word} {rest}.", f"{subject} ne {word} {does} {rest}."
    for number, (done, what) in enumerate(DEEDS):
        subject, time = _SUBJECTS[number % 4], _TIMES[number % 3]
        for word in ("pas", "pas encore"):
            yield f"{subject} n'a {word} {done} {what}.", f"{subject} n'a {done} {word} {what}."
        yield f"{subject} n'a rien {done} {time}.", f"{subject} n'a {done} rien {time}."


def _plural_after_numbers() -> Sentences:
    frames = ("Elle a regardé {} avec soin.", "Nous avons dessiné {} hier soir.")
    numbers = ("deux", "trois", "quatre", "cinq", "dix", "vingt", "plusieurs", "quelques")
    for place, things in enumerate(THINGS):
        for un, (one, many) in zip(("un", "une"), things, strict=True):
            frame = frames[place % 2]
            for single, several in zip((un, "chaque"), _turn(numbers, place, 2), strict=True):
                single_frame, frame_of_many = (
                    frame.format(f"{word} {{}}") for word in (single, several)
                )
                yield from _both(one, many, single_frame, frame_of_many)


def _number_words() -> Sentences:
    units = ("deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf")
    for ten in ("vingt", "trente", "quarante", "cinquante", "soixante"):
        for frame in ("Il a marché pendant {} jours.", "Nous avons compté {} moutons."):
            yield frame.format(f"{ten} et un"), frame.format(f"un et {ten}")
            for unit in units:
                yield frame.format(f"{unit} cent {ten}"), frame.format(f"{ten} cent {unit}")


def _clitic_position() -> Sentences:
    verbs = ("voit", "cherche", "regarde", "suit", "poursuit", "surveille", "garde")
    places = ("dans la rue", "devant la maison", "toute la journée")
    for number, pronoun in enumerate(("le", "la", "les", "me", "te", "nous", "vous")):
        for place, verb in enumerate(verbs):
            subject, where = _SUBJECTS[(number + place) % 4], places[(number + place) % 3]
            yield f"{subject} {pronoun} {verb} {where}.", f"{subject} {verb} {pronoun} {where}."
    for number, verb in enumerate(("parle", "répond", "sourit", "ment")):
        for pronoun in ("lui", "leur"):
            for subject, where in zip(_SUBJECTS[:3], _turn(places, number, 3), strict=True):
                yield f"{subject} {pronoun} {verb} {where}.", f"{subject} {verb} {pronoun} {where}."


def _clitic_order() -> Sentences:
    verbs = ("donne", "montre", "rend", "prête", "porte", "vend", "lit", "promet")
    orders = [(me, le) for me in ("me", "te", "nous", "vous") for le in ("le", "la", "les")]
    orders += [(le, lui) for lui in ("lui", "leur") for le in ("le", "la", "les")]
    for number, (first, second) in enumerate(orders):
        for place, verb in enumerate(_turn(verbs, number, 5)):
            subject = _SUBJECTS[(number + place) % 4]
            rest = f"{verb} {('demain', 'ce soir', 'tout de suite')[place % 3]}."
            yield f"{subject} {first} {second} {rest}", f"{subject} {second} {first} {rest}"


def _contraction() -> Sentences:
    for masculine, feminine in THINGS:
        for frame, à, au, aux in (
            ("Il parle {} {} à son frère.", "de", "du", "des"),
            ("Elle pense {} {} toute la journée.", "à", "au", "aux"),
        ):
            yield frame.format(au, masculine[0]), frame.format(f"{à} le", masculine[0])
            yield frame.format(f"{à} la", feminine[0]), frame.format(au, feminine[0])
            yield frame.format(aux, masculine[1]), frame.format(f"{à} les", masculine[1])


def _elision() -> Sentences:
    for number, (article, one, many) in enumerate(VOWEL_NOUNS):
        thing, several = THINGS[number][number % 2]
        yield f"Il regarde l'{one} avec soin.", f"Il regarde {article} {one} avec soin."
        yield f"Il regarde {article} {thing} avec soin.", f"Il regarde l'{thing} avec soin."
        yield f"Elle voit beaucoup d'{many}.", f"Elle voit beaucoup de {many}."
        yield f"Elle voit beaucoup de {several}.", f"Elle voit beaucoup d'{several}."
    for vowel, other in (("arrive", "marche"), ("écoute", "parle"), ("entre", "sors")):
        yield f"J'{vowel} avec mon frère.", f"Je {vowel} avec mon frère."
        yield f"Je {other} avec mon frère.", f"J'{other} avec mon frère."


def _verb_person() -> Sentences:
    persons = ("Je", "Tu", "Il", "Nous", "Vous", "Ils")
    for *forms, rest in CONJUGATIONS:
        for place, person in enumerate(persons):
            right = forms[place]
            # Two wrong forms: the same person in the other number, and another person.
            for wrong in sorted({forms[(place + 3) % 6], forms[(place + 2) % 6]} - {right}):
                yield f"{person} {right} {rest}.", f"{person} {wrong} {rest}."


def _word_order() -> Sentences:
    colours = (("rouge", "rouge"), ("bleu", "bleue"), ("jaune", "jaune"), ("vert", "verte"))
    for number, things in enumerate(THINGS):
        for gender, (thing, _) in enumerate(things):
            le, un, colour = (
                ("le", "la")[gender],
                ("un", "une")[gender],
                colours[number % 4][gender],
            )
            yield f"Nous avons vu {le} {thing} ce matin.", f"Nous avons vu {thing} {le} ce matin."
            yield f"Il marche vers {le} {thing}.", f"Il marche {le} vers {thing}."
            yield f"Elle a dessiné {un} {thing} {colour}.", f"Elle a dessiné {un} {colour} {thing}."
    for number, (done, what) in enumerate(DEEDS):
        subject = _SUBJECTS[number % 4]
        yield f"{subject} a {done} {what}.", f"{subject} {what} a {done}."


def _auxiliary() -> Sentences:
    gone = ("parti", "arrivé", "venu", "revenu", "tombé", "mort")
    slept = ("dormi", "marché", "voyagé", "souri", "hésité", "menti")
    for number, man in enumerate(_MEN):
        for place, (went, did) in enumerate(zip(gone, slept, strict=True)):
            time = _TIMES[(number + place) % 3]
            yield from _both("est", "a", f"{man} {{}} {went} {time}.", f"{man} {{}} {did} {time}.")


def _relative() -> Sentences:
    clauses = ("tu cherches", "nous attendons", "vous regardez", "le roi connaît")
    # Before a vowel, `que` becomes `qu'`, which would give the answer away.
    doings = tuple(doing for doing in DOINGS if doing[0][0] not in "aé")
    for number, (one, _) in enumerate(PEOPLE):
        who = f"Voici {one[0].lower()}{one[1:]} {{}} "
        for (does, _, rest), clause in zip(_turn(doings, number, 4), clauses, strict=True):
            yield from _both("qui", "que", f"{who}{does} {rest}.", f"{who}{clause}.")


def _tense() -> Sentences:
    times = table("""Demain/Hier; La semaine prochaine/La semaine dernière;
        Dans deux jours/Il y a deux jours; L'année prochaine/L'année dernière""")
    for number, (will, was, rest) in enumerate(FUTURES):
        for place, (later, before) in enumerate(times):
            subject = ("il", "elle", "mon frère", "la reine")[(number + place) % 4]
            frames = f"{{}}, {subject} {will} {rest}.", f"{{}}, {subject} {was} {rest}."
            yield from _both(later, before, *frames)


def _turn(items: Sequence[Item], first: int, count: int) -> Iterator[Item]:
    """Yield `count` neighbours in a ring, starting at another place for each `first`."""
    return (items[(first * count + place) % len(items)] for place in range(count))


_KINDS = {
    "verb_number": _verb_number,
    "verb_number_across_a_noun": _verb_number_across_a_noun,
    "verb_person": _verb_person,
    "auxiliary": _auxiliary,
    "tense": _tense,
    "participle": _participle,
    "determiner_gender": _determiner_gender,
    "adjective_gender": _adjective_gender,
    "adjective_number": _adjective_number,
    "plural_after_numbers": _plural_after_numbers,
    "number_words": _number_words,
    "negation": _negation,
    "clitic_position": _clitic_position,
    "clitic_order": _clitic_order,
    "contraction": _contraction,
    "elision": _elision,
    "relative": _relative,
    "word_order": _word_order,
    "facts": fact_pairs,
}
