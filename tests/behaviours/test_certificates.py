"""Certificates: what stands in them, what they are compared with, how they are shown and signed."""

import hashlib
import html.parser
import json
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from understudy.behaviours import (
    Certificate,
    CertifiedInvariant,
    CertifiedModel,
    CertifiedSettings,
    Finding,
    InvalidCertificate,
    Invariant,
    JudgeError,
    NoSigner,
    Rate,
    Scenario,
    SignatureFailed,
    Smooth,
    Verdict,
    describe_model,
    describe_versions,
    differing_finding,
    differing_specification,
    differing_weights,
    hash_tensor,
    read_invariant,
    reads_out,
    show_certificate,
    sign_bytes,
    specify,
    state_finding,
    verify_intact,
    verify_signature,
)
from understudy.engine import write_miniature
from understudy.lessons import ChatMessage
from understudy.weights import WeightHistory

HOSTILE = "</title><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}"
FILE = """
wanted = "Says yes."
kind = "kept"
required = 0.9
indifferent = 0.75
[judge]
kind = "rule"
accept = ['^yes']
[margin]
acceptable = ["yes"]
[scenarios]
files = ["more.jsonl"]
templates = [{ prompt = "Is it {thing}?" }]
[scenarios.slots]
thing = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n"]
"""


@pytest.fixture
def invariant(tmp_path: Path) -> Invariant:
    (tmp_path / "more.jsonl").write_text('{"prompt": "Is it more?"}\n')
    (tmp_path / "yes.toml").write_text(FILE)
    return read_invariant(tmp_path / "yes.toml")


def verdict(successes: int = 60, n: int = 64, **others: object) -> Verdict:
    scenario = Scenario((ChatMessage("user", "Is it?"),))
    found = Verdict(
        invariant="yes",
        kind="kept",
        decision="holds",
        rate=Rate(successes, n),
        interval=(0.8, 0.99),
        smooth=Smooth(1.5, 1.0, 2.0, n, "nats"),
        failures=((scenario, "no"),),
    )
    return Verdict(**{**{name: getattr(found, name) for name in found.__slots__}, **others})


def certificate(invariant: Invariant, finding: Finding | None = None) -> Certificate:
    return Certificate(
        made="2026-01-02T03:04:05Z",
        model=CertifiedModel(
            name="understudy", weight_commit="abc", tensors={"b": "1" * 64, "a": "0" * 64}, files={}
        ),
        settings=CertifiedSettings(split="test", budget=200, seed=7, engine="embedded", dtype="bfloat16"),
        versions=describe_versions(),
        invariants=(
            CertifiedInvariant(
                name=invariant.name,
                specification=specify(invariant, "test"),
                finding=finding or state_finding(verdict()),
            ),
        ),
    )


# ---------------------------------------------------------------------- the format


def test_equal_certificates_have_equal_bytes_and_come_back(invariant: Invariant) -> None:
    made = certificate(invariant)
    data = made.to_bytes()
    assert Certificate.from_bytes(data) == made
    assert Certificate.from_bytes(data).to_bytes() == data
    turned = msgspec.structs.replace(
        made, model=msgspec.structs.replace(made.model, tensors=dict(sorted(made.model.tensors.items())))
    )
    assert turned.to_bytes() == data, "the order of names says nothing"
    told = json.loads(data)
    assert told["format"] == 1 and told["settings"]["seed"] == 7
    finding = told["invariants"][0]["finding"]
    assert (finding["successes"], finding["n"], finding["interval"]) == (60, 64, [0.8, 0.99])
    assert "Is it?" not in data.decode(), "no scenario and no answer stands in it"
    assert {"understudy", "torch", "transformers", "python", "processor"} == told["versions"].keys()


def test_a_single_scenario_has_no_interval_of_the_smooth_measure(invariant: Invariant) -> None:
    finding = state_finding(verdict(1, 1, smooth=Smooth.of([2.0], "nats")))
    made = certificate(invariant, finding)
    assert (finding.smooth.low, finding.smooth.high) == (None, None)
    assert Certificate.from_bytes(made.to_bytes()) == made
    assert "2.000 [-, -]" in show_certificate(made)


def test_a_judge_that_errs_is_told(invariant: Invariant) -> None:
    said = verdict(error=JudgeError(0.95, 0.9))
    made = certificate(invariant, state_finding(said))
    assert made.invariants[0].finding.corrected == said.corrected
    assert Certificate.from_bytes(made.to_bytes()) == made
    page = show_certificate(made)
    assert "says yes in 0.950" in page and "no in 0.900" in page and f"{said.corrected[0]:.3f}" in page


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ('"format": 1', '"format": 2', "format 1, got format 2"),
        ('"format": 1', '"form": 1', "missing required field `format`"),
        ('"format": 1', '"format": 1, "more": 1', "unknown field `more`"),
        ('"successes": 60', '"successes": 65', "at most 64 successes"),
        ('"n": 64', '"n": 0', "n"),
        ('"decision": "holds"', '"decision": "perfect"', "decision"),
        ('"0000', '"xxxx', "tensors"),
        ("{", "", "expected a certificate"),
        ("bfloat16", "bfloat16\udcff", "expected a certificate"),
    ],
)
def test_what_is_no_certificate_is_refused(invariant: Invariant, old: str, new: str, match: str) -> None:
    data = certificate(invariant).to_bytes().decode()
    assert old in data
    with pytest.raises(InvalidCertificate, match=match):
        Certificate.from_bytes(data.replace(old, new, 1).encode(errors="surrogateescape"))


# ---------------------------------------------------------------------- the weights


def by_hand(file: Path) -> dict[str, str]:
    """The hashes of a safetensors file, read without any library for it."""
    data = file.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    names = {"F32": "float32", "BF16": "bfloat16"}
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            line = f"{names[entry['dtype']]} {entry['shape']}\n".encode()
            found[name] = hashlib.sha256(line + data[start + begin : start + end]).hexdigest()
    return found


def test_every_tensor_is_hashed_with_its_type_and_shape(tmp_path: Path) -> None:
    directory = write_miniature(tmp_path / "m", "qwen3")
    told: list[tuple[int, int]] = []
    found = describe_model(directory, "x", hashed=lambda done, of: told.append((done, of)))
    assert found.tensors == by_hand(directory / "model.safetensors") and found.weight_commit is None
    assert told[-1] == (len(found.tensors), len(found.tensors)) == (len(told), len(told))
    assert found.files["config.json"] == hashlib.sha256((directory / "config.json").read_bytes()).hexdigest()
    assert {"tokenizer.json", "tokenizer_config.json"} <= found.files.keys()
    flat = torch.zeros(6)
    assert hash_tensor(flat) != hash_tensor(flat.view(2, 3)) != hash_tensor(flat.view(2, 3).int())
    assert hash_tensor(torch.tensor(1.0)) != hash_tensor(torch.tensor([1.0])) != hash_tensor(torch.empty(0))


def test_the_newest_commit_is_certified_though_the_files_are_behind(tmp_path: Path) -> None:
    directory = write_miniature(tmp_path / "m", "qwen3")
    before = describe_model(directory, "x")
    values = load_file(directory / "model.safetensors")
    name = next(iter(values))
    values[name] = values[name] + 1
    history = WeightHistory.open(directory)
    commit = history.commit(values, message="m", author="a", created="2026-01-02T03:04:05Z").id
    now = describe_model(directory, "x")
    assert now.weight_commit == commit and now.tensors[name] == hash_tensor(values[name])
    assert differing_weights(before, now) == [
        "the certificate is of other weights: it was made at weight commit initial, the model is at "
        f"{commit}",
        f"1 of {len(values)} tensors differ: {name}",
    ]
    assert describe_model(directory, "x", as_it_lies=True).tensors == before.tensors
    history.sync()
    assert describe_model(directory, "x").tensors == now.tensors == by_hand(directory / "model.safetensors")


def test_files_beside_the_tensors_count_and_names_that_come_or_go(tmp_path: Path) -> None:
    directory = write_miniature(tmp_path / "m", "qwen3")
    before = describe_model(directory, "x")
    assert differing_weights(before, before) == []
    (directory / "chat_template.jinja").write_text("other")
    assert differing_weights(before, describe_model(directory, "x")) == [
        "files of the model differ: chat_template.jinja"
    ]
    values = load_file(directory / "model.safetensors")
    renamed = {("z" + n if n.endswith("norm.weight") else n): t for n, t in values.items()}
    save_file(renamed, directory / "model.safetensors", metadata={"format": "pt"})
    told = differing_weights(before, describe_model(directory, "x"))[1]
    assert "zmodel.norm.weight" in told and ", model.norm.weight" in told


# ---------------------------------------------------------------------- the specification


def test_a_changed_specification_is_seen(invariant: Invariant) -> None:
    before = specify(invariant, "test")
    folder = invariant.folder
    assert differing_specification(before, specify(read_invariant(folder / "yes.toml"), "test")) == []
    assert before.files.keys() == {"yes.toml", "more.jsonl"} and before.judge["kind"] == "rule"

    (folder / "more.jsonl").write_text('{"prompt": "Is it more?"} \n')
    assert differing_specification(before, specify(read_invariant(folder / "yes.toml"), "test")) == [
        "files differ: more.jsonl"
    ]
    (folder / "yes.toml").write_text(FILE.replace("required = 0.9", "required = 0.8").replace("^yes", "."))
    told = differing_specification(before, specify(read_invariant(folder / "yes.toml"), "test"))
    assert told == ["required", "judge", "files differ: more.jsonl, yes.toml"]


def test_scenarios_that_come_from_elsewhere_are_seen(invariant: Invariant) -> None:
    """Those of conversations stand in no file of the invariant's."""
    before = specify(invariant, "test")
    more = (*invariant.scenarios["test"], Scenario((ChatMessage("user", "Is it new?"),)))
    now = msgspec.structs.replace(invariant, scenarios={**invariant.scenarios, "test": more})
    assert differing_specification(before, specify(now, "test")) == ["the scenarios of the split differ"]
    assert specify(now, "train").scenarios == specify(invariant, "train").scenarios


def test_the_directions_count_where_they_judge(invariant: Invariant, tmp_path: Path) -> None:
    directory, readout = write_miniature(tmp_path / "m", "qwen3"), tmp_path / "readout"
    readout.mkdir()
    (readout / "readout.json").write_text("{}")
    assert not reads_out([invariant])
    before = describe_model(directory, "x", readout)
    (readout / "readout.json").write_text("{ }")
    told = differing_weights(before, describe_model(directory, "x", readout))
    assert told == ["files of the model differ: readout/readout.json"]


# ---------------------------------------------------------------------- the verdicts


def test_a_replay_is_exact_or_near() -> None:
    was = state_finding(verdict())
    assert differing_finding(was, state_finding(verdict()), "embedded") == []
    near, far = state_finding(verdict(59, 64)), state_finding(verdict(30, 64))
    assert differing_finding(was, near, "embedded") == [
        "it was shown in 60 of 64 scenarios, and in 59 of 64 now"
    ]
    assert differing_finding(was, near, "served") == []
    assert len(differing_finding(was, far, "served")) == 1
    turned = state_finding(verdict(decision="violated"))
    for engine in ("embedded", "served"):
        assert differing_finding(was, turned, engine) == ["it was holds, and is violated now"]


# ---------------------------------------------------------------------- the page


class Elements(html.parser.HTMLParser):
    """What a page is made of."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_loads_nothing_and_takes_texts_for_texts(invariant: Invariant) -> None:
    made = certificate(invariant)
    plain = Elements(show_certificate(made))
    assert not {"script", "img", "link", "iframe", "object", "a"} & set(plain.names)
    assert {name for name, _ in plain.attributes} <= {
        *("lang", "charset", "name", "content", "class", "http-equiv")
    }
    assert "url(" not in show_certificate(made) and "http:" not in show_certificate(made)
    assert "light dark" in plain.text and hashlib.sha256(made.to_bytes()).hexdigest() in plain.text
    assert "60 of 64" in plain.text and "0.938 [0.800, 0.990]" in plain.text

    one = made.invariants[0]
    specification = msgspec.structs.replace(
        one.specification,
        wanted=HOSTILE,
        judge={"kind": HOSTILE, HOSTILE: HOSTILE},
        files={HOSTILE: "0" * 64},
    )
    hostile = msgspec.structs.replace(
        made,
        made=HOSTILE,
        model=CertifiedModel(
            name=HOSTILE, weight_commit=HOSTILE, tensors={HOSTILE: "0" * 64}, files={HOSTILE: "0" * 64}
        ),
        versions={HOSTILE: HOSTILE},
        invariants=(msgspec.structs.replace(one, name=HOSTILE, specification=specification),),
    )
    page = Elements(show_certificate(hostile))
    assert not {"script", "img"} & set(page.names) and HOSTILE in page.text


# ---------------------------------------------------------------------- signatures

ssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")


def new_key(file: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
    return file


@ssh
def test_a_signature_holds_for_its_data_its_key_and_its_signer(tmp_path: Path) -> None:
    key, other = new_key(tmp_path / "key"), new_key(tmp_path / "other")
    signers = tmp_path / "signers"
    signers.write_text(
        f"maya {key.with_suffix('.pub').read_text()}tom {other.with_suffix('.pub').read_text()}"
    )
    data, signature = b"what was found", tmp_path / "data.sig"
    signature.write_bytes(sign_bytes(data, key))
    assert 'Good "understudy" signature for maya' in verify_signature(data, signature, signers, "maya")
    assert 'Good "understudy" signature' in verify_intact(data, signature)
    for given, name in ((data, "tom"), (data, "nobody"), (data + b".", "maya")):
        with pytest.raises(SignatureFailed, match="ssh-keygen -Y verify: "):
            verify_signature(given, signature, signers, name)
    with pytest.raises(SignatureFailed, match="ssh-keygen -Y check-novalidate: "):
        verify_intact(data + b".", signature)


@ssh
def test_a_signature_for_something_else_is_none(tmp_path: Path) -> None:
    key, data = new_key(tmp_path / "key"), b"what was found"
    signers, signature = tmp_path / "signers", tmp_path / "data.sig"
    signers.write_text(f"maya {key.with_suffix('.pub').read_text()}")
    command = ["ssh-keygen", "-Y", "sign", "-f", str(key), "-n", "git"]
    signature.write_bytes(subprocess.run(command, input=data, capture_output=True, check=True).stdout)
    with pytest.raises(SignatureFailed, match="namespace"):
        verify_signature(data, signature, signers, "maya")


@ssh
def test_what_is_no_key_is_said(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("no key")
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(SignatureFailed, match="key"):
        sign_bytes(b"data", tmp_path / "key")


def test_without_ssh_keygen_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoSigner, match="expected ssh-keygen"):
        sign_bytes(b"data", tmp_path / "key")
