"""`understudy behaviours certify --verify`: a certificate held against a workspace, part by part."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.cli.behaviours import FAILED
from understudy.cli.certifying import SIGNATURE, asked, described, resting, served_type
from understudy.cli.failures import CommandError
from understudy.cli.tables import printable

if TYPE_CHECKING:
    from understudy.behaviours import Certificate, Invariant
    from understudy.workspace import Workspace


def verify_certificate(
    workspace: "Workspace", file: Path, allowed_signers: Path | None, identity: str | None
) -> None:
    """Prints what holds and what fails; exits with 1 unless all holds."""
    from understudy.behaviours import Certificate, InvalidCertificate, differing_weights
    from understudy.weights import HistoryBroken

    try:
        data = file.read_bytes()
    except OSError as error:
        raise CommandError(f"expected a certificate at {file}: {error}") from error
    try:
        certificate = Certificate.from_bytes(data)
    except InvalidCertificate as error:
        _tell("format", [str(error)])
        sys.exit(FAILED)
    held = [_tell("format", [], f"format {certificate.format}, made {certificate.made}")]
    held.append(_tell("signature", *_look_at_signature(data, file, allowed_signers, identity)))
    try:
        with resting(workspace):
            held += _look_at_substance(workspace, certificate)
    except HistoryBroken as error:
        now = described(workspace, (), as_it_lies=True)
        held.append(_tell("weights", [str(error), *differing_weights(certificate.model, now)]))
    for name, (made_with, here) in _other_versions(certificate).items():
        print(f"note        made with {name} {printable(made_with)}, here is {here}")
    if not all(held):
        print("this certificate does not hold here")
        sys.exit(FAILED)
    print("this certificate holds")


def _tell(what: str, problems: "Sequence[str]", otherwise: str = "") -> bool:
    for place, problem in enumerate(problems):
        print(f"{what if place == 0 else '':<12}{'FAILS' if place == 0 else '':<7}{printable(problem)}")
    if not problems:
        print(f"{what:<12}{'holds':<7}{printable(otherwise)}")
    return not problems


def _look_at_signature(
    data: bytes, file: Path, allowed_signers: Path | None, identity: str | None
) -> tuple[list[str], str]:
    from understudy.behaviours import NoSigner, SignatureFailed, verify_intact, verify_signature

    signature = file.with_name(file.name + SIGNATURE)
    if not signature.is_file():
        missing = f"expected a signature by {identity} at {signature}, found none"
        return ([] if identity is None else [missing]), "it is not signed"
    try:
        if allowed_signers is not None and identity is not None:
            return [], verify_signature(data, signature, allowed_signers, identity)
        said = verify_intact(data, signature)
        return [], f"{said}; whose that is, --allowed-signers and --identity would tell"
    except NoSigner:
        raise
    except SignatureFailed as error:
        return [str(error)], ""


def _look_at_substance(workspace: "Workspace", certificate: "Certificate") -> list[bool]:
    """Weights and invariants, and if they are the same, the verdicts."""
    known = {invariant.name: invariant for invariant in workspace.invariants()}
    named = [known[one.name] for one in certificate.invariants if one.name in known]
    held = [
        _tell("weights", *_look_at_weights(workspace, named, certificate)),
        _tell("invariants", *_look_at_specifications(known, certificate)),
    ]
    if not all(held):
        print("replay      not done, it would be of something else")
        return held
    return [*held, _tell("replay", *_replay(workspace, named, certificate))]


def _look_at_weights(
    workspace: "Workspace", invariants: "Sequence[Invariant]", certificate: "Certificate"
) -> tuple[list[str], str]:
    from understudy.behaviours import differing_weights

    now = described(workspace, invariants)
    problems = differing_weights(certificate.model, now)
    if (dtype := served_type(workspace)) != certificate.settings.dtype:
        problems.append(f"it was asked in {certificate.settings.dtype}, this workspace serves {dtype}")
    commit = certificate.model.weight_commit or "initial"
    return problems, f"{len(now.tensors)} tensors as at weight commit {commit}"


def _look_at_specifications(
    known: "Mapping[str, Invariant]", certificate: "Certificate"
) -> tuple[list[str], str]:
    from understudy.behaviours import differing_specification, specify

    problems = []
    for one in certificate.invariants:
        if one.name not in known:
            problems.append(f"{one.name}: this workspace has no such invariant")
            continue
        now = specify(known[one.name], certificate.settings.split)
        if differing := differing_specification(one.specification, now):
            problems.append(f"{one.name} was changed: {'; '.join(differing)}")
    return problems, f"{len(certificate.invariants)} as they were"


def _replay(
    workspace: "Workspace", invariants: "Sequence[Invariant]", certificate: "Certificate"
) -> tuple[list[str], str]:
    from understudy.behaviours import differing_finding

    engine = certificate.settings.engine
    problems = []
    found = asked(workspace, invariants, certificate.settings)
    for one, now in zip(certificate.invariants, found, strict=True):
        if differing := differing_finding(one.finding, now, engine):
            problems.append(f"{one.name}: {'; '.join(differing)}")
    if problems and engine == "embedded" and workspace.server() is not None:
        problems.append("it was made without a server: stop the one that runs, and verify again")
    return problems, f"{len(found)} verdicts from seed {certificate.settings.seed} are the same"


def _other_versions(certificate: "Certificate") -> dict[str, tuple[str, str]]:
    from understudy.behaviours import describe_versions

    here = describe_versions()
    return {
        name: (version, here[name])
        for name, version in certificate.versions.items()
        if name in here and here[name] != version
    }
