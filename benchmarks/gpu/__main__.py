"""`make gpu-check`: whether a GPU computes what this project promises, and how fast; meant to take under 20 minutes.

Prints a line for each finding: ok, FAIL, note or speed, its name, and what was found; the same goes to a file as lines
of JSON. The exit code is 1 if anything failed, 5 if there is no usable GPU.
"""

import argparse
import json
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu import verified
from benchmarks.gpu.machine import Context, describe_machine, usable_device
from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.report import FAIL, Report
from benchmarks.separate_project import ROOT
from moonshine.errors import MachineError, WriteError
from moonshine.models.arithmetic import make_deterministic

LOG, LOG_OF_PARTS = ROOT / "logs/gpu-check.jsonl", ROOT / "logs/gpu-check-parts.jsonl"
"""Of a whole check on a GPU, for others to read; and of rehearsals and of some parts."""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to run (default: all): {', '.join(PARTS)}")
    parser.add_argument(
        "--device", default="cuda", choices=("cuda", "cpu"), help="cpu only with --tiny (default: cuda)"
    )
    parser.add_argument("--tiny", action="store_true", help="rehearse with small networks, batches and images")
    parser.add_argument(
        "--log",
        type=Path,
        help=f"where to write the lines of JSON (default: {LOG.relative_to(ROOT)}; of a rehearsal or of some parts "
        f"{LOG_OF_PARTS.relative_to(ROOT)})",
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown part {', '.join(sorted(unknown))}; must be one of {', '.join(PARTS)}")
    if options.device == "cpu" and not options.tiny:
        parser.error("--device cpu needs --tiny; at full size, a CPU would take hours")
    names = options.parts or list(PARTS)
    log = options.log or (LOG_OF_PARTS if options.parts or options.tiny else LOG)
    try:
        device = usable_device(options.device)
        machine = describe_machine(device, options.tiny, names)
        report = Report(log, machine)
    except MachineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {log}: cannot be written ({error.strerror}); name another file with --log", file=sys.stderr)
        return WriteError.exit_code
    make_deterministic(1)
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # more workers than CPUs, to check them
    print(json.dumps(machine), flush=True)
    context = Context(device, options.tiny, report)
    for name in names:
        with report.part(name):
            PARTS[name](context)
    report.close()
    _show_row(context, is_whole=names == list(PARTS))
    print(f"{', '.join(f'{count} {kind}' for kind, count in sorted(report.counts.items()))}; all in {report.path}")
    if report.failures:
        print(f"FAILED: {'; '.join(report.failures)}")
    return 1 if report.counts[FAIL] else 0


def _show_row(context: Context, is_whole: bool) -> None:
    """Write what was verified into the documentation, or after a rehearsal print what would be written."""
    if is_whole and not context.tiny:
        verified.write_row(context.report.path, verified.PAGE)
        print(f"written into {verified.PAGE.relative_to(ROOT)}")
    elif is_whole:
        lines = [json.loads(line) for line in context.report.path.read_text().splitlines()]
        print(f"on a GPU this would be written into {verified.PAGE.relative_to(ROOT)}:\n{verified.row(lines)}")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("stopped by SIGINT", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
