"""The real models whose weights come from packages of the Python index, each as a function that writes its owners' folder."""

from collections.abc import Callable, Mapping
from pathlib import Path

from bench.models.gemma import gemma3_270m
from bench.models.real import smollm2

MODELS: Mapping[str, Callable[[Path], None]] = {"SmolLM2-135M-Instruct": smollm2, "gemma-3-270m": gemma3_270m}
