"""Which uploads a `.gitignore` file leaves out."""

import re
from collections.abc import Callable


def matcher(text: str) -> Callable[[str], bool]:
    """A function that says of a path in a repo whether the `.gitignore` file with this text ignores it (git's rules, from the root)."""
    rules: list[tuple[re.Pattern[str], bool]] = []
    for line in map(str.rstrip, text.splitlines()):
        if not line or line.startswith("#"):
            continue
        negated = line.startswith("!")
        rules.append((_pattern(line.removeprefix("!")), not negated))

    def ignored(path: str) -> bool:
        # The last rule that matches decides, but nothing inside an ignored folder can be taken back.
        parts = path.split("/")
        for end in range(1, len(parts) + 1):
            candidate = "/".join(parts[:end]) + ("/" if end < len(parts) else "")
            verdict = False
            for pattern, value in rules:
                if pattern.fullmatch(candidate):
                    verdict = value
            if verdict:
                return True
        return False

    return ignored


def _pattern(rule: str) -> re.Pattern[str]:
    folder_only, rule = rule.endswith("/"), rule.rstrip("/")
    anchored, rule = "/" in rule, rule.lstrip("/")
    pattern = "" if anchored else "(?:.*/)?"
    pieces = re.split(r"(\*\*/|/\*\*$|\*+|\?|\[!?[^\]/]+\]|\\.)", rule)
    for piece in pieces:
        if piece == "**/":
            pattern += "(?:.*/)?"
        elif piece == "/**":
            pattern += "/.+"
        elif piece and set(piece) == {"*"}:
            pattern += "[^/]*"
        elif piece == "?":
            pattern += "[^/]"
        elif len(piece) > 2 and piece.startswith("["):
            pattern += "[" + ("^" if piece[1] == "!" else "") + re.escape(piece.lstrip("[!")[:-1]).replace(r"\-", "-") + "]"
        else:
            pattern += re.escape(piece.removeprefix("\\"))
    return re.compile(pattern + ("/" if folder_only else "/?"), re.DOTALL)
