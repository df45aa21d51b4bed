"""`understudy concepts export`: directions as a file that llama.cpp steers by."""

import math
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from understudy.cli.failures import CommandError
from understudy.cli.options import JsonOption
from understudy.cli.weights import print_json


def export_concepts(
    directions: Path,
    *,
    concept: Annotated[str, Parameter(help="The concept whose directions are written.")],
    out: Annotated[Path, Parameter(help="The GGUF file to write: a new one.")],
    strength: Annotated[
        str | None,
        Parameter(
            help="What vectors are multiplied by, such as 4, or 4x for times the length of the difference of "
            "means; 1x, or 1 where that is not known, without."
        ),
    ] = None,
    layers: Annotated[
        tuple[int, ...],
        Parameter(
            help="The layers to steer behind; all but layer 0, without.", consume_multiple=True, negative=""
        ),
    ] = (),
    model_hint: Annotated[
        str | None,
        Parameter(help="llama.cpp's name of the model's architecture; by the card, without."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write a concept of DIRECTIONS as a control vector for llama.cpp: `llama-cli --control-vector OUT`.

    llama.cpp has no place for a vector behind layer 0.
    """
    from understudy.concepts import write_control_vector
    from understudy.engine import Directions

    value, in_lengths = _strength(strength)
    written = write_control_vector(
        Directions.load(directions),
        concept,
        out,
        model_hint=model_hint or _hint(directions),
        strength=value,
        in_lengths=in_lengths,
        layers=layers,
    )
    if json:
        from dataclasses import asdict

        print_json(asdict(written))
        return
    lengths = ", ".join(f"{layer} ({length:.4g})" for layer, length in written.lengths.items())
    print(f"{out}  {concept} for {written.model_hint}, behind layers (length): {lengths}")
    if written.left_out:
        print("layer 0 was left out: llama.cpp has no place for a vector behind it", file=sys.stderr)


def _strength(given: str | None) -> tuple[float | None, bool]:
    """`4`, or `4x` for times the length of the difference of means, as in a steer."""
    if given is None:
        return None, False
    try:
        value = float(given.removesuffix("x"))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise CommandError(f"expected a number for --strength, such as 4 or 4x, got {given!r}")
    return value, given.endswith("x")


def _hint(folder: Path) -> str:
    from understudy.concepts import CARD_FILE, model_hint_of, read_card

    if not (folder / CARD_FILE).exists():
        raise CommandError(
            f"expected --model-hint, since there is no {CARD_FILE} in {folder} to say of which "
            "architecture the model is: llama.cpp's name of it, such as llama or qwen3"
        )
    return model_hint_of(read_card(folder).architecture)
