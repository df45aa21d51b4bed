"""`understudy behaviours certify`: certificates written, and held against what they certify."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from understudy.cli.behaviours import BudgetOption, SeedOption, checked, chosen
from understudy.cli.failures import CommandError
from understudy.cli.options import WorkspaceOption
from understudy.cli.remote import call
from understudy.cli.subjects import subject_of, weights_now
from understudy.cli.tables import watching

if TYPE_CHECKING:
    from understudy.behaviours import Certificate, CertifiedModel, CertifiedSettings, Finding, Invariant
    from understudy.workspace import Workspace

DATA, PAGE = "certificate.json", "certificate.html"
SIGNATURE = ".sig"
"""What the name of a signature's file adds to that of what is signed."""


def certify_behaviours(
    *names: str,
    out: Annotated[
        Path | None,
        Parameter(help="The folder for the certificate; named after the weight commit when not given."),
    ] = None,
    sign: Annotated[
        Path | None, Parameter(help="An SSH key to sign with; a public one where an agent has the private.")
    ] = None,
    budget: BudgetOption = 200,
    seed: SeedOption = 0,
    verify: Annotated[
        Path | None, Parameter(help="A certificate to hold against this workspace, instead of making one.")
    ] = None,
    allowed_signers: Annotated[
        Path | None, Parameter(help="Whose signatures count: a file as Git's gpg.ssh.allowedSignersFile.")
    ] = None,
    identity: Annotated[str | None, Parameter(help="Who must have signed, as named in that file.")] = None,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Check all invariants, or NAMES, on the test split, and write down what was found of which weights:
    certificate.json, certificate.html, and with --sign certificate.json.sig.

    With --verify a certificate is held against this workspace: its format, its signature, the hashes of the
    weights and of the invariants, and then its verdicts, by asking the same scenarios again. Exits with 1
    unless all of it holds.
    """
    from understudy.workspace import Workspace

    if (allowed_signers is None) != (identity is None):
        raise CommandError("expected --allowed-signers and --identity together: with which key who signed")
    opened = Workspace.open(workspace)
    if verify is not None:
        from understudy.cli.verifying import verify_certificate

        if names or out or sign:
            raise CommandError("expected no names, --out or --sign with --verify, which makes no certificate")
        verify_certificate(opened, verify, allowed_signers, identity)
        return
    if identity is not None:
        raise CommandError("expected --verify with --allowed-signers and --identity: they are for verifying")
    if sign is not None:
        _require_key(sign)
    made = _make(opened, chosen(opened, names), budget, seed)
    folder = out or Path(f"certificate-{made.model.weight_commit or 'initial'}")
    for file in _write(folder, made, sign):
        print(file)


# ---------------------------------------------------------------------- making


def _make(workspace: "Workspace", invariants: "Sequence[Invariant]", budget: int, seed: int) -> "Certificate":
    from understudy.behaviours import (
        Certificate,
        CertifiedInvariant,
        CertifiedSettings,
        describe_versions,
        specify,
    )

    settings = CertifiedSettings(
        split="test",
        budget=budget,
        seed=seed,
        engine="embedded" if workspace.server() is None else "served",
        dtype=served_type(workspace),
    )
    specified = [specify(one, settings.split) for one in invariants]  # before anyone edits them
    with resting(workspace):
        model = described(workspace, invariants)
        found = asked(workspace, invariants, settings)
    return Certificate(
        made=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        model=model,
        settings=settings,
        versions=describe_versions(),
        invariants=tuple(
            CertifiedInvariant(name=one.name, specification=specification, finding=finding)
            for one, specification, finding in zip(invariants, specified, found, strict=True)
        ),
    )


def _require_key(key: Path) -> None:
    """Asked first, since checking takes long. Raises CommandError or NoSigner."""
    from understudy.behaviours import require_signer

    require_signer()
    if not key.is_file():
        raise CommandError(f"expected an SSH key to sign with, found no file {key}")


def asked(
    workspace: "Workspace", invariants: "Sequence[Invariant]", settings: "CertifiedSettings"
) -> "list[Finding]":
    from understudy.behaviours import state_finding

    with subject_of(workspace) as subject:
        verdicts = checked(invariants, subject, settings.budget, settings.seed, settings.split)
    return [state_finding(verdict) for verdict in verdicts]


@contextmanager
def resting(workspace: "Workspace") -> Iterator[None]:
    """The weights are in the model directory, and are the same when the block ends. Raises CommandError."""
    if workspace.server() is not None:
        call(workspace, "POST", "/checkpoint", {})
    before = weights_now(workspace)
    if before.training:
        raise CommandError("expected weights that rest, they are being trained: try again when that is done")
    yield
    after = weights_now(workspace)
    if after != before:
        raise CommandError(
            f"expected weights that rest, they moved meanwhile, from {before.commit or 'initial'} to "
            f"{after.commit or 'initial'}: try again"
        )


def described(
    workspace: "Workspace", invariants: "Iterable[Invariant]", *, as_it_lies: bool = False
) -> "CertifiedModel":
    from understudy.behaviours import describe_model, reads_out
    from understudy.engine import locate_model

    readout = workspace.readout_path if reads_out(invariants) else None
    directory, name = locate_model(workspace.model_path), workspace.settings.model.name
    with watching() as bar:
        task = bar.add_task("hashing the weights", total=None)
        return describe_model(
            directory,
            name,
            readout,
            as_it_lies=as_it_lies,
            hashed=lambda done, of: bar.update(task, completed=done, total=of),
        )


def served_type(workspace: "Workspace") -> str:
    from understudy.engine import locate_model, served_dtype

    return served_dtype(locate_model(workspace.model_path), workspace.settings.model.dtype)


def _write(folder: Path, certificate: "Certificate", key: Path | None) -> list[Path]:
    """The certificate last: whoever finds it finds the page and the signature that belong to it."""
    from understudy.behaviours import show_certificate, sign_bytes

    data = certificate.to_bytes()
    contents = {PAGE: show_certificate(certificate).encode()}
    if key is not None:
        contents[DATA + SIGNATURE] = sign_bytes(data, key)
    contents[DATA] = data
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        with (folder / f".{name}.new").open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    if key is None:
        (folder / (DATA + SIGNATURE)).unlink(missing_ok=True)  # of the certificate that is replaced
    for name in contents:
        (folder / f".{name}.new").rename(folder / name)
    return [folder / name for name in contents]
