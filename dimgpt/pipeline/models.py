"""Opens, imports and exports models on disk: dimgpt's own, and those of other systems."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from dimgpt.config import DROPOUT_FIELDS, ExportConfig
from dimgpt.files import sha256_of
from dimgpt.model.int8 import round_to_int8
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import Runtime, choose_runtime
from dimgpt.settings import override
from dimgpt.text.byte_level import TOYGPT_SPECIAL_TOKENS, ByteLevelTokenizer
from dimgpt.text.tokenizer import TOKENIZER_FILES, Tokenizer
from dimgpt.weights.card import Card
from dimgpt.weights.export.exporter import export_model
from dimgpt.weights.originals import Original, System, is_original, load_original
from dimgpt.weights.store import CONFIG_NAME, load_card, load_model, load_tokenizer, save_model
from dimgpt.workspace import require_folder_name

_SYSTEM_NAMES: dict[System, str] = {
    "dimensiongpt": "DimensionGPT",
    "lillm": "lilLM",
    "toygpt": "toyGPT",
    "huggingface": "the Hugging Face hub",
}
_VOCABULARY_PATH = Path("data/vocab.txt")
_LICENCE_NOTE = "Others made these weights: look up the licence of their publisher."
# Number of tokens beyond GPT-2's -> the tokens that this version of toyGPT added.
_ADDED_TOKENS = {5: TOYGPT_SPECIAL_TOKENS, 2: ("<pad>", "<|startoftext|>")}


def open_model(
    path: Path,
    *,
    runtime: Runtime,
    tokenizer_path: Path | None = None,
    vocabulary_path: Path = _VOCABULARY_PATH,
    use_int8: bool = False,
) -> tuple[Transformer, Tokenizer]:
    """Open a model folder, or weights of another system, with its tokenizer.

    Args:
        path: A model folder, or a path for `load_original`.
        runtime: Device of the model.
        tokenizer_path: A `tokenizer.json` or `vocab.txt`; `None` takes the one of the model folder,
            or searches the folder of the weights, and `tokenizer/` in it.
        vocabulary_path: Another place for the tokenizer of DimensionGPT.
        use_int8: Round the weights to 8 bits, to generate faster on a CPU; see `model/int8.py`.

    Raises:
        FileNotFoundError: The model or its tokenizer is missing.
        ValueError: A file is damaged or has another format, model and tokenizer differ in size, or
            8 bits are asked for on a GPU.
    """
    if is_original(path):
        original = load_original(path)
        tokenizer = _tokenizer_of(original, path, tokenizer_path, vocabulary_path)
        model = original.model.to(runtime.device)
    else:
        model = load_model(path, device=runtime.device)
        tokenizer = _tokenizer_in(path, tokenizer_path, model)
    if use_int8:
        round_to_int8(model)
    return model, tokenizer


def _tokenizer_in(path: Path, tokenizer_path: Path | None, model: Transformer) -> Tokenizer:
    """Load the tokenizer of a model folder, or another one that fits."""
    if tokenizer_path is None:
        return load_tokenizer(path)
    tokenizer = Tokenizer.load(tokenizer_path)
    tokenizer.require_vocab_size(
        model.config.vocab_size, source=tokenizer_path, model=f"the model in {path}"
    )
    return tokenizer


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

    An existing folder is never overwritten, unless it has only the remains of an interrupted save.
    A repeated import changes nothing.

    Args:
        path: As in `load_original`.
        models_root: Folder for the new folder.
        name: Name of the new folder; `None` takes the name of `path`.
        tokenizer_path: A `tokenizer.json` or `vocab.txt`; `None` searches as `open_model` does.
        sizes: As in `load_original`.
        use_tokenizer: If false, import no tokenizer: the model then gives logits but no text.

    Raises:
        FileNotFoundError, ValueError: As `open_model`; or the folder has another content.
    """
    name = _name_of(path) if name is None else name
    require_folder_name(name, reserved=("-runs",))
    folder, original, tokenizer = models_root / name, load_original(path, sizes=sizes), None
    if use_tokenizer:
        try:
            tokenizer = _tokenizer_of(original, path, tokenizer_path, _VOCABULARY_PATH)
        except ValueError as error:
            hint = "--tokenizer takes another, --no-use-tokenizer none"
            raise ValueError(f"{error}; {hint}") from None
    # Only `.saving` is there after an interrupted save.
    if set(folder.glob("*")) <= {folder / ".saving"} and not folder.is_file():
        facts = {"Imported from": f"{_SYSTEM_NAMES[original.system]} ({path.resolve().name})"}
        card = Card(facts=facts, notes=(_LICENCE_NOTE,))
        save_model(original.model, folder, tokenizer, card=card)
    elif not _is_same(folder, original.model, tokenizer):
        raise ValueError(f"{folder} exists and has another content: choose another --name")
    return folder


def export(
    path: Path,
    config: ExportConfig,
    *,
    output: Path | None = None,
    tokenizer_path: Path | None = None,
) -> Path:
    """Write a model for another program, and return the folder.

    Args:
        path: As in `open_model`.
        config: Target program and precision.
        output: Folder to create; `None` names it after model and target, next to the model.
        tokenizer_path: As in `open_model`.

    Raises:
        FileNotFoundError: As `open_model`.
        ValueError: As `open_model`; or the program does not support such a model, or the folder
            has another content.
    """
    runtime = choose_runtime("fp32", "cpu")
    model, tokenizer = open_model(path, runtime=runtime, tokenizer_path=tokenizer_path)
    card, curves, origin = Card(), None, {}
    if (path / CONFIG_NAME).is_file():
        card, curves = load_card(path)
        origin = {"model": _name_of(path), "config_sha256": sha256_of(path / CONFIG_NAME)}
    card = dataclasses.replace(card, name=card.name or _name_of(path), origin=origin)
    suffix = "" if config.dtype == "f32" else f"-{config.dtype}"
    folder = output or path.resolve().with_name(f"{card.name}-{config.target}{suffix}")
    return export_model(model, tokenizer, folder, config, card=card, curves=curves)


def _name_of(path: Path) -> str:
    """Return the name of a folder, or of a file without its ending."""
    path = path.resolve()
    return path.name if path.is_dir() else path.stem


def _tokenizer_of(
    original: Original, path: Path, tokenizer_path: Path | None, vocabulary_path: Path
) -> Tokenizer:
    """Load the given tokenizer, or the one where the programs of the original system leave it.

    It must have as many tokens as the model; the tokens that toyGPT added to GPT-2 are added here.
    """
    folder, names = path if path.is_dir() else path.parent, TOKENIZER_FILES.values()
    places = [place / name for place in (folder, folder / "tokenizer") for name in names]
    if original.system == "dimensiongpt":
        places.append(vocabulary_path)
    found = tokenizer_path or next((place for place in places if place.is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"no tokenizer next to {path}: put its {' or '.join(names)} there, or give it with "
            "--tokenizer; to fine-tune this model, import it with that flag first"
        )
    tokenizer, wanted = Tokenizer.load(found), original.model.config.vocab_size
    added = _ADDED_TOKENS.get(wanted - tokenizer.vocab_size)
    if original.system == "toygpt" and added and isinstance(tokenizer, ByteLevelTokenizer):
        tokenizer = tokenizer.with_special_tokens(added)
    tokenizer.require_vocab_size(wanted, source=found)
    return tokenizer


def _is_same(folder: Path, model: Transformer, tokenizer: Tokenizer | None) -> bool:
    """Return whether a folder already has this model and this tokenizer."""
    try:
        there = load_model(folder)
        if tokenizer and load_tokenizer(folder).fingerprint != tokenizer.fingerprint:
            return False
    except (FileNotFoundError, ValueError):
        return False
    weights, config = there.state_dict(), there.config
    # Older versions saved fewer settings of dropout.
    same_dropout = {name: getattr(model.config, name) for name in DROPOUT_FIELDS}
    return override(config, **same_dropout) == model.config and all(
        weight.equal(weights[name]) for name, weight in model.state_dict().items()
    )
