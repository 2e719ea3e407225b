"""Read a YAML file into a pydantic model, and say in plain sentences what is wrong with it."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from config.errors import ConfigurationError
from config.near import meant

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
        where, problem = where_broken(error)
        raise ConfigurationError(f"{path} is not valid YAML{f' at {where}' if where else ''}: {problem}. Correct that line.") from error


def where_broken(error: yaml.YAMLError) -> tuple[str, str]:
    """Line and column of a syntax error, as far as they are known, and what is wrong there."""
    mark = getattr(error, "problem_mark", None)
    return f"line {mark.line + 1}, column {mark.column + 1}" if mark else "", getattr(error, "problem", None) or str(error)


def load_model(path: Path, model: type[Model], **context: Any) -> Model:
    """Validate the YAML file at `path` as `model`, whose validators see `context`. Raises ConfigurationError that names every wrong field."""
    return validated(read_mapping(path), model, told=str(path), folder=path.parent.resolve(), **context)


def read_mapping(path: Path) -> dict[str, Any]:
    """The parsed content of `path`, which holds a mapping. Raises ConfigurationError."""
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise ConfigurationError(f"{path} must hold a mapping (key: value lines), not {type(data).__name__}.")
    return data


def validated(data: Mapping[str, Any], model: type[Model], /, *, told: str, **context: Any) -> Model:
    """What was parsed as `model`, whose validators see `context`; an error calls it `told`. Raises ConfigurationError that names every wrong field."""
    try:
        return model.model_validate(data, context=context)
    except ValidationError as error:
        raise ConfigurationError(f"{told} is not a valid {model.__name__.lower()}: {explain(error, model)}.") from error


def dotted(where: Sequence[int | str]) -> str:
    """A place in a file, as `a.b.0`."""
    return ".".join(map(str, where)) or "file"


def explain(error: ValidationError, model: type[BaseModel] | None = None, *, named: Callable[[Sequence[int | str]], str] = dotted) -> str:
    """Each validation error as `field: what is wrong`, joined by semicolons; never the offending value of a secret.

    With the `model` that was validated, a key that is not there is told with the one that may have been meant.
    """
    return "; ".join(f"{where}: {what}" for where, what in faults(error, model, named=named))


def faults(error: ValidationError, model: type[BaseModel] | None = None, *, named: Callable[[Sequence[int | str]], str] = dotted) -> Iterator[tuple[str, str]]:
    """The place of each validation error and what is wrong there, see `explain`."""
    for item in error.errors(include_url=False):
        if item["type"] != "default_factory_not_called":  # what another field, which is wrong, decides
            yield named(item["loc"]), f"{item['msg']}{_suggestion(item, model)}"


def _suggestion(item: Mapping[str, Any], model: type[BaseModel] | None) -> str:
    near = None
    if item["type"] == "extra_forbidden" and model is not None:
        near = meant(str(item["loc"][-1]), _keys(model, item["loc"][:-1]))
    elif item["type"] == "literal_error" and isinstance(item["input"], str):
        near = meant(item["input"], re.findall(r"'([^']*)'", item["ctx"]["expected"]))
    return "" if near is None else f" (did you mean `{near}`?)"


def _keys(model: type[BaseModel], where: Sequence[int | str]) -> list[str]:
    """The keys of the part of a model at a place."""
    for step in where:
        field = model.model_fields.get(str(step))
        model = model if field is None else next(models_in(field.annotation), model)
    return list(model.model_fields)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in a type such as `tuple[Model, ...]` or `Model | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)
