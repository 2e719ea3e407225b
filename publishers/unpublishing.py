"""Take a published repo out of the public eye: it becomes private, and keeps its files and history."""

from huggingface_hub import HfApi

from config.errors import HubError
from publishers.wire import hub_errors


def is_private(api: HfApi, repo: str) -> bool:
    """Whether only its owner sees the repo. Raises HubError."""
    with hub_errors(api, f"look at {repo}"):
        return bool(api.repo_info(repo).private)


def make_private(api: HfApi, repo: str) -> None:
    """Make the repo private, and see on the Hub that it is. Raises HubError."""
    with hub_errors(api, f"make {repo} private"):
        api.update_repo_settings(repo, private=True)
        private = bool(api.repo_info(repo).private)
    if not private:
        raise HubError(f"Could not make {repo} private: the Hub at {api.endpoint} took the request, but shows the repo as public. Look at its settings there.")
