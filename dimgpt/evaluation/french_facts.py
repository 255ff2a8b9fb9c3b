"""Pairs of a true and a false French sentence about everyday facts.

Each entry of the table holds facts of one kind, such as capitals. The false sentence takes its
answer from another fact of the entry. Each answer is therefore as often wrong as right, so a model
that only prefers frequent words scores 50 %.
"""

from collections.abc import Iterator

_FACTS = """
@ est la capitale _.: Paris = de la France; Rome = de l'Italie; Madrid = de l'Espagne;
    Londres = de l'Angleterre; Berlin = de l'Allemagne; Lisbonne = du Portugal
@ est _.: Le lait = blanc; Le sang = rouge; Le charbon = noir; Le citron = jaune
@ est _.: La neige = blanche; L'herbe = verte; La cerise = rouge
@ est _.: Le feu = chaud; L'hiver = froid
@ _.: Le chien = aboie; Le chat = miaule; Le cheval = hennit; Le lion = rugit
Le petit de la @ est _.: vache = le veau; brebis = l'agneau; chatte = le chaton;
    poule = le poussin; jument = le poulain
@ dans _.: Le poisson vit = l'eau; Le lapin vit = un terrier; L'abeille vit = une ruche;
    Le cheval dort = une écurie; L'oiseau dort = un nid
Le @ _.: boulanger = fait du pain; médecin = soigne les malades; facteur = apporte les lettres;
    pêcheur = prend des poissons; boucher = vend de la viande; paysan = cultive la terre;
    tailleur = fait des habits
On @ avec _.: coupe la viande = un couteau; mange la soupe = une cuillère;
    coupe le bois = une hache; ouvre la porte = une clé; écrit une lettre = une plume
On @ avec _.: voit = les yeux; entend = les oreilles; marche = les jambes;
    respire = les poumons; mord = les dents
Après le @ vient le _.: lundi = mardi; mardi = mercredi; mercredi = jeudi; jeudi = vendredi;
    vendredi = samedi; samedi = dimanche; dimanche = lundi
Après @ vient _.: janvier = février; février = mars; mars = avril; avril = mai; mai = juin;
    juin = juillet; juillet = août; août = septembre; septembre = octobre; octobre = novembre;
    novembre = décembre; décembre = janvier
@ _.: Il neige = en hiver; On moissonne le blé = en été;
    Les feuilles mortes tombent = en automne; Les arbres fleurissent = au printemps
@ compte _ jours.: Une semaine = sept; Un mois = trente
@ compte _ ans.: Un siècle = cent; Une décennie = dix
@ a _ côtés.: Un triangle = trois; Un carré = quatre
@ a _ pattes.: Un oiseau = deux; Un chien = quatre; Un insecte = six; Une araignée = huit
Le contraire de @ est _.: grand = petit; chaud = froid; vieux = jeune; noir = blanc; haut = bas;
    riche = pauvre; vrai = faux
@ font _.: Un et un = deux; Deux et un = trois; Deux et deux = quatre; Trois et deux = cinq;
    Trois et trois = six; Cinq et cinq = dix
@ a écrit _.: Victor Hugo = Les Misérables; Molière = Le Misanthrope; Émile Zola = Germinal;
    Flaubert = Madame Bovary; Stendhal = Le Rouge et le Noir; Jules Verne = Michel Strogoff
@ coule à _.: La Seine = Paris; Le Rhône = Lyon; La Garonne = Bordeaux; La Loire = Nantes;
    Le Rhin = Strasbourg; La Tamise = Londres
@ est mon _.: Le frère de mon père = oncle; Le père de ma mère = grand-père;
    Le fils de mon oncle = cousin; Le fils de ma mère = frère
@ est ma _.: La sœur de mon père = tante; La mère de mon père = grand-mère;
    La fille de ma tante = cousine
@ pendant _.: Le soleil brille = le jour; Les étoiles brillent = la nuit
"""


def fact_pairs() -> Iterator[tuple[str, str]]:
    """Yield pairs of a true sentence and a false one; only the answer differs."""
    for line in _FACTS.replace("\n    ", " ").strip().splitlines():
        frame, facts = line.split(": ", 1)
        known = [fact.split(" = ") for fact in facts.split("; ")]
        for place, (subject, answer) in enumerate(known):
            other = known[(place + 1) % len(known)][1]
            sentence = frame.replace("@", subject)
            yield sentence.replace("_", answer), sentence.replace("_", other)
