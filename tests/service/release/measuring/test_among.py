"""Files of one release beside one another: the same tensors under two names, and files that others outdo."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gguf import GGUFWriter

from builders import twins
from config.recipe import Gate
from config.words import Kind, Measurement, Outcome, Variant, Verdict
from qa import gates
from service.execution.kept import File, Output
from service.release.graph import Call
from service.release.measuring.among import AMONG, OUTDONE, TWINS, among
from service.release.products import Built, Found

Make = Callable[..., Built]
GATES = [Gate.model_validate({"name": measure, "measure": measure, "at_most": 0}) for measure in AMONG]


@pytest.fixture
def made(tmp_path: Path) -> Make:
    """A variant with a file whose one tensor is `values`, so many bytes larger than that by what its header says."""

    def make(tag: str, kld: float, *, values: int = 0, padding: int = 0, passed: bool = True, kind: str = Kind.GGUF) -> Built:
        folder = tmp_path / tag / "files"
        folder.mkdir(parents=True)
        writer = GGUFWriter(folder / f"{tag}.gguf", "llama")
        writer.add_string("general.name", tag + "x" * padding)
        writer.add_tensor("a", np.full(32, values, np.float32))
        for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
            step()
        data = (folder / f"{tag}.gguf").read_bytes()
        file = File(path=f"{tag}.gguf", sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        return Built(
            variant=Variant(tag=tag, kind=kind),
            output=Output(key=tag, folder=tmp_path / tag, files=(file,), result={"file": file.path}, seconds=0.0),
            bpw=4.0,
            measured={"kld.mean": Measurement(name="kld.mean", value=kld, unit="nats", stderr=0.001)},
            verdict=Verdict(tag=tag, outcome=Outcome.PASSED if passed else Outcome.FAILED, reasons=(), results=()),
        )

    return make


def found(*built: Built) -> dict[str, Found]:
    def call(name: str, call: Call) -> Any:
        assert call.function == "builders.twins:compare"
        return SimpleNamespace(result=twins.compare(Path(), **{name: item.path for name, item in call.inputs.items()}))  # type: ignore[union-attr, misc]

    return among(SimpleNamespace(call=call), built)  # type: ignore[arg-type]


def told(found: dict[str, Found], measure: str) -> dict[str, str]:
    """What is said of the variants that it counts against."""
    return {tag: item.measured[measure].details[0] for tag, item in found.items() if item.measured[measure].value}


def test_the_first_of_files_with_the_same_tensors_stays(made: Make) -> None:
    beside = found(made("Q3_K_S", 0.3), made("Q2_K", 0.3), made("UD-Q2_K_XL", 0.3), made("Q4_0", 0.1, values=1))
    assert told(beside, TWINS) == {tag: f"{tag} holds the tensors of Q3_K_S byte for byte: take Q3_K_S" for tag in ("Q2_K", "UD-Q2_K_XL")}
    verdict = gates.judge(Variant(tag="Q2_K", kind=Kind.GGUF), GATES, beside["Q2_K"].measured, {})
    assert verdict.reasons == ("file.twins is 1, at most 0 is allowed: 1 too many. Q2_K holds the tensors of Q3_K_S byte for byte: take Q3_K_S.",)


def test_a_file_that_is_not_published_is_nobody_s_twin(made: Make) -> None:
    beside = found(made("Q3_K_S", 0.3, passed=False), made("Q2_K", 0.3))
    assert told(beside, TWINS) == {}
    assert gates.judge(Variant(tag="Q2_K", kind=Kind.GGUF), GATES, beside["Q2_K"].measured, {}).outcome is Outcome.PASSED


def test_a_damaged_file_is_left_to_other_gates(made: Make) -> None:
    broken, whole = made("Q8_0", 0.1), made("Q4_0", 0.3)
    broken.output.file().path.write_bytes(b"GGUF")
    assert told(found(whole, broken, made("Q4_1", 0.3)), TWINS).keys() == {"Q4_1"}


def test_what_another_outdoes_says_which_to_take(made: Make) -> None:
    beside = found(made("IQ4_XS", 0.16, values=1), made("Q3_K_M", 0.2, values=2, padding=1000), made("Q4_0", 0.161, values=3, padding=2000))
    assert told(beside, OUTDONE) == {
        "Q3_K_M": "IQ4_XS is smaller (288 B instead of 1.28 kB) and closer (mean KLD 0.16000 ± 0.00100 instead of 0.20000 ± 0.00100): take IQ4_XS"
    }
    assert told(beside, TWINS) == {}


def test_other_kinds_have_no_such_figures(made: Make) -> None:
    beside = found(made("bnb-4bit", 0.2, kind=Kind.BNB_4BIT), made("Q4_0", 0.1))
    for gate in GATES:
        assert gates.judge(Variant(tag="bnb-4bit", kind=Kind.BNB_4BIT), [gate], beside["bnb-4bit"].measured, {}).outcome is Outcome.PASSED
