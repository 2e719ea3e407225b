"""What is changed in llama.cpp's sources before they are compiled, and why."""

from pathlib import Path

from config.errors import ToolError

_SORT, _SORTED = "qsort(dist2, grid_size, 2*sizeof(int), iq2_compare_func)", "nearest_first(dist2, grid_size)"
PATCHES = (
    # every process that quantizes to IQ1 and IQ2 types sorts some ten thousand lists of up to 2,048 small numbers, twice: 20 seconds by qsort, two by counting,
    # which gives the same order, since equal distances stay in the order of their indices
    (
        "ggml/src/ggml-quants.c",
        """static int iq2_compare_func(const void * left, const void * right) {
    const int * l = (const int *)left;
    const int * r = (const int *)right;
    return l[0] < r[0] ? -1 : l[0] > r[0] ? 1 : l[1] < r[1] ? -1 : l[1] > r[1] ? 1 : 0;
}
""",
        """static void nearest_first(int * pairs, int count) {
    int first[1024] = {0};
    int sorted[2*2048];
    GGML_ASSERT(count <= 2048);
    for (int j = 0; j < count; ++j) {
        GGML_ASSERT(pairs[2*j] >= 0 && pairs[2*j] < 1023);
        ++first[pairs[2*j] + 1];
    }
    for (int d = 1; d < 1024; ++d) first[d] += first[d - 1];
    for (int j = 0; j < count; ++j) {
        const int at = first[pairs[2*j]]++;
        sorted[2*at + 0] = pairs[2*j + 0];
        sorted[2*at + 1] = pairs[2*j + 1];
    }
    memcpy(pairs, sorted, 2*count*sizeof(int));
}
""",
    ),
    ("ggml/src/ggml-quants.c", f"{_SORT};\n            int n = 0;", f"{_SORTED};\n            int n = 0;"),
    ("ggml/src/ggml-quants.c", f"{_SORT};\n            int local_counter", f"{_SORTED};\n            int local_counter"),
)
"""File, text, and what replaces it."""


def apply(llama: Path, version: str) -> None:
    """Change the sources in `llama`. Raises ToolError where a text is not there exactly once: then `version` is another, and the patch must be looked at."""
    for name, text, replacement in PATCHES:
        file = llama / name
        content = file.read_text(encoding="utf-8") if file.exists() else ""
        if content.count(text) != 1:
            raise ToolError(f"{name} of {version} does not hold {text.strip()!r} exactly once. Look at its patch in engines/patches.py anew.")
        file.write_text(content.replace(text, replacement), encoding="utf-8")
