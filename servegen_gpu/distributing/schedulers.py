"""Which share of the parts a task makes: what SLURM, Kubernetes and Open MPI tell it in its environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from servegen_gpu.errors import OptionError

SLURM, KUBERNETES, OPEN_MPI = "SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX", "OMPI_COMM_WORLD_RANK"


class Share(NamedTuple):
    """A task of many.

    Attributes
    ----------
    task, tasks : int
        From 0 on: it makes the parts `task`, `task` + `tasks`, and so on.
    parts : int
    """

    task: int
    tasks: int
    parts: int


def scheduled(environment: Mapping[str, str], parts: int | None = None) -> Share:
    """The share of the task that this process is.

    Parameters
    ----------
    environment : mapping
        Such as ``os.environ``.
    parts : int, optional
        As many as there are tasks by default. Kubernetes does not tell how many there are: state it there.

    Raises
    ------
    OptionError
        Without exactly one of these schedulers, and if its variables do not tell a number and how many there are.
    """
    found = [name for name in (SLURM, KUBERNETES, OPEN_MPI) if name in environment]
    if len(found) != 1:
        got = " and ".join(found) or f"none of {SLURM}, {KUBERNETES} and {OPEN_MPI} in the environment"
        raise OptionError("a task of one scheduler with --shard auto", got, "say which share by --shard K/N")
    if found[0] == SLURM:
        task, tasks = _of_array(environment)
    elif found[0] == OPEN_MPI:
        task, tasks = (_number(environment, name) for name in (OPEN_MPI, "OMPI_COMM_WORLD_SIZE"))
    elif parts is None:
        got = f"{KUBERNETES} alone, which does not say of how many"
        raise OptionError("--parts N with a Kubernetes job", got, "give the completions of the job as --parts")
    else:
        task, tasks = _number(environment, KUBERNETES), parts
    if not 0 <= task < tasks:
        raise OptionError(f"a task from 0 to {tasks - 1:,}", f"{found[0]}={task}", "start as many tasks as shares")
    return Share(task, tasks, tasks if parts is None else parts)


def _of_array(environment: Mapping[str, str]) -> tuple[int, int]:
    """Number of a task in a SLURM array, from 0 on, and how many there are."""
    task, first, last, step, count = (
        _number(environment, f"SLURM_ARRAY_TASK_{name}", default)
        for name, default in (("ID", None), ("MIN", None), ("MAX", None), ("STEP", "1"), ("COUNT", None))
    )
    tasks = (last - first) // max(step, 1) + 1
    if step < 1 or tasks != count or (task - first) % step:
        got = f"{count} tasks from {first} to {last}"
        fix = "use --array=0-N, also to go on: finished parts are not made again"
        raise OptionError("a SLURM array without gaps for --shard auto", got, fix)
    return (task - first) // step, tasks


def _number(environment: Mapping[str, str], name: str, default: str | None = None) -> int:
    text = environment.get(name, default)
    if text is None or not text.isdecimal() or len(text) > 9:
        raise OptionError(
            f"{name} as a number", "nothing" if text is None else repr(text), "set it, or give --shard K/N"
        )
    return int(text)
