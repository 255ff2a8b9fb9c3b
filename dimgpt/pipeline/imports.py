"""Models that other systems made: opened where they lie, or written as a model folder of ours."""

from collections.abc import Mapping
from pathlib import Path

from dimgpt.config.rules import is_file_name
from dimgpt.model.transformer import Transformer
from dimgpt.text.byte_level import TOYGPT_SPECIAL_TOKENS, ByteLevelTokenizer
from dimgpt.text.tokenizer import TOKENIZER_FILES, Tokenizer
from dimgpt.weights.card import Card
from dimgpt.weights.originals import Original, System, load_original
from dimgpt.weights.store import load_model, load_tokenizer, save_model

_SYSTEM_NAMES: dict[System, str] = {
    "dimensiongpt": "DimensionGPT",
    "lillm": "lilLM",
    "toygpt": "toyGPT",
    "huggingface": "the Hugging Face hub",
}
VOCABULARY_PATH = Path("data/vocab.txt")
_RUNS = "-runs"
_LICENCE_NOTE = "The weights are others': what their publisher allows is said where they are from."
# What toyGPT added to GPT-2's tokens, by how many: all five, and the two of its first version.
_ADDED_TOKENS = {5: TOYGPT_SPECIAL_TOKENS, 2: ("<pad>", "<|startoftext|>")}


def open_original(
    path: Path,
    *,
    tokenizer_path: Path | None = None,
    vocabulary_path: Path = VOCABULARY_PATH,
) -> tuple[Transformer, Tokenizer]:
    """Open weights of another system, on the CPU, with the tokenizer that belongs to them.

    Args:
        path: What `load_original` takes.
        tokenizer_path: A `tokenizer.json` or `vocab.txt`; `None` looks for it beside the weights,
            and in `tokenizer/` there.
        vocabulary_path: Where else the tokenizer of DimensionGPT may be.

    Raises:
        FileNotFoundError: Weights or tokenizer are missing.
        ValueError: One of them is damaged or foreign, or they do not belong together.
    """
    original = load_original(path)
    found = tokenizer_path or _find_tokenizer(path, original.system, vocabulary_path)
    return original.model, _open_tokenizer(original, found)


def import_model(
    path: Path,
    *,
    models_root: Path = Path("models"),
    name: str | None = None,
    tokenizer_path: Path | None = None,
    sizes: Mapping[str, int] | None = None,
    use_tokenizer: bool = True,
) -> Path:
    """Write weights of another system as a model folder, and return it.

    What lies in that folder stays: it is written only if there is nothing of that name, or a save
    that never came to its end. The same import once more changes nothing.

    Args:
        path: What `load_original` takes.
        models_root: Gets the folder.
        name: The folder's; `None` takes that of the file or folder imported.
        tokenizer_path: A `tokenizer.json` or `vocab.txt`; `None` looks for it as `open_original`.
        sizes: What `load_original` takes.
        use_tokenizer: Without one, the folder gives logits but no text.

    Raises:
        FileNotFoundError: Weights or tokenizer are missing.
        ValueError: They are refused, or the folder holds something else.
    """
    folder = models_root / _folder_name(path, name)
    original = load_original(path, sizes=sizes)
    tokenizer = _choose_tokenizer(original, path, tokenizer_path) if use_tokenizer else None
    if _is_free(folder):
        save_model(original.model, folder, tokenizer, card=_card_of(original, path))
    elif not _is_same(folder, original.model, tokenizer):
        raise ValueError(f"{folder} holds something else, which stays: choose another --name")
    return folder


def _folder_name(path: Path, name: str | None) -> str:
    if name is None:
        resolved = path.resolve()
        name = resolved.name if resolved.is_dir() else resolved.stem
    if not (is_file_name(name) and name.isprintable()):
        raise ValueError(f"name is {name!r}: it names a folder; use letters, digits, - and _")
    if name.endswith(_RUNS):
        raise ValueError(f"name is {name!r}: names in {_RUNS} are those of runs; choose another")
    return name


def _card_of(original: Original, path: Path) -> Card:
    origin = f"{_SYSTEM_NAMES[original.system]} ({path.resolve().name})"
    return Card(facts={"Imported from": origin}, notes=(_LICENCE_NOTE,))


def _choose_tokenizer(original: Original, path: Path, tokenizer_path: Path | None) -> Tokenizer:
    found = tokenizer_path or _find_tokenizer(path, original.system, VOCABULARY_PATH)
    try:
        return _open_tokenizer(original, found)
    except ValueError as error:
        raise ValueError(f"{error}; --tokenizer takes another, --no-use-tokenizer none") from None


def _find_tokenizer(path: Path, system: System, vocabulary_path: Path) -> Path:
    """Return the tokenizer that lies where the system's own programs leave it."""
    folder = path if path.is_dir() else path.parent
    candidates = [
        place / name
        for place in (folder, folder / "tokenizer")
        for name in TOKENIZER_FILES.values()
    ]
    if system == "dimensiongpt":
        candidates.append(vocabulary_path)
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"no tokenizer beside {path}: put its {' or '.join(TOKENIZER_FILES.values())} there, "
            "or give it with --tokenizer"
        )
    return found


def _open_tokenizer(original: Original, path: Path) -> Tokenizer:
    """Load a tokenizer of as many tokens as the model has; toyGPT's are added to GPT-2's."""
    tokenizer, wanted = Tokenizer.load(path), original.model.config.vocab_size
    added = _ADDED_TOKENS.get(wanted - tokenizer.vocab_size)
    if original.system == "toygpt" and added and isinstance(tokenizer, ByteLevelTokenizer):
        tokenizer = tokenizer.with_special_tokens(added)
    tokenizer.require_vocab_size(wanted, source=path)
    return tokenizer


def _is_free(folder: Path) -> bool:
    """Say whether nothing is there but, perhaps, what an interrupted save has left."""
    if not folder.exists():
        return True
    return folder.is_dir() and {entry.name for entry in folder.iterdir()} <= {".saving"}


def _is_same(folder: Path, model: Transformer, tokenizer: Tokenizer | None) -> bool:
    """Say whether a folder holds this model and this tokenizer already."""
    try:
        there = load_model(folder)
        fingerprint = None if tokenizer is None else load_tokenizer(folder).fingerprint
    except (FileNotFoundError, ValueError):
        return False
    weights = there.state_dict()
    return (
        there.config == model.config
        and fingerprint == (None if tokenizer is None else tokenizer.fingerprint)
        and all(weight.equal(weights[name]) for name, weight in model.state_dict().items())
    )
