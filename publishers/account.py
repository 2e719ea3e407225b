"""Whom the token belongs to, asked before any work is done: a wrong token is found out in a second, not after hours of quantizing."""

from typing import Any

from huggingface_hub import HfApi

from config.errors import HubError
from publishers.wire import hub_errors


def owner(api: HfApi) -> str:
    """The name of the account that the token belongs to. Raises HubError."""
    return str(_account(api)["name"])


def publishing_namespace(api: HfApi, wanted: str | None) -> str:
    """The namespace to publish under: `wanted`, or the token's own account, as the Hub spells it, to which case is all the same.

    Raises HubError when there is no token, the Hub does not accept it, or it is plain that it may not write there.
    """
    if not api.token:
        raise HubError("There is no token to publish with. Set SLUICE_HUB_TOKEN to a token of the Hub with write permission.")
    account = _account(api)
    name = str(account["name"])
    role = ((account.get("auth") or {}).get("accessToken") or {}).get("role")
    if role == "read":
        raise HubError(f"The token of {name} may only read. Set SLUICE_HUB_TOKEN to a token with write permission.")
    known = (name, *(str(item.get("name")) for item in account.get("orgs") or ()))
    namespace = next((each for each in known if each.lower() == (wanted or name).lower()), None)
    if namespace is not None:
        return namespace
    # a fine-grained token lists its permissions elsewhere: only the Hub can tell, when it is used
    if role == "write":
        raise HubError(
            f"The token belongs to {name}, who is not a member of {wanted}. Set `namespace` to an account the token may write to, or use another token."
        )
    return str(wanted)


def _account(api: HfApi) -> dict[str, Any]:
    """What the Hub says of the token's account."""
    with hub_errors(api, "find out whom the token belongs to"):
        account: dict[str, Any] = api.whoami()
    return account
