"""What published repos and files are called, so that llama.cpp and Ollama find a variant by its tag."""

import re

from config import words
from config.errors import ConfigurationError
from config.portable import is_portable
from config.settings import REPO_ID

MANIFEST = words.MANIFEST
CARD = "README.md"
REPORT = "sluice-report.html"
PLOT = "sluice-kld.png"
PLOT_SVG = "sluice-kld.svg"
EVALUATIONS = ".eval_results/mmlu.yaml"
IMATRIX = "imatrix.gguf"
OLLAMA_PARAMS = "params"
OLLAMA_TEMPLATE = "template"
UNFORCED_TEMPLATE = "chat_template_without_think.jinja"  # beside a template that forces the model to think
NOBODY = "your-account"  # the namespace that cards speak of when repos are left in a folder and nobody said whose they will be

_PART = re.compile(r"[A-Za-z0-9._-](?:[A-Za-z0-9._() -]{0,198}[A-Za-z0-9._)-])?")  # files of terms may be called otherwise
_ARGUMENT = re.compile(r"[A-Za-z0-9._-]{1,200}(?:/[A-Za-z0-9._-]{1,200}){0,9}")
_DEEPEST = 10  # parts of a path


def repo_id(namespace: str, name: str) -> str:
    """The repo `namespace/name`. Raises ConfigurationError when the Hub would not accept it."""
    repo = f"{namespace}/{name}"
    if not re.fullmatch(REPO_ID, repo) or any(bad in repo for bad in ("--", "..")) or repo.endswith((".", "-", ".git")):
        raise ConfigurationError(
            f"{repo!r} cannot be the name of a repo: the Hub wants one namespace and one name of letters, digits, `.`, `_` and `-`, "
            "without `--` or `..`, at most 96 characters each. Choose another namespace, or do not watch this upstream."
        )
    return repo


def same_repo(one: str, other: str) -> bool:
    """Whether two names are of one repo: the Hub keeps no two that differ only in upper and lower case."""
    return one.lower() == other.lower()


def place(repo: str, folder: str | None) -> str:
    """Where a repo is published: its name, or the path of what takes its place in a folder, which is called as the repo is without its namespace."""
    return repo if folder is None else f"{folder.rstrip('/')}/{repo.rpartition('/')[2]}"


def checked_path(path: str) -> str:
    """`path` itself when it is a plain relative path inside a repo. Raises ConfigurationError when it could leave the repo."""
    parts = path.split("/")
    fit = len(parts) <= _DEEPEST and all(_PART.fullmatch(part) or is_portable(part) for part in parts)
    return _checked(path, fit, "`.`, `_`, `-`, `/`, and brackets, blanks and what no file system or address takes for more within")


def checked_argument(path: str) -> str:
    """`path` itself when it is such a path that stands in commands as it is. Raises ConfigurationError when it could leave the repo or upset a shell."""
    return _checked(path, _ARGUMENT.fullmatch(path) is not None, "`.`, `_`, `-` and `/`")


def _checked(path: str, fit: bool, marks: str) -> str:
    if not fit or any(part.strip(".") == "" or part == ".git" for part in path.split("/")):
        raise ConfigurationError(
            f"{path!r} cannot be published: a path in a repo is made of letters, digits, {marks}, without `..` or `.git`. Rename the file."
        )
    return path
