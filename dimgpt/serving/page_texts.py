"""What the page says, in English and in French; the browser's language chooses."""

from collections.abc import Callable

import gradio as gr

TEXTS = {
    "en": {
        "chat": "Chat",
        "inside": "Inside",
        "model": "Model",
        "model_info": "The folders of models/ that hold one.",
        "other": "Second model",
        "other_info": "Answers the same questions beside the first.",
        "conversation": "Conversation",
        "second_conversation": "Second model",
        "question": "Question",
        "question_hint": "Ask something. Enter sends, Shift+Enter begins a line.",
        "settings": "Settings",
        "system": "System prompt",
        "system_info": "Said to the model before the conversation, if it has learned such a role.",
        "temperature": "Temperature",
        "temperature_info": "0 always takes the most probable token; above 1 surprises more.",
        "top_p": "Top-p",
        "top_p_info": "Chooses among the most probable tokens that together reach this share.",
        "top_k": "Top-k",
        "top_k_info": "Chooses among this many of the most probable tokens; 0 takes all.",
        "no_repeat": "Avoid recent tokens",
        "no_repeat_info": "Makes tokens less probable the more recently they came; 0 is off.",
        "repetition": "Avoid repeated tokens",
        "repetition_info": "Makes all tokens that came before less probable; 1 is off.",
        "length": "Length of an answer",
        "length_info": "Tokens after which an answer is cut off.",
        "text": "Text",
        "text_hint": "A text to look into.",
        "look_text": "Look at this text",
        "look_answer": "Look at the last answer",
        "tokens": "Tokens, coloured by the probability that the model gave them: click one",
        "alternatives": "What the model expected at this place",
        "layers": "What each layer would say here",
        "attention": "Attention of one head",
        "layer": "Layer",
        "layer_info": "0 is the first.",
        "head": "Head",
        "head_info": "Each looks for something else. An orange line is the edge of the window.",
        "passages": "Learned by heart? Longest passages that are in the training texts",
    },
    "fr": {
        "chat": "Discussion",
        "inside": "À l'intérieur",
        "model": "Modèle",
        "model_info": "Les dossiers de models/ qui en contiennent un.",
        "other": "Second modèle",
        "other_info": "Répond aux mêmes questions à côté du premier.",
        "conversation": "Conversation",
        "second_conversation": "Second modèle",
        "question": "Question",
        "question_hint": "Posez une question. Entrée envoie, Maj+Entrée commence une ligne.",
        "settings": "Réglages",
        "system": "Consigne",
        "system_info": "Dite au modèle avant la conversation, s'il a appris un tel rôle.",
        "temperature": "Température",
        "temperature_info": "0 prend le jeton le plus probable ; au-delà de 1, le modèle surprend.",
        "top_p": "Top-p",
        "top_p_info": "Choisit parmi les jetons les plus probables qui atteignent cette part.",
        "top_k": "Top-k",
        "top_k_info": "Choisit parmi ce nombre de jetons, les plus probables ; 0 les prend tous.",
        "no_repeat": "Éviter les jetons récents",
        "no_repeat_info": "Rend les jetons récents moins probables ; 0 : sans effet.",
        "repetition": "Éviter les répétitions",
        "repetition_info": "Rend moins probables les jetons déjà vus ; 1 : sans effet.",
        "length": "Longueur d'une réponse",
        "length_info": "Nombre de jetons après lequel une réponse est coupée.",
        "text": "Texte",
        "text_hint": "Un texte à examiner.",
        "look_text": "Examiner ce texte",
        "look_answer": "Examiner la dernière réponse",
        "tokens": "Jetons, colorés selon la probabilité que le modèle leur donnait : cliquez",
        "alternatives": "Ce que le modèle attendait à cet endroit",
        "layers": "Ce que chaque couche dirait ici",
        "attention": "Attention d'une tête",
        "layer": "Couche",
        "layer_info": "0 est la première.",
        "head": "Tête",
        "head_info": "Chacune cherche autre chose. Le bord de la fenêtre est en orange.",
        "passages": "Appris par cœur ? Les plus longs passages présents dans les textes appris",
    },
}
"""Language -> key -> what a part of the page is called."""

MESSAGES = {
    "en": {
        "late": "The answer was cut off after {seconds:.0f} seconds.",
        "too_long": "This text has {length:,} characters: at most {limit:,} are read.",
        "empty": "There is no text yet: write one first.",
        "no_answer": "There is no answer yet: ask a question first.",
        "cut": "Only the last {limit} tokens are shown: that is as far as the model can look back.",
        "first": "nothing: it begins the text",
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
        "too_long": "Ce texte a {length} caractères : {limit} au plus sont lus.",
        "empty": "Il n'y a pas encore de texte : écrivez-en un.",
        "no_answer": "Il n'y a pas encore de réponse : posez d'abord une question.",
        "cut": "Seuls les {limit} derniers jetons sont montrés : le modèle ne voit pas plus loin.",
        "first": "rien : il commence le texte",
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
"""Language -> key -> what the page reports; in braces, what it is filled with."""


I18N = gr.I18n(**TEXTS)
"""Key -> a text of `TEXTS` that the browser looks up."""


def messages_for(request: gr.Request) -> Callable[..., str]:
    """Return what fills in a message of `MESSAGES`, in the first language that a browser asks for.

    English, if it asks for none of them.
    """
    accepted = request.headers.get("accept-language", "").split(",")
    languages = [language.strip()[:2].lower() for language in accepted]
    texts = MESSAGES[next((language for language in languages if language in MESSAGES), "en")]
    return lambda key, **values: texts[key].format(**values)
