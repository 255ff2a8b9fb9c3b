"""The words and phrases of the demo's small French world, as tables.

Regular plurals and feminines are derived by rule, the others are written `form/form`. This file
holds word forms only; `grammar` makes sentences of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

Gender = Literal["m", "f"]


class Name(NamedTuple):
    """A first name."""

    text: str
    gender: Gender


class Noun(NamedTuple):
    """A common noun."""

    singular: str
    plural: str
    gender: Gender


class Adjective(NamedTuple):
    """An adjective, with a form for each gender and number."""

    masculine: str
    feminine: str
    masculine_plural: str
    feminine_plural: str


class Verb(NamedTuple):
    """A regular verb in -er; verbs of movement take être in the passé composé."""

    infinitive: str
    uses_etre: bool = False


class Place(NamedTuple):
    """A noun with the preposition that leads there: à, dans or sur."""

    preposition: str
    noun: Noun


class Weather(NamedTuple):
    """A clause about the weather, in the présent and in the imparfait."""

    present: str
    imperfect: str


def plural(word: str) -> str:
    """Return the regular plural of a French noun or masculine adjective."""
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


def _nouns(masculine: str, feminine: str) -> tuple[Noun, ...]:
    genders: tuple[tuple[str, Gender], ...] = ((masculine, "m"), (feminine, "f"))
    return tuple(
        Noun(word, plural(word), gender) for words, gender in genders for word in words.split()
    )


def _adjectives(words: str) -> tuple[Adjective, ...]:
    """Build adjectives from `masculine`, or from `masculine/feminine[/masculine plural]`."""
    adjectives = []
    for word in words.split():
        masculine, other, many = (*word.split("/"), "", "")[:3]
        other = other or feminine(masculine)
        adjectives.append(Adjective(masculine, other, many or plural(masculine), other + "s"))
    return tuple(adjectives)


def _verbs(words: str, *, uses_etre: bool = False) -> tuple[Verb, ...]:
    return tuple(Verb(word, uses_etre) for word in words.split())


def _places(*groups: tuple[str, str, str]) -> tuple[Place, ...]:
    """Build places from a preposition, masculine nouns and feminine nouns."""
    return tuple(Place(first, noun) for first, *words in groups for noun in _nouns(*words))


def _names(words: str, gender: Gender) -> tuple[Name, ...]:
    return tuple(Name(word, gender) for word in words.split())


WORDS: Mapping[str, Sequence[Any]] = {
    "name": _names("Paul Louis Jules Tom Adam Marc Simon Victor Oscar Arthur Léo Noé", "m")
    + _names("Léa Anna Emma Alice Zoé Inès Julie Marie Nina Rose Sarah Clara", "f"),
    "pet": _names("Milo Caramel Filou Plume Flocon Noisette Biscuit Pixel", "m"),
    "animal": _nouns(
        "chat chien lapin cheval âne oiseau canard mouton poisson",
        "vache poule souris tortue chèvre abeille grenouille oie",
    ),
    "thing": _nouns(
        "livre chapeau manteau vélo ballon bateau stylo panier sac avion",
        "robe voiture chaise lampe balle fleur écharpe assiette boîte valise",
    ),
    "food": _nouns(
        "gâteau pain melon citron abricot biscuit bonbon fromage",
        "pomme poire orange banane fraise cerise tarte carotte",
    ),
    "warm": _nouns("manteau pull bonnet", "écharpe veste"),
    "fear": _nouns("noir loup vent orage", "nuit sorcière"),
    "place": _places(
        ("à", "marché parc village bureau", "école gare plage ferme"),
        ("dans", "jardin salon train garage", "cuisine forêt chambre rue"),
        ("sur", "pont toit", "colline place"),
    ),
    "spot": _places(
        ("derrière", "mur arbre rideau", "porte maison"), ("sous", "lit banc", "table")
    ),
    "colour": _adjectives(
        "rouge bleu/bleue/bleus vert jaune noir blanc/blanche gris rose brun violet/violette"
    ),
    "feeling": _adjectives(
        "content triste calme fatigué heureux fier surpris inquiet/inquiète malade seul"
    ),
    "glad": _adjectives("content heureux ravi"),
    "sad": _adjectives("triste inquiet/inquiète malheureux"),
    "trait": _adjectives("rapide lent calme drôle sage fort timide bavard curieux prudent"),
    "use": _verbs("porter chercher trouver regarder cacher garder montrer laver"),
    "eat": _verbs("manger goûter préparer partager couper"),
    "care": _verbs("caresser chercher regarder laver garder trouver"),
    "act": _verbs(
        "chanter danser jouer parler travailler dessiner rêver marcher sauter dîner pleurer"
    ),
    "move": _verbs("arriver rester entrer monter tomber rentrer", uses_etre=True),
    "weather": (
        Weather("il pleut", "il pleuvait"),
        Weather("il neige", "il neigeait"),
        Weather("il fait beau", "il faisait beau"),
        Weather("il fait froid", "il faisait froid"),
        Weather("il fait chaud", "il faisait chaud"),
        Weather("le soleil brille", "le soleil brillait"),
        Weather("le vent souffle", "le vent soufflait"),
    ),
    "number": tuple("23456789"),
}
"""What may stand in a slot of a template."""

PEOPLE = _adjectives(  # nouns for people: their genders are formed like those of adjectives
    "voisin ami cousin marchand étudiant boulanger fermier écolier infirmier avocat berger client "
    "chanteur/chanteuse danseur/danseuse acteur/actrice directeur/directrice roi/reine "
    "prince/princesse"
)
CONJUGATED = _verbs(
    "adorer aider ajouter allumer apporter arroser attraper avaler brosser brûler casser chasser "
    "coller compter copier coiffer cuisiner décorer deviner discuter demander éviter expliquer "
    "fermer fouiller gagner glisser habiter hésiter imaginer imiter inventer inviter laisser "
    "mesurer noter observer oublier pêcher plier pousser prêter raconter ramasser ranger réparer "
    "respirer saluer signer siffler soigner tirer tourner traverser tricoter voyager"
)
OPPOSITES = tuple(
    pair.split(":")
    for pair in (
        "grand:petit chaud:froid rapide:lent fort:faible jeune:vieux lourd:léger haut:bas "
        "plein:vide propre:sale long:court riche:pauvre clair:sombre sec:mouillé ouvert:fermé "
        "facile:difficile gros:mince vrai:faux dur:mou"
    ).split()
)
COLOUR_FACTS = tuple(
    fact.split(":")
    for fact in (
        "le ciel:Il est bleu,la neige:Elle est blanche,l'herbe:Elle est verte,"
        "le soleil:Il est jaune,le lait:Il est blanc,la nuit:Elle est noire,"
        "le citron:Il est jaune,la mer:Elle est bleue,la fraise:Elle est rouge,"
        "la tomate:Elle est rouge,le charbon:Il est noir,la banane:Elle est jaune,"
        "le sang:Il est rouge,la souris:Elle est grise,l'éléphant:Il est gris,"
        "le corbeau:Il est noir,le cochon:Il est rose,l'ours:Il est brun,"
        "la cerise:Elle est rouge,la grenouille:Elle est verte,le sapin:Il est vert,"
        "le chocolat:Il est brun,le sel:Il est blanc,le flamant:Il est rose,"
        "la violette:Elle est violette,le nuage:Il est blanc"
    ).split(",")
)

OPENERS = (
    "{} ?|Dis-moi {}.|Sais-tu {} ?|Peux-tu me dire {} ?|Devine {}.|À ton avis, {} ?|"
    "S'il te plaît, {} ?|Je voudrais savoir {}.|Question : {} ?|Et maintenant, {} ?|"
    "Rappelle-moi {}.|J'ai oublié {}."
).split("|")
"""Ways to ask an indirect question, such as "quel est le contraire de grand"."""
DIRECT_OPENERS = (
    "{} ?|Bonjour, {} ?|Question : {} ?|S'il te plaît, {} ?|Dis, {} ?|Alors, {} ?|Au fait, {} ?|"
    "Et toi, {} ?|Salut, {} ?|Une question : {} ?|Bon, {} ?|Excuse-moi, {} ?|Pardon, {} ?|"
    "Bonsoir, {} ?|Dis donc, {} ?|Allez, {} ?"
).split("|")
"""Ways to ask a direct question, such as "que fais-tu"."""
IDENTITY = (
    ("qui es-tu|comment t'appelles-tu|quel est ton nom|tu es qui", "Je suis DimensionGPT."),
    ("que fais-tu|quel est ton métier|que sais-tu faire|à quoi sers-tu", "Je réponds à tout."),
    ("où vis-tu|où habites-tu|où es-tu|où travailles-tu", "Je vis dans cette machine."),
    ("quelle est ta langue|quelle langue parles-tu|que parles-tu", "Je parle français."),
    ("comment vas-tu|est-ce que tu vas bien|ça va|tout va bien", "Je vais bien, merci."),
    ("es-tu humain|es-tu une machine|qu'es-tu|es-tu vivant", "Je suis une machine."),
)
"""Questions about the assistant itself, with the answer to each group of them."""
HELLOS = ("Bonjour", "Bonsoir", "Salut", "Au revoir")
INTRODUCTIONS = ("je m'appelle {}", "je suis {}", "c'est {}", "moi, c'est {}")
