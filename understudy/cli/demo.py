"""`understudy demo`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def demo(
    *,
    conversation: Annotated[
        Path | None, Parameter(help="A conversation to work in; a copy is used. One ships with Understudy.")
    ] = None,
    workspace: Annotated[
        Path | None, Parameter(name=["--workspace", "-w"], help="A new folder for the workspace.")
    ] = None,
    lessons: Annotated[int, Parameter(help="How many directions the person gives and corrects.")] = 10,
    split: Annotated[
        Literal["development", "test"], Parameter(help="Scenarios to measure on; tune on development only.")
    ] = "test",
    engine: Annotated[
        Literal["embedded", "vllm"], Parameter(help="What serves the model; vLLM must be installed.")
    ] = "embedded",
    model: Annotated[
        Path | None, Parameter(help="Another model of the same corpus: `python -m understudy.pocket.build`.")
    ] = None,
    eager: Annotated[bool, Parameter(negative=(), help="Have vLLM run without compiling.")] = False,
) -> None:
    """Ten corrections in a conversation become durable behaviour, while the model keeps serving.

    The model answers directions in threads, a person edits its answers, the edits become lessons, are
    approved and trained, and the model is asked directions, harms and questions it never saw: before
    and after, with intervals. Ends with a table, a report to open in a browser, and what to run next.
    """
    from understudy.demo import run_demo

    run_demo(conversation, workspace, lessons, split, engine, model, ("--enforce-eager",) if eager else ())
