"""The words of the French minimal pairs: common ones that small models have seen."""


def table(text: str) -> tuple[tuple[str, ...], ...]:
    """Split a text into rows at each `;`, and rows into columns at each `/`."""
    return tuple(tuple(row.strip().split("/")) for row in text.split(";"))


PEOPLE = table("""Le garçon/Les garçons; La fille/Les filles; Le soldat/Les soldats;
    La dame/Les dames; Mon frère/Mes frères; Ma sœur/Mes sœurs; Cet homme/Ces hommes;
    Cette femme/Ces femmes; Le voisin/Les voisins; La princesse/Les princesses;
    Notre ami/Nos amis; Son enfant/Ses enfants""")
"""Singular, plural."""

HEADS = table("""Le fils des voisins/Les fils du voisin; La fille des paysans/Les filles du paysan;
    Le frère des soldats/Les frères du soldat; La sœur des garçons/Les sœurs du garçon;
    Le médecin des enfants/Les médecins de cet enfant; L'ami de ces dames/Les amis de cette dame""")
"""Singular of a plural, plural of a singular: the noun next to the verb has the other number."""

DOINGS = table("""dort/dorment/dans la grande chambre; chante/chantent/devant la maison;
    marche/marchent/dans la rue; arrive/arrivent/à la maison; sort/sortent/de la maison;
    part/partent/pour la ville; travaille/travaillent/dans le jardin;
    attend/attendent/devant la porte; écrit/écrivent/à la reine; lit/lisent/dans le salon;
    vient/viennent/de la ville; parle/parlent/à voix basse""")
"""Verb in the singular, verb in the plural, and the rest of the sentence."""

FUTURES = table("""dormira/dormait/dans la grande chambre; chantera/chantait/devant la maison;
    marchera/marchait/dans la rue; arrivera/arrivait/à la maison; sortira/sortait/de la maison;
    partira/partait/pour la ville; travaillera/travaillait/dans le jardin;
    attendra/attendait/devant la porte; lira/lisait/dans le salon; parlera/parlait/à voix basse""")
"""Future, imperfect, and the rest of the sentence."""

DEEDS = table("""vu/le château; trouvé/la clé; mangé/le pain; lu/la lettre; pris/le train;
    fini/son travail; perdu/son chapeau; vendu/la maison; compris/la question; entendu/le bruit;
    acheté/le bateau; dit/la vérité""")
"""A past participle, and an object."""

_THINGS = table("""jardin/jardins/maison/maisons; chapeau/chapeaux/robe/robes;
    bateau/bateaux/voiture/voitures; château/châteaux/ville/villes;
    village/villages/montagne/montagnes; couteau/couteaux/fourchette/fourchettes;
    chemin/chemins/rue/rues; pont/ponts/rivière/rivières; cheval/chevaux/vache/vaches;
    mur/murs/porte/portes; panier/paniers/table/tables; fauteuil/fauteuils/fenêtre/fenêtres;
    canal/canaux/forêt/forêts; manteau/manteaux/chemise/chemises; mouton/moutons/poule/poules;
    tableau/tableaux/lettre/lettres""")
THINGS = tuple(((row[0], row[1]), (row[2], row[3])) for row in _THINGS)
"""A masculine and a feminine noun, each as one and as several; all begin with a consonant."""

VOWEL_NOUNS = table("""le/arbre/arbres; la/école/écoles; le/oiseau/oiseaux; la/église/églises;
    le/enfant/enfants; la/île/îles; le/hôtel/hôtels; la/étoile/étoiles; le/homme/hommes;
    la/épée/épées; le/animal/animaux; la/armée/armées; le/ami/amis; la/herbe/herbes;
    le/âne/ânes; la/image/images""")
"""The article, which is elided, one, several; of both genders in turn."""

ADJECTIVES = table("""grand/grande/grands/grandes; petit/petite/petits/petites;
    vieux/vieille/vieux/vieilles; beau/belle/beaux/belles; blanc/blanche/blancs/blanches;
    noir/noire/noirs/noires; gris/grise/gris/grises; vert/verte/verts/vertes;
    ancien/ancienne/anciens/anciennes; laid/laide/laids/laides""")
"""Masculine, feminine; then both of several."""

CONJUGATIONS = table("""parle/parles/parle/parlons/parlez/parlent/à la reine;
    finis/finis/finit/finissons/finissez/finissent/le travail;
    prends/prends/prend/prenons/prenez/prennent/le train;
    viens/viens/vient/venons/venez/viennent/de la ville;
    fais/fais/fait/faisons/faites/font/du pain; veux/veux/veut/voulons/voulez/veulent/du pain;
    sais/sais/sait/savons/savez/savent/la vérité;
    suis/es/est/sommes/êtes/sont/dans le jardin""")
"""Six persons of the present, and the rest of the sentence."""
