"""Uses names that transformers 4 knows as well, where transformers 5 wrote ones that only it knows: it reads the older ones too."""

from collections.abc import Iterator

from builders.fixes.edits import Edit, Files, list_at, value_at
from builders.fixes.transformers_4 import LAYERS, RENAMED, VERSION
from config.rules import Family

CONFIG, TOKENIZER = "config.json", "tokenizer_config.json"
CLASSES = {"TokenizersBackend": "PreTrainedTokenizerFast"}
EXTRA, ADDITIONAL = "extra_special_tokens", "additional_special_tokens"


def repair(files: Files, family: Family | None) -> list[Edit]:
    """Keys of config.json, words in `layer_types`, the class of the tokenizer, and the list of its further special tokens."""
    return [*_config(files), *_tokenizer(files)]


def _config(files: Files) -> Iterator[Edit]:
    for section in ((), ("text_config",)):
        kind = str(value_at(files, CONFIG, (*section, "model_type")))
        for name, older in RENAMED.get(kind, {}).items():
            value = value_at(files, CONFIG, (*section, name))
            if value is not None and value_at(files, CONFIG, (*section, older)) != value:
                because = f"transformers {VERSION} reads {older} and not {name}, which says {value}"
                yield Edit(file=CONFIG, key=(*section, older), after=value, because=because)
        words, layers = LAYERS.get(kind, {}), list_at(files, CONFIG, (*section, "layer_types"))
        older_layers = [words.get(str(layer), layer) for layer in layers]
        if older_layers != layers:
            because = f"transformers {VERSION} knows {' and '.join(words.values())}"
            yield Edit(file=CONFIG, key=(*section, "layer_types"), after=older_layers, because=because)


def _tokenizer(files: Files) -> Iterator[Edit]:
    stated = value_at(files, TOKENIZER, ("tokenizer_class",))
    if isinstance(stated, str) and stated in CLASSES:
        yield Edit(file=TOKENIZER, key=("tokenizer_class",), after=CLASSES[stated], because=f"transformers {VERSION} has no class {stated}")
    extra = value_at(files, TOKENIZER, (EXTRA,))
    if isinstance(extra, list):
        because = f"transformers {VERSION} cannot load a tokenizer whose {EXTRA} is a list"
        yield Edit(file=TOKENIZER, key=(EXTRA,), remove=True, because=because)
        if extra and value_at(files, TOKENIZER, (ADDITIONAL,)) is None:
            yield Edit(file=TOKENIZER, key=(ADDITIONAL,), after=extra, because=because)
