"""Weights from elsewhere, looked at before the trainer takes them: a path that a client names is not to be
trusted.
"""

from pathlib import Path

from understudy.server.errors import ApiError

_EXPECTED = "source: expected the absolute path of a safetensors file or of a model directory"


def check_source(source: str) -> str:
    """The path of a safetensors file, or of a directory that holds some, without links in it.

    Every tensor is read, one at a time: what is no number would be served, and answer nothing. Slow for a
    large model. Raises ApiError(400) for anything else; names and shapes are the trainer's to compare.
    """
    path = Path(source)
    try:
        if not path.is_absolute() or not path.exists():
            raise _refusal(f"on the server's machine, found none at {source}")
        path = path.resolve(strict=True)
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    except (OSError, ValueError) as error:
        raise _refusal(f"got {source!r}: {error}") from error
    if not files or not all(file.is_file() and file.suffix == ".safetensors" for file in files):
        raise _refusal(f"got {source}, which is none")
    for file in files:
        _check_values(file)
    return str(path)


def _check_values(file: Path) -> None:
    """Raises ApiError(400) when the file cannot be read, or a value in it is not finite."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  (no mapping)
                if not opened.get_tensor(name).float().isfinite().all():
                    raise ApiError(
                        400,
                        f"source: expected finite values, {file.name} has others in {name}: nobody could "
                        "be served with it",
                        param="source",
                    )
    except (SafetensorError, OSError) as error:
        raise _refusal(f"got {file}, which cannot be read: {error}") from error


def _refusal(came: str) -> ApiError:
    return ApiError(400, f"{_EXPECTED}, {came}", param="source")
