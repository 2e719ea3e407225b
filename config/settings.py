"""Settings of the service: `sluice.yaml`, overridden by SLUICE_… environment variables. Secrets come from the environment only."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError, YamlConfigSettingsSource

from config.errors import ConfigurationError
from config.files import dotted, explain, read_yaml
from config.keep import Keep
from config.near import meant
from config.notify import PREFIX as PLACES
from config.notify import Notified
from config.plans import Bytes
from config.watch import REPO_ID, Watched

__all__ = ["PUBLIC_HUB", "REPO_ID", "Settings", "Watched", "load_settings"]

PUBLIC_HUB = "https://huggingface.co"
PREFIX = "SLUICE_"
_LOCAL = re.compile(r"https?://(?:localhost|127\.|\[::1\])")  # Hubs without a lasting address
ELSEWHERE = ("CONFIG", "CACHE", "LLAMA_CPP", "CUDA", "PORTABLE", "TEST_POSTGRES", "STARTED_BY")  # variables with the prefix that are no settings
ALIKE = 0.8  # of two names: what is less so may be a variable of somebody else, as a cluster's SLUICE_SERVICE_HOST is
SECRETS = {"hub_token", "webhook_secret", "rebuild_secret", "server_token"}
SLOWEST = 10_000  # bytes a second: with less, the smallest release takes hours
CARD_TEXT = 20_000  # characters of a card's header or footer


class Settings(BaseSettings):
    """Everything an operator may set. Each field can also be given as SLUICE_<NAME> in the environment."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True)

    home: Path = Path("~/.local/share/sluice")
    """Folder for stage outputs, logs and the default database."""
    database_url: str | None = None
    """SQLAlchemy URL; default: SQLite in `home`. PostgreSQL: `postgresql+psycopg://user@host/name`."""
    hub_endpoint: str = PUBLIC_HUB
    """Base URL of the Hub to read from and publish to."""
    hub_token: SecretStr | None = None
    """Write token. Environment only (SLUICE_HUB_TOKEN; for the public Hub also HF_TOKEN, or the `hf auth login` file)."""
    hub_timeout: float = Field(default=100.0, gt=0)
    """A call to the Hub is given up, and made again, when nothing moves for so many seconds, or less than `hub_rate` does."""
    hub_rate: float = Field(default=10_000.0, gt=0)
    """Bytes a second that uploads and downloads must reach in the long run."""
    upload_limit: Bytes | None = Field(default=None, ge=SLOWEST)
    """Bytes a second that are sent to the Hub at most, all uploads of this process together; "20MB"."""
    download_limit: Bytes | None = Field(default=None, ge=SLOWEST)
    """The same of what comes from the Hub."""
    hub_xet: bool = False
    """Whether files go to and from the public Hub by Xet instead of LFS. Of a file that resembles one that is there it sends what is new only, but a download
    that breaks off begins the file anew. It is held to `hub_timeout`, `hub_rate` and `stage_minutes`; it knows no `upload_limit` or `download_limit`, so
    where one of these is set, files go by LFS all the same."""
    hub_patience: float = Field(default=300.0, ge=0)
    """Seconds that a run waits for a Hub that is busy or away, or for a cluster that has no node or whose store is away, before it is put back into the
    queue and tried again later."""
    namespace: str | None = None
    """Account or organization to publish under; default: the account of the token."""
    private: bool = False
    """Create published repos as private. Repos of a private upstream are always private."""
    largest_file: Bytes = Field(default=50_000_000_000, ge=1_000_000)
    """GGUF files that are larger are published in parts of at most so many bytes, as llama.cpp reads them; "50GB". The Hub refuses larger files."""
    fixes_as_pr: Literal["never", "own", "always"] = "never"
    """Offer the fixes to the upstream as a pull request: `own` where the 16-bit repo would be the upstream itself, `always` to every upstream."""
    card_header: str = Field(default="", max_length=CARD_TEXT)
    """Markdown at the top of every card, e.g. who you are and where to reach you."""
    card_footer: str = Field(default="", max_length=CARD_TEXT)
    """Markdown at the end of every card."""
    keep: Keep = Keep()
    """What stays on the disk, and when the rest goes."""
    watch: tuple[Watched, ...] = ()
    """Upstream repos to follow; entries can be added over the API as well."""
    notify: tuple[Notified, ...] = ()
    """Channels and programs that `sluice serve` tells how runs end."""
    poll_minutes: float = Field(default=10.0, gt=0)
    """Minutes between two looks at the watch list, a tenth more or less. A poll takes one call for each owner, and one for each further page of repos."""
    webhook_secret: SecretStr | None = None
    """Secret that the Hub sends in X-Webhook-Secret. Environment only; without it webhooks are refused."""
    rebuild_secret: SecretStr | None = None
    """Secret with which requests to `/webhooks/rebuild` are signed. Environment only; without it they are refused."""
    api_host: str = "127.0.0.1"
    """Address on which `sluice serve` listens."""
    api_port: int = Field(default=8080, ge=0, le=65535)
    """Port on which `sluice serve` listens; 0 picks a free one."""
    api_connections_per_client: int = Field(default=64, ge=1)
    """Connections that one address may have at once; the one that waits longest for its client gives way to a new one. A reverse proxy counts as one
    client: give it a few hundred. There are 512 of all clients together."""
    proxy_prefix: str = Field(default="", pattern=r"^(/[A-Za-z0-9._~-]+)*$")
    """The path under which a reverse proxy shows the service, as `/sluice`; links, cookies and the API's description begin with it. The proxy may hand paths on
    with it or without."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks (`10.0.0.0/8`) of reverse proxies that are believed about who the client is: `X-Forwarded-For` and `X-Forwarded-Proto`. Each must
    add the address that it was asked from at the end of the first. Nobody else is believed."""
    health_port: int | None = Field(default=None, ge=0, le=65535)
    """Port of a second listener for `/api/v1/health`, `/api/v1/live` and `/metrics` alone, for a supervisor that is to be answered whatever the API does."""
    server: str | None = None
    """Address of a service elsewhere. `sluice` then shows and steers that one, in the place of what is on this machine."""
    server_token: SecretStr | None = None
    """Token for that service, from `sluice token create` there. Environment only (SLUICE_SERVER_TOKEN)."""
    executor: Literal["local", "ray"] = "local"
    """Where stages are carried out: on this machine, or as tasks of the Ray cluster that runs on it or that RAY_ADDRESS names (`pip install sluice[ray]`)."""
    store_url: str | None = None
    """With `executor: ray`, the store by which files travel between machines: `file:///a/folder` that all of them see, or `s3://bucket/prefix`. Keys of
    an S3 server come from the environment of the service and of every node only: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL_S3."""
    threads: int = Field(default_factory=lambda: len(os.sched_getaffinity(0)), ge=1)
    """CPU threads for one stage."""
    stage_minutes: float = Field(default=24 * 60.0, gt=0)
    """A stage that runs longer is stopped and fails."""
    stuck_minutes: float = Field(default=120.0, gt=0)
    """A stage that shows no sign of progress for so long is stopped and fails, as one that hangs; what still hangs after a tenth more is told as stuck by
    `/api/v1/health` and `/api/v1/live`, and systemd starts the service again."""
    progress_seconds: float = Field(default=30.0, gt=0)
    """Between two lines about a stage at work, where output is not a terminal."""
    memory_gib: float | None = Field(default=None, gt=0)
    """Address-space limit of one stage process; none when absent."""

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            try:
                ip_network(network)
            except ValueError as error:
                raise ValueError(f"{network!r} is neither an address nor a network: {error}") from error
        return value

    @field_validator("server", "server_token", mode="before")
    @classmethod
    def _nothing_is_none(cls, value: object) -> object:
        return None if value == "" else value  # SLUICE_SERVER= for one command

    @field_validator("server", "hub_endpoint")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None and not (re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#@]*)?", value) and _parses(value)):
            raise ValueError("it is no address of a service; write it as https://host or https://host/prefix, with no user and no query")
        return value

    @field_validator("hub_token", "server_token")
    @classmethod
    def _can_be_sent(cls, value: SecretStr | None) -> SecretStr | None:
        token = "" if value is None else value.get_secret_value().strip()  # of a file it may end with a line break
        if not (token.isascii() and token.isprintable()):
            raise ValueError("it holds characters that no token has; copy it once more")
        return value

    @field_validator("card_header", "card_footer")
    @classmethod
    def _holds_no_marker(cls, value: str) -> str:
        if "<!-- sluice:" in value:
            raise ValueError("it holds `<!-- sluice:`, which marks the sections of a card that Sluice owns; take that out")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment before file, so that a container can override a mounted sluice.yaml; what code passes comes first."""
        return init_settings, env_settings, YamlConfigSettingsSource(settings_cls)

    @property
    def folder(self) -> Path:
        """`home` as an absolute path."""
        return self.home.expanduser().resolve()

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database_url or f"sqlite:///{self.folder / 'sluice.db'}"

    @property
    def token(self) -> str | None:
        """The Hub token in force, in the clear: pass it to HfApi, never to a log, an argument list or a stage."""
        if self.hub_token is not None:
            return self.hub_token.get_secret_value().strip()  # a file's line break is none of a token's letters, and no header may hold it
        if self.hub_endpoint != PUBLIC_HUB:
            return None  # a token of the public Hub is never sent elsewhere
        from huggingface_hub import get_token

        return get_token()

    @property
    def lasting_hub(self) -> str | None:
        """The Hub's address, as cards and files may name it; None where nobody could follow it from another machine."""
        return None if _LOCAL.match(self.hub_endpoint) else self.hub_endpoint.rstrip("/")

    def with_(self, **changes: Any) -> Self:
        """A copy with these fields changed."""
        return self.model_copy(update=changes)


def load_settings(path: Path | None = None, **overrides: Any) -> Settings:
    """Settings from `path`, else $SLUICE_CONFIG, else ./sluice.yaml when it exists, else defaults.

    Raises ConfigurationError when the file is named but missing, is not valid, or holds a secret.
    """
    named = path or (Path(os.environ["SLUICE_CONFIG"]) if os.environ.get("SLUICE_CONFIG") else None)
    file = named or (Path("sluice.yaml") if Path("sluice.yaml").exists() else None)
    if file is not None:
        content = read_yaml(file)
        if content is not None and not isinstance(content, dict):
            raise ConfigurationError(f"{file} must hold a mapping (key: value lines), not {type(content).__name__}.")
        if secrets := sorted(SECRETS & set(content or {})):
            raise ConfigurationError(
                f"{file} holds {' and '.join(secrets)}. Secrets come from the environment only: set SLUICE_{secrets[0].upper()} and remove the line."
            )

    class FromFile(Settings):
        model_config = SettingsConfigDict(yaml_file=file)

    _refuse_misspelt(os.environ)
    with _worded(file):
        return FromFile(**overrides)


def of_environment(**values: Any) -> Settings:
    """These settings, and of the others what the environment says, whatever files there are. Raises ConfigurationError where it is not valid."""
    with _worded(None):
        return Settings(**values)


@contextmanager
def _worded(file: Path | None) -> Iterator[None]:
    """Around making settings from the file and the environment. Raises ConfigurationError where they are not valid."""
    try:
        yield
    except ValidationError as error:
        given = {str(item["loc"][0]): _variable(str(item["loc"][0]), os.environ) for item in error.errors(include_url=False) if item["loc"]}
        heading = "The environment" if given and all(given.values()) else str(file or "The settings")

        def spelt(where: Sequence[int | str]) -> str:
            return dotted((given.get(str(where[0])) or where[0], *where[1:]) if where else where)

        raise ConfigurationError(f"{heading} is not valid: {explain(error, Settings, named=spelt)}.") from error
    except SettingsError as error:
        wrong = next((name for name in Settings.model_fields if f'"{name}"' in str(error)), "watch")
        raise ConfigurationError(f"{PREFIX}{wrong.upper()} cannot be read: write its value as JSON, or set `{wrong}` in sluice.yaml.") from error


def _parses(address: str) -> bool:
    """Whether it has a host, and a port that is a number or none."""
    try:
        parts = urlsplit(address)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _variable(setting: str, environment: Mapping[str, str]) -> str | None:
    """The environment variable that a setting comes from; None when it comes from elsewhere."""
    return next((name for name in environment if name.upper() == f"{PREFIX}{setting.upper()}"), None)


def _refuse_misspelt(environment: Mapping[str, str]) -> None:
    """Raise ConfigurationError for a variable that is all but a setting's: it would be passed over, and the setting be without effect."""
    known = [*(name.upper() for name in Settings.model_fields), *ELSEWHERE]
    for name in sorted(environment):
        written = name.upper().removeprefix(PREFIX)
        if name.upper().startswith(PLACES):
            continue
        if name.upper().startswith(PREFIX) and written.partition("__")[0] not in known and (near := meant(written, known, cutoff=ALIKE)):
            raise ConfigurationError(f"There is no setting {name}. Did you mean {PREFIX}{near}? Correct the variable, or unset it.")
