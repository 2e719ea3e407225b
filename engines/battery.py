"""The fixed texts on which tokenizers are compared."""

from collections.abc import Sequence

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
    *("".join(map(chr, range(first, first + 8))) for first in (0x00, 0x08, 0x10, 0x18, 0x80, 0x98)),  # control characters
    *("x" + space * count + "y" for space in (" ", "\t", "\n", "\r\n", "\u00a0", "\u3000") for count in (2, 3, 4, 5, 8, 16, 33)),
    *("".join(str(i * 7 % 10) for i in range(length)) for length in (6, 7, 8, 9, 16, 33, 100)), "1,000,000.000001", "-0.000001e+15", "٠١٢٣٤٥٦٧٨٩",
    # one text for each plane of Unicode in practical use: basic, supplementary, ideographic twice, tags and variation selectors, private use
    "Ꙁ ꩜ ﷽ ｶﾞ", "𐎠𐏃 𒀀 𓀀 𝟘𝟙 🀄 🫠", "𠀀𠮷𪚥", "𰀀𰻞", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f 葛\U000e0100", "\U000f0000\U0010fffd",
    "\u200e\u200f\u2060\u2066\u2069", "क्ष्म्य", "ព្រះ", "e\u0301\u0323\u0302", "각 \u1100\u1161\u11a8",
)  # fmt: skip
