"""Which names of files mean one file, and the same, on every file system and in every address: letters of any script do."""

import re
import unicodedata

LONGEST = 200  # bytes of a name in UTF-8; what keeps or sends files puts something behind names, and 255 is what file systems take

_APART = re.compile(r'[/\\:*?"<>|#%\[\]{}`$^\u2044\u2215]')  # parts paths, addresses, patterns or commands, or looks as if
_SHOWN_AS_NOTHING = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")  # and called printable
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|$)", re.IGNORECASE)  # whatever ending follows
_BEGINS = re.compile(r"[\w(]")


def is_portable(name: str) -> bool:
    """Whether such a name of one file or folder may be handed on: judged also as those read it who take forms of one letter for the same."""
    plain = unicodedata.normalize("NFKC", name)
    return (
        name.isprintable()
        and len(name.encode()) <= LONGEST
        and _BEGINS.match(plain) is not None
        and plain[-1] not in {".", " "}
        and not any(found.search(form) for found in (_APART, _SHOWN_AS_NOTHING) for form in (name, plain))
        and _DEVICES.match(plain) is None
    )


def alike(name: str) -> str:
    """What is the same for names that some file system takes for one: in any case, and however their letters are put together."""
    return unicodedata.normalize("NFKC", name).casefold()
