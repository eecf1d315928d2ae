"""How long networks take, as `moonshine measure` has written it: its files, and what a row's network takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moonshine.errors import DataError
from moonshine.params import Params
from moonshine.project import artefacts
from moonshine.project.rows import Row

Precision = Literal["float32", "int8"]
Milliseconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Timing(_Part):
    """The times of one batch: median, and the tenth and the ninetieth percentile."""

    precision: Precision
    threads: int
    median_ms: Milliseconds
    p10_ms: Milliseconds
    p90_ms: Milliseconds


class MeasuredNetwork(_Part):
    """`weights` names the model that was measured; None for an untrained network."""

    architecture: dict[str, Any]
    input: list[int]
    """Channels, height and width."""
    weights: str | None
    timings: list[Timing]
    peak_bytes: dict[Precision, int]
    """Most memory that a process took for the network, beyond what it had before; empty if unknown."""


class Hardware(_Part):
    processor: str
    instruction_sets: list[str]
    """Those that convolutions gain from, as Linux names them."""
    cpus: int
    governor: str | None
    """What sets the processor's frequency; None if the system does not tell."""
    gpu: str | None
    """None if the networks ran on the CPU."""


class Protocol(_Part):
    """How it was measured: in each of `rounds` every network ran in turn, once untimed and `runs_per_round` times."""

    backend: Literal["onnxruntime", "eager", "compiled"]
    batch: int
    threads: Annotated[list[int], Field(min_length=1)]
    warm_up: int
    rounds: int
    runs_per_round: int


class LatencyFile(_Part):
    """results/<experiment>/latency/<machine>.json."""

    format: Literal[1] = 1
    machine: str
    hardware: Hardware
    versions: dict[str, str]
    protocol: Protocol
    reference: str
    """The network that the others are compared with, the teacher's."""
    networks: dict[str, MeasuredNetwork]

    def median(self, network: str, threads: int, precision: Precision = "float32") -> float | None:
        """Milliseconds per batch; None if it was not measured."""
        timings = self.networks[network].timings if network in self.networks else []
        found = (each.median_ms for each in timings if (each.threads, each.precision) == (threads, precision))
        return next(found, None)

    @property
    def fewest_threads(self) -> int:
        """Those that the results page shows."""
        return min(self.protocol.threads)

    @property
    def description(self) -> str:
        """Where and how it was measured, in words."""
        on, protocol = self.hardware.gpu or self.hardware.processor, self.protocol
        library = "onnxruntime" if protocol.backend == "onnxruntime" else "torch"
        how = f"{protocol.backend} {self.versions[library]}" if library in self.versions else protocol.backend
        threads = "" if self.hardware.gpu else f"{self.fewest_threads} thread{'s' * (self.fewest_threads > 1)}, "
        return f"{self.machine} ({on}), median, {threads}batch of {protocol.batch}, {how}"


@dataclass(frozen=True)
class Latency:
    """What one row's network takes on one machine, in milliseconds per batch; None for what was not measured."""

    file: LatencyFile
    float32: float
    int8: float | None
    speedup: float | None
    """How many times as fast as the teacher's network."""


def read_latency_files(params: Params) -> list[LatencyFile]:
    """Those of the experiment, sorted by machine. Raises DataError (exit code 3) for a file of another format."""
    return [_read(path) for path in sorted(artefacts.latency_folder(params.experiment).glob("*.json"))]


def latencies(params: Params, files: list[LatencyFile], row: Row) -> dict[str, Latency]:
    """Machine -> what the row's network takes there, if it was measured as params.yaml has it now."""
    found, network = {}, row.network
    for file in files:
        own = file.median(network, file.fewest_threads) if _is_current(params, file, network) else None
        if own is None:
            continue
        reference = file.reference if _is_current(params, file, file.reference) else ""
        teacher = file.median(reference, file.fewest_threads)
        int8 = file.median(network, file.fewest_threads, "int8")
        found[file.machine] = Latency(file, own, int8, teacher / own if teacher else None)
    return found


def _is_current(params: Params, file: LatencyFile, network: str) -> bool:
    """Whether the network has been measured, and for the images that it has now."""
    if network not in file.networks or network not in params.networks:
        return False
    measured, size = file.networks[network], params.dataset.size
    return measured.architecture == params.architecture(network) and measured.input[1:] == [size, size]


def _read(path: Path) -> LatencyFile:
    again = f"delete it, or measure again: `moonshine measure --machine {path.stem}`"
    try:
        file = LatencyFile.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        what = f"{where}: {first['msg']}" if where else first["msg"]
        raise DataError(f"{path}: not a file of this version's `moonshine measure` ({what}); {again}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {again}") from None
    if file.machine != path.stem:
        raise DataError(f"{path}: is the file of the machine {file.machine}; rename it to {file.machine}.json")
    return file
