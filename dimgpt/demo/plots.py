"""The plots of the demo's stories, as text: a paragraph is a plot, and a line one of its steps.

The alternatives of a step are separated by `|`, which may also begin a line. No sentence ends with
a quotation, so that texts can be split into sentences. In `TALES`, names follow a space, because at
the beginning of a text or a quotation they would be other tokens.
"""

Step = tuple[str, ...]


def _plots(text: str) -> tuple[tuple[Step, ...], ...]:
    paragraphs = text.strip().replace("\n|", " |").split("\n\n")
    return tuple(
        tuple(tuple(step.split(" | ")) for step in paragraph.split("\n"))
        for paragraph in paragraphs
    )


PETS = _plots("""
{name} a {animal a} {colour agree animal}. | {name} vit avec {animal a} {colour agree animal}.
| Voici {name} avec {animal his} {colour agree animal}.
{animal the} {name of} s'appelle {pet}. | {pet} {act present} beaucoup.
| {animal the} {name of} est {trait agree animal}.
Aujourd'hui, {weather now} et {name} est {place at}.
| {name} {move present} {place at} avec {animal his}.
| Quand {weather now}, {name} {act present} {place at}.
{name he} {care present} {animal his}. | {animal the} {act present} {place at}.
| {animal the} {colour agree animal} {act not_present}. | {animal the} {act not_present}.
| {name} et {animal his} {act present_all}.
{name} pense {name2 that} est {feeling agree name2}.
| {name he} aime {food the_all}, mais {name2} aime {food2 the_all}.
| "{act i_present} avec {animal the}", dit {name}.
| {animal2 the_all} sont {colour2 agree_all animal2}.
{name} est {feeling agree name} et {animal the} est {colour agree animal}.
| Le soir, {name} {act present} avec {pet}. | {animal the} {name of} est {colour agree animal}.

Hier, {name} {move perfect name} {place at}.
| Hier, {weather then} et {name} {act imperfect} {place at}.
{name he} {use perfect} {thing a} {colour agree thing}.
| {name} avait {thing a} {colour agree thing}. | {name} cherchait {thing a} {colour agree thing}.
{name2} {move perfect name2} avec {animal a} {trait agree animal}.
| Un jour, {animal a} {trait agree animal} {move perfect animal}.
| {name he} parlait {animal of} {name2 of}.
| {name} et {name2} {move perfect name name2} {place at}.
{animal the} {act not_imperfect}, car {weather then}.
| {animal the} {act imperfect} et {name} {act2 imperfect}. | {name} et {name2} {act imperfect_all}.
| Beaucoup {animal2 of_all} {act imperfect_all} {place at}.
{thing the} {name of} était {colour agree thing}.
| {thing the} {colour agree thing} était à {name}.
| {name he} a décidé {act2 to}.
{name} et {name2} étaient {feeling agree name name2}.
| {name} était {feeling agree name} et {name2} était {feeling2 agree name2}.
| Le soir, {name2} {eat perfect} {food a} et {name} {act perfect}.
""")
"""What is so and what was so about people and animals; a step may be left out."""

TALES = _plots("""
Un jour, {name} cherche {thing his} {colour agree thing} {place at}.
| Un jour, {name} ne trouve plus {thing his} {colour agree thing}.
{name he} est {sad agree name} et {name he} pleure.
| {name} est {sad agree name}, car {name he} aime beaucoup {thing his}.
"Où est {thing my} ?" demande {name} à {name2}.
| "As-tu vu {thing my} ?" demande {name} à {name2}.
{name2} regarde {spot at} : {thing the} est là !
| {name2} cherche {spot at} et {name2 he} trouve {thing the} !
"Merci, {name2} !" dit {name}. | "Tu as retrouvé {thing my} !" dit {name}.
{name} est {glad agree name} et {name he} danse avec {name2}.
| {name} range {thing his} et {name he} joue avec {name2}.

Un jour, {name} rêve d'avoir {animal a}. | Un jour, {name} veut {animal a} pour jouer.
"Je voudrais {animal a} {trait agree animal} !" dit {name} à {name2}.
{name2} va {place at} et {name2 he} trouve {animal a} {trait agree animal}.
"Est-ce que {animal the} est pour moi ?" demande {name}.
"Oui, c'est {animal your} !" répond {name2}. | "Oui, {animal the} est à toi !" répond {name2}.
{name} caresse {animal his} et {name he} est {glad agree name}.
| {name} rit, car {animal his} s'appelle {pet}.

Un jour, {name} est {place at} et {name he} a très faim.
"As-tu {food a} ?" demande {name} à {name2}. | "Qui a {food a} pour moi ?" demande {name}.
{name2} ouvre un sac : {name2 he} a {food a} ! | {name2} a {food a}, mais {name2 he} n'a pas faim.
"Voici {food the}, {name} !" dit {name2}. | "Tu peux manger {food the} !" dit {name2}.
{name} mange {food the} et {name he} n'a plus faim. | {name} et {name2} mangent {food the} ensemble.
"C'est très bon !" dit {name}. | "Merci, {name2} !" dit {name}.

Un jour, il neige et {name} a froid {place at}. | Un jour, il pleut et {name} a froid {place at}.
"Où est {warm my} ?" demande {name}. | "Qui a vu {warm my} ?" demande {name}.
{name he} cherche {spot at}, mais {name he} ne trouve rien.
{name2} arrive avec {warm a} {colour agree warm}.
"Prends {warm my}, {name} !" dit {name2}. | "Voici {warm a} pour toi !" dit {name2}.
{name} met {warm the} et {name he} n'a plus froid.
| {name} remercie {name2}, car {name he} n'a plus froid.

Un jour, {name} est {place at} et {name he} a peur {fear of}.
{name he} se cache {spot at} et {name he} pleure.
| {name} pleure, puis {name he} se cache {spot at}.
"Pourquoi pleures-tu ?" demande {name2}. | "Où es-tu, {name} ?" demande {name2}.
"J'ai peur {fear of} !" répond {name}.
{name2} prend la main {name of} et {name2 he} chante.
| {name2} reste avec {name} et {name2 he} chante.
{name} rit, car {name he} n'a plus peur {fear of}. | {name} n'a plus peur et {name he} chante aussi.

Un jour, c'est la fête {name of} et {name2} a un cadeau.
| Un jour, {name2} a un cadeau pour {name}.
"Est-ce que c'est pour moi ?" demande {name}. | "Qu'est-ce que c'est ?" demande {name}.
"Ouvre vite le cadeau, {name} !" répond {name2}.
{name} ouvre le cadeau et {name he} trouve {thing a} {colour agree thing}.
"{thing how_nice} !" dit {name}.
{name} est {glad agree name} et {name he} remercie {name2}.
| {name} montre {thing his} à {name2} et {name he} rit.

Un jour, {name} et {name2} trouvent {thing a} {colour agree thing} {place at}.
"C'est {thing my} !" dit {name}.
"Non, c'est {thing my} !" répond {name2}.
Les deux tirent très fort et {thing the} tombe ! | {name} pleure et {name2} cache {thing the}.
"Veux-tu jouer avec moi ?" demande {name2}. | "Pardon, veux-tu jouer ?" demande {name2}.
{name} et {name2} rient : {name they name2} sont {glad agree name name2}.
| {name} et {name2} jouent avec {thing the} et {name they name2} sont {glad agree name name2}.

Un jour, {name} et {name2} jouent à cache-cache {place at}.
{name2} se cache {spot at}. | {name2} court et {name2 he} se cache {spot at}.
"Où es-tu, {name2} ?" demande {name}. | "Es-tu là, {name2} ?" demande {name}.
{name he} regarde {spot2 at}, mais {name he} ne voit rien.
Puis {name he} regarde {spot at} : {name2} est là !
| Puis {name he} cherche {spot at} : {name2} rit !
"Tu as gagné, {name} !" dit {name2}.

Un jour, {name} prépare {food a} pour {name2}. | Un jour, {name} garde {food a} pour {name2}.
{animal the} {name of} regarde {food the}. | {animal the} {name of} aime aussi {food the}.
"Où est {food my} ?" demande {name2}. | "Qui a vu {food the} ?" demande {name}.
{name} cherche {spot at}, mais {name he} ne trouve rien.
{animal the} dort {spot2 at} : {animal he} a mangé {food the} !
{name} rit et {animal the} est {glad agree animal}. | "Qui dort dîne !" dit {name2}.

Un jour, {name} veut jouer avec {name2}.
| Un jour, {name} cherche {name2}, car {name he} veut jouer.
Mais {name2} est fatigué{name2 e} et {name2 he} reste au lit.
"Dors-tu, {name2} ?" demande {name}. | "Est-ce que tu dors ?" demande {name}.
"Oui, je dors !" répond {name2}.
{name} rit, car {name2} ne dort pas. | {name} attend, car {name he} ne veut pas jouer sans {name2}.
Puis {name2} se lève et {name2 he} joue avec {name}. | "Bonne nuit, {name2} !" dit {name}.
""")
"""Very short stories: a wish or a problem, somebody who asks about it, and an end."""
