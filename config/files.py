"""Read a YAML file into a pydantic model, and say in plain sentences what is wrong with it."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from config.errors import ConfigurationError

Model = TypeVar("Model", bound=BaseModel)


def read_yaml(path: Path) -> Any:
    """The parsed content of `path`. Raises ConfigurationError with the line and column of a syntax error."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path} does not exist. Create it, or name another file.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigurationError(f"{path} is not valid YAML{where}: {problem}. Correct that line.") from error


def load_model(path: Path, model: type[Model], **context: Any) -> Model:
    """Validate the YAML file at `path` as `model`, whose validators see `context`. Raises ConfigurationError that names every wrong field."""
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise ConfigurationError(f"{path} must hold a mapping (key: value lines), not {type(data).__name__}.")
    try:
        return model.model_validate(data, context={"folder": path.parent.resolve(), **context})
    except ValidationError as error:
        raise ConfigurationError(f"{path} is not a valid {model.__name__.lower()}: {explain(error)}.") from error


def explain(error: ValidationError) -> str:
    """Each validation error as `field: what is wrong`, joined by semicolons; never the offending value of a secret."""
    items = error.errors(include_url=False, include_input=False)
    told = [item for item in items if item["type"] != "default_factory_not_called"]  # a default that another field, which is wrong, decides
    return "; ".join(f"{'.'.join(str(part) for part in item['loc']) or 'file'}: {item['msg']}" for item in told)
