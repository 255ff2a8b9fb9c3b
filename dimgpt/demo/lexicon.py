"""The words of the demo's small French world, as tables.

Regular plurals and feminines are derived by rule, the others are written `form/form`. This file
knows word forms only; `grammar` knows how words meet in a sentence.
"""

from dataclasses import dataclass
from typing import Literal

Gender = Literal["m", "f"]


@dataclass(frozen=True, slots=True)
class Name:
    """A first name."""

    text: str
    gender: Gender


@dataclass(frozen=True, slots=True)
class Noun:
    """A common noun."""

    singular: str
    plural: str
    gender: Gender


@dataclass(frozen=True, slots=True)
class Adjective:
    """An adjective, with a form for each gender and number."""

    masculine: str
    feminine: str
    masculine_plural: str
    feminine_plural: str


@dataclass(frozen=True, slots=True)
class Verb:
    """A regular verb in -er; movements take être in the passé composé."""

    infinitive: str
    uses_etre: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """A noun with the preposition that leads there: à, dans or sur."""

    preposition: str
    noun: Noun


@dataclass(frozen=True, slots=True)
class Weather:
    """A clause about the weather, in the présent and in the imparfait."""

    present: str
    imperfect: str


def plural(word: str) -> str:
    """Return the regular plural of a noun or of a masculine adjective."""
    if word.endswith(("s", "x", "z")):
        return word
    if word.endswith("al"):
        return word[:-1] + "ux"
    return word + ("x" if word.endswith(("eau", "eu")) else "s")


def feminine(word: str) -> str:
    """Return the regular feminine of an adjective or of a noun for a person."""
    if word.endswith("e"):
        return word
    for ending, replacement in (("er", "ère"), ("eux", "euse"), ("oux", "ouse"), ("if", "ive")):
        if word.endswith(ending):
            return word.removesuffix(ending) + replacement
    return word + "e"


def _nouns(words: str, gender: Gender) -> tuple[Noun, ...]:
    forms = (word.partition("/") for word in words.split())
    return tuple(Noun(one, many or plural(one), gender) for one, _, many in forms)


def _adjective(word: str) -> Adjective:
    """Build an adjective from `masculine`, or from `masculine/feminine[/masculine plural]`."""
    masculine, other, many = (*word.split("/"), "", "")[:3]
    other = other or feminine(masculine)
    return Adjective(masculine, other, many or plural(masculine), other + "s")


def _adjectives(words: str) -> tuple[Adjective, ...]:
    return tuple(_adjective(word) for word in words.split())


def _verbs(words: str, *, uses_etre: bool = False) -> tuple[Verb, ...]:
    return tuple(Verb(word, uses_etre) for word in words.split())


def _names(words: str, gender: Gender) -> tuple[Name, ...]:
    return tuple(Name(word, gender) for word in words.split())


def _pairs(words: str) -> tuple[tuple[Noun, Noun], ...]:
    """Build (masculine, feminine) nouns for people, regular or written `masculine/feminine`."""
    pairs = []
    for word in words.split():
        masculine, _, other = word.partition("/")
        other = other or feminine(masculine)
        pairs.append((Noun(masculine, plural(masculine), "m"), Noun(other, plural(other), "f")))
    return tuple(pairs)


NAMES = _names("Paul Louis Jules Tom Adam Marc Simon Victor Oscar Arthur Léo Noé", "m") + _names(
    "Léa Anna Emma Alice Zoé Inès Julie Marie Nina Rose Sarah Clara", "f"
)
PETS = _names("Milo Caramel Filou Plume Flocon Noisette Biscuit Pixel", "m")

ANIMALS = _nouns("chat chien lapin cheval âne oiseau canard mouton poisson", "m") + _nouns(
    "vache poule souris tortue chèvre abeille grenouille oie", "f"
)
THINGS = _nouns("livre chapeau manteau vélo ballon bateau stylo panier sac avion", "m") + _nouns(
    "robe voiture chaise lampe balle fleur écharpe assiette boîte valise", "f"
)
FOODS = _nouns("gâteau pain melon citron abricot biscuit bonbon fromage", "m") + _nouns(
    "pomme poire orange banane fraise cerise tarte carotte", "f"
)
PEOPLE = _pairs(
    "voisin ami cousin marchand étudiant boulanger fermier écolier infirmier avocat berger "
    "client chanteur/chanteuse danseur/danseuse acteur/actrice directeur/directrice "
    "roi/reine prince/princesse"
)

COLOURS = _adjectives(
    "rouge bleu/bleue/bleus vert jaune noir blanc/blanche gris rose brun violet/violette"
)
FEELINGS = _adjectives(
    "content triste calme fatigué heureux fier surpris inquiet/inquiète malade seul"
)
TRAITS = _adjectives("rapide lent calme drôle sage fort timide bavard curieux prudent")
OPPOSITES = tuple(
    (_adjective(one), _adjective(other))
    for one, other in (
        pair.split(":")
        for pair in (
            "grand:petit chaud:froid rapide:lent fort:faible jeune:vieux/vieille lourd:léger "
            "haut:bas/basse plein:vide propre:sale long/longue:court riche:pauvre clair:sombre "
            "sec/sèche:mouillé ouvert:fermé facile:difficile gros/grosse:mince vrai:faux/fausse "
            "dur:mou/molle"
        ).split()
    )
)

USES = _verbs("porter chercher trouver regarder cacher garder montrer laver")
MEALS = _verbs("manger goûter préparer partager couper")
CARES = _verbs("caresser chercher regarder laver garder trouver")
ACTS = _verbs("chanter danser jouer parler travailler dessiner rêver marcher sauter dîner pleurer")
MOVES = _verbs("arriver rester entrer monter tomber rentrer", uses_etre=True)
CONJUGATED = _verbs(
    "adorer aider ajouter allumer apporter arroser attraper avaler brosser brûler casser chasser "
    "coller compter copier coiffer cuisiner décorer deviner discuter demander éviter expliquer "
    "fermer fouiller gagner glisser habiter hésiter imaginer imiter inventer inviter laisser "
    "mesurer noter observer oublier pêcher plier pousser prêter raconter ramasser ranger réparer "
    "respirer saluer signer siffler soigner tirer tourner traverser tricoter voyager"
)

PLACES = tuple(
    Place(preposition, noun)
    for preposition, masculine, others in (
        ("à", "marché parc village bureau", "école gare plage ferme"),
        ("dans", "jardin salon train garage", "cuisine forêt chambre rue"),
        ("sur", "pont toit", "colline place"),
    )
    for noun in _nouns(masculine, "m") + _nouns(others, "f")
)
WEATHERS = (
    Weather("il pleut", "il pleuvait"),
    Weather("il neige", "il neigeait"),
    Weather("il fait beau", "il faisait beau"),
    Weather("il fait froid", "il faisait froid"),
    Weather("il fait chaud", "il faisait chaud"),
    Weather("le soleil brille", "le soleil brillait"),
    Weather("le vent souffle", "le vent soufflait"),
)
NUMBERS = tuple(str(number) for number in range(2, 10))

COLOUR_FACTS = tuple(
    (subject, gender, _adjective(colour))
    for subject, gender, colour in (
        fact.split(":")
        for fact in (
            "le ciel:m:bleu/bleue/bleus,la neige:f:blanc/blanche,l'herbe:f:vert,le soleil:m:jaune,"
            "le lait:m:blanc/blanche,la nuit:f:noir,le citron:m:jaune,la mer:f:bleu/bleue/bleus,"
            "la fraise:f:rouge,la tomate:f:rouge,le charbon:m:noir,la banane:f:jaune,"
            "le sang:m:rouge,la souris:f:gris,l'éléphant:m:gris,le corbeau:m:noir,"
            "le cochon:m:rose,l'ours:m:brun,la cerise:f:rouge,la grenouille:f:vert,"
            "le sapin:m:vert,le chocolat:m:brun,le sel:m:blanc/blanche,le flamant:m:rose,"
            "la violette:f:violet/violette,le nuage:m:blanc/blanche"
        ).split(",")
    )
)
