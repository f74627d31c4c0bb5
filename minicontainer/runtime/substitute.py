"""The steps to start a container with: ours, or somebody's own laid over them."""

from __future__ import annotations

from minicontainer.steps import Steps
from minicontainer.steps.loading import BadExercise, define, files_of, read_exercises


def load_steps(path: str | None) -> Steps:
    """Our steps, with every exercise of the notebook, module or directory `path` in the place of ours.

    **Runs the exercises' code in this process.** Raises BadSubmission (no such file, not a notebook), BadExercise (a
    cell that fails, or is named after no step of ours).
    """
    from pathlib import Path

    if path is None:
        return Steps()
    exercises = read_exercises(files_of(Path(path)))
    unknown = exercises.keys() - Steps.names().keys()
    if unknown:
        raise BadExercise(
            f"{path}: there is no step {', '.join(sorted(unknown))}; there are {', '.join(Steps.names())}"
        )
    functions, wrong = define(exercises.values())
    for error in wrong.values():
        raise BadExercise(f"{path}: {error}")
    if not functions:
        raise BadExercise(f"{path}: no cell begins with %%exercise STEP.FUNCTION")
    return Steps().with_functions(functions)
