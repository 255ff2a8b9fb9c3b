"""The texts of the page in English and French; the browser's language selects one."""

from collections.abc import Callable

import gradio as gr

TEXTS = {
    "en": {
        "chat": "Chat",
        "inside": "Inside",
        "model": "Model",
        "model_info": "A folder of models/.",
        "other": "Second model",
        "other_info": "Answers the same questions next to the first model.",
        "conversation": "Conversation",
        "second_conversation": "Second model",
        "question": "Question",
        "question_hint": "Ask something. Enter sends, Shift+Enter starts a new line.",
        "settings": "Settings",
        "system": "System prompt",
        "system_info": "Given to the model before the conversation, if it has a system role.",
        "temperature": "Temperature",
        "temperature_info": "0 always takes the most probable token; above 1 is more random.",
        "top_p": "Top-p",
        "top_p_info": "Samples from the most probable tokens that together have this probability.",
        "top_k": "Top-k",
        "top_k_info": "Samples from this many of the most probable tokens; 0 is off.",
        "no_repeat": "Avoid recent tokens",
        "no_repeat_info": "Makes recent tokens less probable, the last ones most; 0 is off.",
        "repetition": "Avoid repeated tokens",
        "repetition_info": "Makes all earlier tokens less probable; 1 is off.",
        "length": "Length of an answer",
        "length_info": "Largest number of tokens in an answer.",
        "text": "Text",
        "text_hint": "A text to inspect.",
        "look_text": "Inspect this text",
        "look_answer": "Inspect the last answer",
        "tokens": "Tokens, coloured by the probability that the model gave them: click one",
        "alternatives": "Most probable tokens at this place",
        "layers": "Guesses after each layer",
        "attention": "Attention of one head",
        "layer": "Layer",
        "layer_info": "0 is the first.",
        "head": "Head",
        "head_info": "Each head attends to something else. Orange marks the edge of the window.",
        "passages": "Memorised? The longest passages that are also in the training texts",
    },
    "fr": {
        "chat": "Discussion",
        "inside": "À l'intérieur",
        "model": "Modèle",
        "model_info": "Un dossier de models/.",
        "other": "Second modèle",
        "other_info": "Répond aux mêmes questions à côté du premier.",
        "conversation": "Conversation",
        "second_conversation": "Second modèle",
        "question": "Question",
        "question_hint": "Posez une question. Entrée envoie, Maj+Entrée va à la ligne.",
        "settings": "Réglages",
        "system": "Consigne",
        "system_info": "Donnée au modèle avant la conversation, s'il a un rôle système.",
        "temperature": "Température",
        "temperature_info": "0 prend le jeton le plus probable ; au-delà de 1, plus de hasard.",
        "top_p": "Top-p",
        "top_p_info": "Tire parmi les jetons les plus probables, jusqu'à cette probabilité totale.",
        "top_k": "Top-k",
        "top_k_info": "Tire parmi ce nombre de jetons, les plus probables ; 0 : sans effet.",
        "no_repeat": "Éviter les jetons récents",
        "no_repeat_info": "Rend les jetons récents moins probables ; 0 : sans effet.",
        "repetition": "Éviter les répétitions",
        "repetition_info": "Rend moins probables les jetons déjà vus ; 1 : sans effet.",
        "length": "Longueur d'une réponse",
        "length_info": "Nombre maximal de jetons d'une réponse.",
        "text": "Texte",
        "text_hint": "Un texte à examiner.",
        "look_text": "Examiner ce texte",
        "look_answer": "Examiner la dernière réponse",
        "tokens": "Jetons, colorés selon la probabilité que le modèle leur donnait : cliquez",
        "alternatives": "Jetons les plus probables à cet endroit",
        "layers": "Prédictions après chaque couche",
        "attention": "Attention d'une tête",
        "layer": "Couche",
        "layer_info": "0 est la première.",
        "head": "Tête",
        "head_info": "Chaque tête cherche autre chose. Le bord de la fenêtre est en orange.",
        "passages": "Appris par cœur ? Les plus longs passages présents dans les textes appris",
    },
}
"""Language -> key -> text of a widget."""

MESSAGES = {
    "en": {
        "late": "The answer was cut off after {seconds:.0f} seconds.",
        "too_long": "This text has {length:,} characters, and the limit is {limit:,}: shorten it.",
        "empty": "There is no text yet: write one first.",
        "no_answer": "There is no answer yet: ask a question first.",
        "cut": "Only the last {limit} tokens are shown.",
        "first": "none: this is the first token",
        "no_passages": "No passage of {least} tokens or more is in the training texts.",
        "no_data": "The training texts of this model are not in {root}.",
        "token": "token",
        "probability": "probability",
        "layer": "layer",
        "guesses": "most probable tokens",
        "passage": "passage",
        "source": "source",
        "document": "document",
    },
    "fr": {
        "late": "La réponse a été coupée après {seconds:.0f} secondes.",
        "too_long": "Ce texte a {length} caractères, la limite est {limit} : raccourcissez-le.",
        "empty": "Il n'y a pas encore de texte : écrivez-en un.",
        "no_answer": "Il n'y a pas encore de réponse : posez d'abord une question.",
        "cut": "Seuls les {limit} derniers jetons sont montrés.",
        "first": "aucune : c'est le premier jeton",
        "no_passages": "Aucun passage d'au moins {least} jetons n'est dans les textes appris.",
        "no_data": "Les textes appris par ce modèle ne sont pas dans {root}.",
        "token": "jeton",
        "probability": "probabilité",
        "layer": "couche",
        "guesses": "jetons les plus probables",
        "passage": "passage",
        "source": "source",
        "document": "document",
    },
}
"""Language -> key -> message; `messages_for` fills in the braces."""


I18N = gr.I18n(**TEXTS)
"""Key -> a text of `TEXTS` that the browser looks up."""


def messages_for(request: gr.Request) -> Callable[..., str]:
    """Return a function that fills in a message of `MESSAGES` in the browser's language.

    The first language of Accept-Language that `MESSAGES` has; English if there is none.
    """
    accepted = request.headers.get("accept-language", "").split(",")
    languages = [language.strip()[:2].lower() for language in accepted]
    texts = MESSAGES[next((language for language in languages if language in MESSAGES), "en")]
    return lambda key, **values: texts[key].format(**values)
