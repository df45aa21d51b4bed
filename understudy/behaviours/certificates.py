"""Certificates: what was found of which weights, so that anyone who has them can find it again.

A certificate names the weights by a hash of every tensor, each invariant by hashes of its files and
scenarios, and the seed from which the same scenarios are asked again in the same order.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from understudy.behaviours.rates import Rate
from understudy.behaviours.scenarios import Split
from understudy.behaviours.sequential import Decision, JudgeError
from understudy.behaviours.specification import Kind
from understudy.behaviours.verdicts import Verdict

FORMAT = 1
"""The only one so far."""
Engine = Literal["embedded", "served"]
Hash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
"""SHA-256."""
Count = Annotated[int, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class InvalidCertificate(ValueError):
    """A file that is no certificate, or one of a format that this version does not know."""


class CertifiedModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which model: a hash of each tensor (`hash_tensor`), and of each file beside them."""

    name: str
    weight_commit: str | None
    tensors: dict[str, Hash]
    files: dict[str, Hash]


class CertifiedSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How it was asked. `dtype` is what the model computes in."""

    split: Split
    budget: Annotated[int, msgspec.Meta(ge=1)]
    seed: int
    engine: Engine
    dtype: str


class Specification(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was to be found out. `scenarios` is the hash of those of the split, in their order."""

    wanted: str
    kind: Kind
    required: Share
    indifferent: Share
    alpha: Share
    beta: Share
    temperature: float
    max_tokens: Count
    judge: dict[str, Any]
    files: dict[str, Hash]
    scenarios: Hash


class CertifiedSmooth(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A smooth measure's mean with its 95 % interval, which one scenario does not have."""

    mean: float
    low: float | None
    high: float | None
    unit: str


class Finding(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was found out. The interval is of the rate of `successes`, and holds at every look.

    With a judge that errs, `sensitivity` and `specificity` are its error, `corrected` the rate and the
    interval's ends allowing for it.
    """

    decision: Decision
    successes: Count
    n: Annotated[int, msgspec.Meta(ge=1)]
    interval: tuple[Share, Share]
    smooth: CertifiedSmooth
    judge_error: JudgeError | None
    corrected: tuple[Share, Share, Share] | None

    @property
    def rate(self) -> Rate:
        return Rate(self.successes, self.n)


class CertifiedInvariant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One invariant: what was asked, and what was found."""

    name: str
    specification: Specification
    finding: Finding


class Certificate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was found of some weights. All verdicts hold together: see `decide`."""

    format: Literal[1] = 1
    made: str
    model: CertifiedModel
    settings: CertifiedSettings
    versions: dict[str, str]
    invariants: tuple[CertifiedInvariant, ...]

    def to_bytes(self) -> bytes:
        """As JSON; equal certificates have equal bytes."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=1) + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> "Certificate":
        """Raises InvalidCertificate."""
        try:
            told = msgspec.json.decode(data, type=_Format).format
            if told != FORMAT:
                raise InvalidCertificate(f"expected a certificate of format {FORMAT}, got format {told}")
            found = msgspec.json.decode(data, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InvalidCertificate(f"expected a certificate: {error}") from error
        for one in found.invariants:
            if one.finding.successes > one.finding.n:
                raise InvalidCertificate(f"{one.name}: expected at most {one.finding.n} successes")
        return found


class _Format(msgspec.Struct):
    format: int


def state_finding(verdict: Verdict) -> Finding:
    """A verdict as a certificate has it."""
    smooth = verdict.smooth
    return Finding(
        decision=verdict.decision,
        successes=verdict.rate.successes,
        n=verdict.rate.n,
        interval=verdict.interval,
        smooth=CertifiedSmooth(
            mean=smooth.mean, low=_finite(smooth.low), high=_finite(smooth.high), unit=smooth.unit
        ),
        judge_error=verdict.error,
        corrected=None if verdict.error is None else verdict.corrected,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# ---------------------------------------------------------------------- comparing


def differing_weights(certified: CertifiedModel, now: CertifiedModel) -> list[str]:
    """What is not as it was when the certificate was made; nothing when it is of these weights."""
    found = []
    tensors = _differing(certified.tensors, now.tensors)
    if tensors:
        found.append(
            f"the certificate is of other weights: it was made at weight commit "
            f"{certified.weight_commit or 'initial'}, the model is at {now.weight_commit or 'initial'}"
        )
        found.append(f"{len(tensors)} of {len(certified.tensors)} tensors differ: {', '.join(tensors)}")
    if files := _differing(certified.files, now.files):
        found.append(f"files of the model differ: {', '.join(files)}")
    return found


def differing_specification(certified: Specification, now: Specification) -> list[str]:
    """What of an invariant was changed since."""
    fields = [name for name in certified.__struct_fields__ if name not in ("files", "scenarios")]
    found = [name for name in fields if getattr(certified, name) != getattr(now, name)]
    if files := _differing(certified.files, now.files):
        found.append(f"files differ: {', '.join(files)}")
    if certified.scenarios != now.scenarios:
        found.append("the scenarios of the split differ")
    return found


def differing_finding(certified: Finding, now: Finding, engine: Engine) -> list[str]:
    """What a replay found otherwise.

    The embedded engine says the same again, to the last count. A server batches as it sees fit, which may
    turn a close call: of one the decision must be the same, and the rate in the certificate's interval.
    """
    found = []
    if certified.decision != now.decision:
        found.append(f"it was {certified.decision}, and is {now.decision} now")
    low, high = certified.interval
    near = engine == "served" and low <= now.rate.value <= high
    if not near and (certified.successes, certified.n) != (now.successes, now.n):
        was, is_now = (f"{one.successes} of {one.n}" for one in (certified, now))
        found.append(f"it was shown in {was} scenarios, and in {is_now} now")
    return found


def _differing(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


# ---------------------------------------------------------------------- showing


def show_certificate(certificate: Certificate) -> str:
    """One HTML page that loads nothing, runs nothing, and takes every text for text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    counts = {decision: _count(certificate.invariants, decision) for decision in ("holds", "violated")}
    return environment.get_template("certificate.html.jinja").render(
        certificate=certificate,
        counts=counts,
        alpha=min((one.specification.alpha for one in certificate.invariants), default=0.0),
        beta=min((one.specification.beta for one in certificate.invariants), default=0.0),
        digest=hashlib.sha256(certificate.to_bytes()).hexdigest(),
    )


def _count(invariants: Sequence[CertifiedInvariant], decision: str) -> int:
    return sum(one.finding.decision == decision for one in invariants)
