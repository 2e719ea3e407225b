"""What the card of a kind of repos says whatever was measured: given by the kind, so that the card knows none by name."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form in which a model is published."""

    word: str  # begins the names of its templates, where it has its own: WORD.about.md.j2, WORD.run.md.j2; else those of `other` and of its library are taken
    title: str  # in a sentence: "GGUF files", "16-bit safetensors"
    library: str  # for the Hub: "gguf", "transformers"
    tags: tuple[str, ...] = ()  # for the Hub
    quantized: bool = True  # False: the weights are the upstream's own
    imatrix: bool = False  # made with an importance matrix, so that calibration text went into all of it
    ollama: bool = False  # Ollama runs it
    keeps: bool = False  # planned variants keep whole layers in 16 bits
    needs: str | None = None  # a package that the library needs for it
