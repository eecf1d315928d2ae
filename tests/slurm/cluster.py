"""Whether this machine's cluster can serve the tests, and what it was doing when one of them hit its time limit."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

# what a cluster without accounting database needs, impatience, and all logs of jobs
OPTIONS = (
    "--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "3",
    "--seconds-between-status-checks", "3", "--slurm-keep-successful-logs",
)  # fmt: skip


def answer(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return " ".join((done.stdout + done.stderr).split()) or "none"


def jobs_and_nodes() -> str:
    jobs = answer("squeue", "--states=all", "--noheader", "--format=%i %T %r;")
    return f"nodes: {answer('sinfo', '--noheader', '--format=%T %E;')} jobs: {jobs[-120:]}"


def said_by_snakemake(folder: Path) -> str:
    """How many jobs it submitted, how many of them failed, and its last line."""
    logs = sorted(folder.rglob(".snakemake/log/*.log"), key=lambda log: log.stat().st_mtime)
    if not logs:
        return "no log"
    text = logs[-1].read_text()
    submitted, failed = text.count("submitted with SLURM jobid"), text.count("Error in rule")
    return f"{submitted} jobs submitted, {failed} failed, then {text.strip().splitlines()[-1][:100]!r}"


def ends(*command: str, folder: Path) -> bool:
    """Whether this command ends well within three minutes."""
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, timeout=180).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def why_unusable(folder: Path) -> str | None:
    """Why no test could pass here, whatever this project does.

    A cluster may answer sinfo, say that it is idle, and hold every job back. And Snakemake's plugin waits for ever for
    a job that has ended if the cluster does not tell it so: when `scontrol show config` fails, it asks sacct, which
    knows nothing without an accounting database.
    """
    if not shutil.which("sbatch"):
        return "there is none"
    if not ends("sbatch", "--wait", "--job-name", "trial", "--output", os.devnull, "--wrap", "true", folder=folder):
        subprocess.run(["scancel", "--name", "trial"])
        return "it runs no job"
    (folder / "Snakefile").write_text("rule:\n    output: 'done'\n    shell: 'touch {output}'\n")
    command = (sys.executable, "-m", "snakemake", "--executor", "slurm", "--jobs", "1", *OPTIONS)
    if not ends(*command, folder=folder):
        return (
            f"Snakemake does not finish one rule: {said_by_snakemake(folder)}; {jobs_and_nodes()}; "
            f"scontrol: {answer('scontrol', 'show', 'config')[-60:]}"
        )
    return None
