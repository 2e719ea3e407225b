"""The fixed conversations and texts on which template engines and tokenizers are compared."""

from collections.abc import Mapping, Sequence

from engines.model import Message


def _turns(*contents: str, system: str | None = None) -> list[Message]:
    """A conversation of these contents, user first, after an optional system message."""
    opening = [] if system is None else [{"role": "system", "content": system}]
    return [*opening, *({"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents))]


CODE = "```python\ndef add(a, b):\n\treturn a + b  # sum\n\n\nprint(add(1, 2))\n```"

EVERY_TEMPLATE_RENDERS = ("one question", "question and answer")
CONVERSATIONS: Mapping[str, Sequence[Message]] = {
    "one question": _turns("What is 1+1?"),
    "question and answer": _turns("Hello!", "Hey there!"),
    "several turns": _turns("Hello!", "Hey there!", "What is 1+1?", "2", "And 2+2?"),
    "system message": _turns("Hello!", system="You are terse."),
    "system message and several turns": _turns("Hello!", "Hi.", "Why?", system="You are terse.\nAnswer in one line."),
    "empty question": _turns(""),
    "empty answer": _turns("Say nothing.", "", "Thanks."),
    "empty system message": _turns("Hello!", system=""),
    "spaces and newlines around": _turns("  Hello! \n\n", "\n Hey there!\n ", " \t\n"),
    "not Latin": _turns("ما هي عاصمة فرنسا؟", "巴黎。", "Почему? क्यों? למה?"),
    "emoji": _turns("👋🏽 👩‍👩‍👧 🇧🇪", "👍"),
    "code": _turns("Write a function that adds.", CODE, "Thanks. \\n {{ x }} {% if %} <b>&amp;</b> 'a' \"b\""),
    "long": _turns("word " * 200, "Yes."),
}

TEXTS: Sequence[str] = (
    "", " ", "  ", "   ", "\t", "\n", "\n\n", "\n\n\n", "\r\n", " \n", "\n ", "\t\n \n", "a  b   c    d", " leading", "trailing ", "  both  ",
    "tab\tseparated\t\tvalues", "Hello", " Hello", "Hello World", "Hello, World!", " Hello, y'all! How are you 😁 ?",
    "The quick (\"brown\") fox can't jump 32.3 feet, right?", "I'm you're he'll we'd they've it's I'M YOU'RE", "camelCaseAndPascalCase",
    "snake_case_and-kebab-case", "ALL CAPS", "...!!!???---===///\\\\\\", "$1,234.56 10% #1 @me a@b.c", "0", "1", "12", "123", "1234", "12345",
    "3.14159", "1e-10", "0x1F", "１２３", "٣٤", "½ ² ₂ Ⅷ", "2024-01-31T23:59:59Z", "127.0.0.1", "äöü ÄÖÜ ß é è ê ñ ç ø å",
    "e\u0301 \u00e9 (decomposed and not)", "ﬁ ﬂ ligatures", "ΑΒΓ αβγ", "Привет, мир!", "你好，世界！", "日本語のテキスト カタカナ", "한국어 텍스트",
    "مرحبا بالعالم", "שלום עולם", "नमस्ते दुनिया", "สวัสดีชาวโลก", "Tiếng Việt", "🚀", "👩‍👩‍👧‍👦", "🏳️‍🌈 👍🏽 🇧🇪",
    "(normal) 😶‍🌫️ (multiple emojis concatenated) ✅🦙", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈", "\u00a0no-break\u00a0space", "\u2003em\u2009thin\u3000ideographic",
    "zero\u200bwidth\u200djoiner\ufeff", "\u202eright-to-left\u202c", "▁ lower one eighth block ▁▁", "\x01\x02\x1b[31m\x7f", "a\x00b",
    "\x85next line\u2028separator\u2029", "\u0301", "\ufffd", "\u0378 unassigned", "\ue000 private",
    "def f(x):\n    if x > 0:\n        return x\n    return -x\n", "for (int i = 0; i < 10; i++) { a[i] = i*2; }", "SELECT * FROM t WHERE a='b';",
    "<html>\n\t<p>&nbsp;</p>\n</html>", '{"key": [1, 2.0, null, true], "s": "\\u00e9"}', "https://example.org/a?b=c&d=%20#e",
    "$$\\sum_{i=1}^n x_i^2$$", "a" * 100, " " * 100, "ab" * 50, "=" * 80, "\n" * 20, "A", " A", "Answer: A", "Answer:A", "\nAnswer:", "<s", "<|",
    "<|im_", "<|im_start", "</s", "[INST]", "<0x0A>", "<unk>",
)  # fmt: skip


def around(special: str) -> list[str]:
    """Texts with a special token at the beginning, at the end, inside words, between spaces and doubled."""
    return [special, f"{special}text", f"text{special}", f"te{special}xt", f"a {special} b", f"\n{special}\n", special * 2, f"{special} {special}"]
