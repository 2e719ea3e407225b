import re
from pathlib import Path

import pytest

from config.errors import ConfigurationError
from config.settings import Settings, load_settings, of_environment

SETTINGS = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SLUICE_CONFIG", raising=False)


def test_the_environment_overrides_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sluice.yaml").write_text("poll_minutes: 4\nnamespace: filed\n")
    monkeypatch.setenv("SLUICE_POLL_MINUTES", "3")
    settings = load_settings()
    assert settings.poll_minutes == 3
    assert settings.namespace == "filed"


@pytest.mark.parametrize("name", ["hub_token", "webhook_secret"])
def test_a_secret_in_the_file_is_refused_without_showing_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "sluice.yaml").write_text(f"{name}: hf_verysecret\n")
    with pytest.raises(ConfigurationError, match=f"set SLUICE_{name.upper()} and remove the line") as caught:
        load_settings()
    assert "verysecret" not in str(caught.value)


def test_secrets_are_not_printed() -> None:
    settings = Settings(hub_token="hf_verysecret")
    assert "verysecret" not in repr(settings)
    assert settings.token == "hf_verysecret"
    assert Settings(hub_token="hf_verysecret\n").token == "hf_verysecret"


def test_a_token_of_this_machine_is_not_used_for_another_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert Settings(hub_endpoint="http://127.0.0.1:1").token is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("watch: [{repo: 'https://huggingface.co/a/b'}]", "watch.0.repo"),
        ("poll_minutes: 0", "poll_minutes: Input should be greater than 0"),
        ("colour: red", "colour: Extra inputs are not permitted."),
        ("memory_gb: 3", "memory_gb: Extra inputs are not permitted (did you mean `memory_gib`?)."),
        ("watch: [{repo: a/b, recpie: x}]", "watch.0.recpie: Extra inputs are not permitted (did you mean `recipe`?)."),
        ("- a", "must hold a mapping"),
        ("a: [", "not valid YAML at line 1"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "sluice.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        load_settings()


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        load_settings(tmp_path / "other.yaml")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SLUICE_MEMORY_GIB", "abc", "The environment is not valid: SLUICE_MEMORY_GIB: Input should be a valid number"),
        ("sluice_threads", "0", "sluice_threads: Input should be greater than or equal to 1"),
        ("SLUICE_API_PORT", "99999", "SLUICE_API_PORT: Input should be less than or equal to 65535"),
        ("SLUICE_WATCH", "abc", "SLUICE_WATCH cannot be read: write its value as JSON, or set `watch` in sluice.yaml"),
        ("SLUICE_WATCH", '[{"repo": "a/b", "recpie": "x"}]', "SLUICE_WATCH.0.recpie: Extra inputs are not permitted (did you mean `recipe`?)"),
        ("SLUICE_SERVER", "http://[::1", "SLUICE_SERVER: Value error, it is no address of a service"),
        ("SLUICE_HUB_ENDPOINT", "hub.example", "SLUICE_HUB_ENDPOINT: Value error, it is no address of a service"),
        ("SLUICE_HUB_TOKEN", "hf_\u00e9", "SLUICE_HUB_TOKEN: Value error, it holds characters that no token has; copy it once more"),
        ("SLUICE_MEMORY_GB", "3", "There is no setting SLUICE_MEMORY_GB. Did you mean SLUICE_MEMORY_GIB?"),
    ],
)
def test_a_variable_that_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str) -> None:
    monkeypatch.delenv("SLUICE_THREADS")  # the tests' own
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        load_settings()


def test_where_no_file_counts_a_variable_that_is_wrong_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_THREADS", "many")
    with pytest.raises(ConfigurationError, match=r"^The environment is not valid: SLUICE_THREADS: "):
        of_environment(namespace="acme")


def test_what_is_wrong_in_the_file_is_not_blamed_on_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sluice.yaml").write_text("poll_minutes: often\n")
    monkeypatch.setenv("SLUICE_THREADS", "many")
    with pytest.raises(ConfigurationError, match=r"sluice\.yaml is not valid: .*poll_minutes: .*; SLUICE_THREADS: "):
        load_settings()


@pytest.mark.parametrize("name", ["SLUICE_SERVICE_HOST", "SLUICE_PORT_8080_TCP", "SLUICE_CACHE", "SLUICE_HOME"])
def test_variables_of_others_and_those_that_are_no_settings_are_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "/x")
    assert load_settings().threads >= 1


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_documented(name: str) -> None:
    assert f"`{name}`" in SETTINGS


def test_header_and_footer_of_cards_are_markdown_that_marks_no_sections(tmp_path: Path) -> None:
    (tmp_path / "sluice.yaml").write_text("card_header: |\n  By **Acme**.\n\n  Ask us.\n")
    assert load_settings().card_header == "By **Acme**.\n\nAsk us.\n"
    for footer, said in (("<!-- sluice:end about -->", "which marks the sections of a card"), ("x" * 20_001, "card_footer")):
        (tmp_path / "sluice.yaml").write_text(f"card_footer: '{footer}'\n")
        with pytest.raises(ConfigurationError, match=said):
            load_settings()
