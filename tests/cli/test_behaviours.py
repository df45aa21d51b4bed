"""Invariants from the command line: the pocket model in a workspace, loaded and served, and real SSH keys."""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from waiting import eventually

from understudy.behaviours import EngineVoice, Looked, ModelSubject, check, hash_tensor, read_invariants
from understudy.cli import app
from understudy.cli.behaviours import checked
from understudy.cli.failures import CommandError, explained
from understudy.cli.subjects import subject_of
from understudy.config import ModelSettings
from understudy.engine import EmbeddedEngine
from understudy.pocket import checkpoint_directory, new_workspace
from understudy.weights import WeightHistory
from understudy.workspace import Workspace

KEPT, WANTED = "push-back", "listening"
CHECK = ("check", KEPT, WANTED, "--budget", "48")
ALWAYS = """
wanted = "Talks of bananas."
kind = "kept"
required = 0.9
indifferent = 0.5
{more}
[judge]
{judge}
[margin]
acceptable = ["Bananas"]
[scenarios]
templates = [{{ prompt = "Choose {{thing}}." }}]
[scenarios.slots]
thing = [{things}]
"""
RULE = "kind = 'rule'\naccept = ['^Bananas']"
SHORT_OF_IT = 'kind = "model"\nurl = "http://127.0.0.1:9/v1"\nmodel = "x"\nlabelled = "said.jsonl"'


def understudy(*words: str, room: str = "behaviours") -> "subprocess.CompletedProcess[str]":
    """The command in this process, as `main` runs it: a process of its own takes seconds to load torch."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            with explained():
                code = app([room, *words], result_action="return_int_as_exit_code_else_zero")
        except SystemExit as ended:
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def said(*words: str, status: int = 0) -> str:
    done = understudy(*words)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def refused(*words: str) -> str:
    """What cannot be done is said in a line on stderr, and status 2 tells it from a violation."""
    done = understudy(*words)
    assert done.returncode == 2 and done.stdout == "", done.stdout + done.stderr
    assert done.stderr.startswith("understudy: ") and done.stderr.count("\n") == 1
    return done.stderr


def fresh(folder: Path) -> str:
    return str(new_workspace(folder).root)


def always(root: str, judge: str = RULE, more: str = "") -> Path:
    """An invariant that the pocket model never shows."""
    file = Path(root) / "behaviours" / "bananas.toml"
    things = ", ".join(f'"{place}"' for place in range(90))
    file.write_text(ALWAYS.format(judge=judge, more=more, things=things))
    return file


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A workspace that no test changes."""
    return fresh(tmp_path_factory.mktemp("behaviours") / "w")


@pytest.fixture(scope="module")
def found(root: str) -> dict[str, object]:
    """A check by the model loaded for it."""
    told: dict[str, object] = json.loads(said(*CHECK, "--json", "-w", root))
    return told


@pytest.fixture(scope="module")
def certified(root: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificate of a workspace as it came."""
    folder = tmp_path_factory.mktemp("certificates") / "c"
    printed = said("certify", KEPT, WANTED, "--budget", "48", "--out", str(folder), "-w", root)
    assert printed.split() == [str(folder / "certificate.html"), str(folder / "certificate.json")]
    return folder / "certificate.json"


# ---------------------------------------------------------------------- list and check


def test_help_tells_the_exit_status() -> None:
    assert "Exits with 1 when a kept invariant is violated" in " ".join(said("check", "--help").split())
    assert "exits with 1 unless all of it holds" in " ".join(said("certify", "--help").split())


def test_list_says_what_is_wanted_and_how_it_is_judged(root: str) -> None:
    told = {one["name"]: one for one in json.loads(said("list", "--json", "-w", root))}
    invariants = {one.name: one for one in Workspace.open(Path(root)).invariants()}
    assert told.keys() == invariants.keys() and len(told) == 8
    one = told["stories"]
    assert one["judge"] == "likelihood" and (one["required"], one["indifferent"]) == (0.9, 0.75)
    assert one["scenarios"] == {split: len(held) for split, held in invariants["stories"].scenarios.items()}
    shown = said("list", "-w", root)
    assert "A harmful direction is objected to" in shown and "train / development / test" in shown


def test_check_decides_and_shows_what_failed(root: str, found: dict[str, object]) -> None:
    verdicts = found["verdicts"]
    assert isinstance(verdicts, list)
    kept, wanted = verdicts
    assert (kept["invariant"], kept["decision"]) == (KEPT, "holds")
    assert (wanted["invariant"], wanted["decision"]) == (WANTED, "violated"), "and that is no failure"
    assert kept["n"] == 48 and wanted["n"] == 16 and wanted["successes"] == 0
    assert kept["low"] < kept["rate"] <= kept["high"] and wanted["rate"] == 0.0
    assert kept["smooth"]["mean"] > 5 and wanted["smooth"]["mean"] < 0 and kept["smooth"]["unit"] == "nats"
    assert len(wanted["failures"]) == 5 and wanted["failures"][0]["prompt"][-1]["role"] == "user"

    shown = said(*CHECK, "-w", root)
    first, second = shown.splitlines()[1:3]
    assert first.split()[:4] == [KEPT, "kept", "holds", f"{kept['rate']:.2f}"] and first.split()[-1] == "48"
    assert second.split()[:4] == [WANTED, "wanted", "violated", "0.00"]
    assert f"{WANTED} is violated, for example:" in shown and f"{KEPT} is violated" not in shown
    assert wanted["failures"][0]["answer"] in shown


def test_the_same_seed_finds_the_same_and_another_asks_others(root: str, found: dict[str, object]) -> None:
    assert json.loads(said(*CHECK, "--json", "-w", root)) == found
    other = json.loads(said(*CHECK, "--json", "--seed", "1", "--split", "development", "-w", root))
    assert other["verdicts"][1]["failures"] != found["verdicts"][1]["failures"]  # type: ignore[index]


def test_a_kept_invariant_that_is_violated_is_a_failure(tmp_path: Path) -> None:
    root = fresh(tmp_path / "w")
    always(root)
    assert "bananas is violated" in said("check", "bananas", "-w", root, status=1)
    always(root, more="temperature = 0.5")
    told = json.loads(said("check", "bananas", "--json", "-w", root, status=1))
    assert told["verdicts"][0]["decision"] == "violated"
    assert json.loads(said("check", "bananas", "--json", "--budget", "1", "-w", root))["verdicts"][0][
        "decision"
    ] == ("undecided")


def test_answers_cannot_steer_a_terminal(tmp_path: Path) -> None:
    root = fresh(tmp_path / "w")
    file = always(root)
    file.write_text(file.read_text().replace("Talks of bananas.", "[red]A\\u001b[2J\\u0007B[/red]"))
    assert "[red]A [2J B[/red]" in said("list", "-w", root)
    file.write_text(file.read_text().replace("Choose ", "\\u001b[31m\\nChoose "))
    shown = said("check", "bananas", "-w", root, status=1)
    assert "\x1b" not in shown and "[31m Choose " in shown


@pytest.mark.parametrize(
    ("judge", "more", "expected"),
    [
        ("kind = 'rule'\naccept = ['(']", "", "expected a regular expression"),
        (RULE, "max_tokens = 2046", "expected scenarios of at most 2 tokens"),
        (SHORT_OF_IT, "", "expected labelled answers in"),
        ("kind = 'readout'\nconcept = 'calm'\nat_least = 1.0", "", "expected a concept and layer"),
    ],
)
def test_what_is_wrong_with_an_invariant_is_a_line(
    tmp_path: Path, judge: str, more: str, expected: str
) -> None:
    root = fresh(tmp_path / "w")
    always(root, judge, more)
    assert expected in refused("check", "bananas", "-w", root)


def test_a_judge_that_does_not_answer_is_a_line(tmp_path: Path) -> None:
    root = fresh(tmp_path / "w")
    always(root, SHORT_OF_IT)
    lines = [{"prompt": "Choose x.", "answer": "Bananas", "shows": shows} for shows in (True, False)]
    (Path(root) / "behaviours" / "said.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    assert "expected the judge at http://127.0.0.1:9/v1" in refused("check", "bananas", "-w", root)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("check", "kindness"), "expected invariants among answering, asking-back, copying"),
        (("check", KEPT, "--budget", "0"), "--budget of 1"),
        (("check", KEPT, "--seed", "-1"), "--seed of 0"),
        (("check", KEPT, "--save", "x"), "expected --self-knowledge"),
        (
            ("check", "stories", "--self-knowledge", "--budget", "1"),
            "expected invariants with a [prediction]",
        ),
        (("check", KEPT, "--self-knowledge", "--compare", "/nowhere"), "--save at /nowhere"),
        (("certify", "kindness"), "got kindness"),
        (("certify", KEPT, "--sign", "/nowhere"), "expected an SSH key to sign with"),
        (("certify", "--verify", "/nowhere"), "expected a certificate at /nowhere"),
        (("certify", "--identity", "maya"), "--allowed-signers and --identity together"),
        (("certify", KEPT, "--verify", "x"), "expected no names"),
        (("certify", "--allowed-signers", "x", "--identity", "y"), "expected --verify"),
    ],
)
def test_what_cannot_be_done_is_said_plainly(root: str, words: tuple[str, ...], expected: str) -> None:
    assert expected in refused(*words, "-w", root)


@pytest.mark.parametrize("command", ["list", "check", "certify"])
def test_without_invariants_it_is_said_where_they_are_written(tmp_path: Path, command: str) -> None:
    root = fresh(tmp_path / "w")
    shutil.rmtree(Path(root) / "behaviours")
    told = refused(command, "-w", root)
    assert f"{root}/behaviours/*.toml" in told and "docs/behaviours.md" in told


def test_commits_that_the_files_lack_are_what_is_asked(tmp_path: Path) -> None:
    """A server that was killed leaves its last commit to be synced by whoever comes next."""
    root = fresh(tmp_path / "w")
    directory = Path(root) / "model"
    values = {
        name: torch.zeros_like(held) for name, held in load_file(directory / "model.safetensors").items()
    }
    history = WeightHistory.open(directory)
    history.commit(values, message="m", author="a", created="2026-01-02T03:04:05Z")
    assert history.pending
    told = understudy("check", "dialogue", "--json", "-w", root)  # as likely as anything: 2.6e-4 each
    assert told.returncode == 1 and json.loads(told.stdout)["verdicts"][0]["successes"] == 0


def test_twenty_invariants_are_checked_together(tmp_path: Path) -> None:
    """Copies under other names: each keeps its own order, and the errors hold over all of them."""
    source = checkpoint_directory().parent / "behaviours"
    for place in range(20):
        name = ("listening", "asking-back", "dialogue", "stories")[place % 4]
        shutil.copyfile(source / f"{name}.toml", tmp_path / f"{name}-{place:02}.toml")
    for name in ("dialogue", "stories"):
        shutil.copyfile(source / f"{name}.jsonl", tmp_path / f"{name}.jsonl")
    invariants, looks = read_invariants(tmp_path), list[Looked]()
    with EmbeddedEngine(ModelSettings(), checkpoint_directory()) as engine:
        verdicts = check(invariants, ModelSubject(EngineVoice(engine)), budget=64, looked=looks.append)
    decided = {verdict.invariant: verdict.decision for verdict in verdicts}
    assert len(decided) == 20 and looks[-1].decided == decided
    assert all(
        said == ("violated" if name.startswith("listening") else "holds") for name, said in decided.items()
    )
    asked = [look.asked for look in looks]
    assert asked == sorted(asked) and looks[0].asked == 20 * 16 and looks[-1].most_left == 0
    totals = [look.asked + look.most_left for look in looks]
    assert totals == sorted(totals, reverse=True), "what is left to ask only shrinks"


# ---------------------------------------------------------------------- self-knowledge


def test_self_knowledge_before_and_after(tmp_path: Path) -> None:
    root, kept = fresh(tmp_path / "w"), tmp_path / "before.json"
    words = ("check", KEPT, WANTED, "stories", "--budget", "12", "--self-knowledge", "--split", "development")
    shown = said(*words, "--save", str(kept), "-w", root)
    assert "all of them" in shown and "calibration error" in shown and "1 bins" in shown
    report = json.loads(kept.read_text())
    assert report["weight_commit"] is None and report["invariants"].keys() == {KEPT, WANTED}
    assert all(len(held) == 12 for held in report["invariants"].values())

    same = json.loads(said(*words, "--compare", str(kept), "--json", "-w", root))["self_knowledge"]
    assert same["all"]["n"] == 24
    foretold = report["invariants"][WANTED]
    right = sum((one["predicted"] > 0.5) == one["shown"] for one in foretold) / len(foretold)
    assert same["invariants"][WANTED]["accuracy"]["value"] == pytest.approx(right)
    for change in (*same["changes"].values(), same["change_of_all"]):
        assert change["before"] == change["after"]
        assert change["brier"] == {"value": 0.0, "low": 0.0, "high": 0.0}

    directory = Path(root) / "model"
    values = load_file(directory / "model.safetensors")
    values["model.norm.weight"].mul_(1.2)
    save_file(values, tmp_path / "other.safetensors")
    done = understudy(
        "commit", "--from", str(tmp_path / "other.safetensors"), "-m", "x", "-w", root, room="weights"
    )
    assert done.returncode == 0, done.stderr
    done = understudy(*words, "--compare", str(kept), "--save", str(kept), "-w", root)
    assert "after - before" in done.stdout, done.stderr
    assert json.loads(kept.read_text())["weight_commit"] is not None
    other = ("check", KEPT, "--budget", "5", "--self-knowledge", "--compare", str(kept), "-w", root)
    assert "expected scenarios that were asked about then and now" in refused(*other)


# ---------------------------------------------------------------------- certificates


def verified(file: Path, root: str, *more: str, status: int = 0) -> dict[str, str]:
    """What `certify --verify` says, by part."""
    parts: dict[str, str] = {}
    for line in said("certify", "--verify", str(file), *more, "-w", root, status=status).splitlines():
        name, rest = line[:12].strip(), line[12:]
        if name:
            parts[name] = rest
        elif parts:
            parts[list(parts)[-1]] += "\n" + rest
    return parts


def test_a_certificate_holds_where_it_was_made(root: str, certified: Path) -> None:
    parts = verified(certified, root)
    assert parts["weights"].startswith("holds") and "at weight commit initial" in parts["weights"]
    assert parts["invariants"] == "holds  2 as they were"
    assert parts["replay"] == "holds  2 verdicts from seed 0 are the same"
    assert parts["signature"] == "holds  it is not signed"
    page = certified.with_name("certificate.html").read_text()
    assert "1 of 2 invariants hold, 1 are violated" in page and "<script" not in page
    assert not list(certified.parent.glob(".*")) and "note" not in parts


def test_other_verdicts_fail_the_replay(root: str, certified: Path, tmp_path: Path) -> None:
    told = json.loads(certified.read_text())
    told["invariants"][0]["finding"]["successes"] -= 1
    told["versions"]["torch"] = "1.0"
    forged = tmp_path / "certificate.json"
    forged.write_text(json.dumps(told))
    parts = verified(forged, root, status=1)
    n = told["invariants"][0]["finding"]["n"]
    assert parts["replay"].startswith(f"FAILS  {KEPT}: it was shown in") and f"of {n} now" in parts["replay"]
    assert parts["note"].startswith("made with torch 1.0")
    forged.write_text("{}")
    assert "missing required field" in verified(forged, root, status=1)["format"]


def test_a_certificate_of_other_weights_says_so(certified: Path, tmp_path: Path) -> None:
    root = fresh(tmp_path / "w")
    directory = Path(root) / "model"
    values = load_file(directory / "model.safetensors")
    name = sorted(values)[0]
    values[name] = values[name] * 1.5
    save_file(values, tmp_path / "other.safetensors", metadata={"format": "pt"})
    done = understudy(
        "commit", "--from", str(tmp_path / "other.safetensors"), "-m", "x", "-w", root, room="weights"
    )
    commit = done.stdout.strip()
    parts = verified(certified, root, status=1)
    assert parts["weights"].splitlines() == [
        "FAILS  the certificate is of other weights: it was made at weight commit initial, the model is at "
        f"{commit}",
        f"       1 of {len(values)} tensors differ: {name}",
    ]
    assert parts["replay"].startswith("not done") and "weights" in parts

    shutil.copyfile(tmp_path / "other.safetensors", directory / "model.safetensors")
    (directory / "model.safetensors").write_bytes(
        (directory / "model.safetensors").read_bytes()[:-2] + b"\x11\x22"
    )
    parts = verified(certified, root, status=1)
    assert parts["weights"].startswith("FAILS") and "2 of" in parts["weights"], "changed behind its history"


def test_a_changed_specification_is_named(certified: Path, tmp_path: Path) -> None:
    root = fresh(tmp_path / "w")
    file = Path(root) / "behaviours" / f"{KEPT}.toml"
    file.write_text(file.read_text().replace('"the violinist', '"the bassoonist').replace("0.95", "0.9"))
    (Path(root) / "behaviours" / f"{WANTED}.toml").unlink()
    parts = verified(certified, root, status=1)
    assert parts["weights"].startswith("holds")
    told = parts["invariants"]
    assert f"{KEPT} was changed: required; files differ: {KEPT}.toml" in told
    assert f"{WANTED}: this workspace has no such invariant" in told
    assert parts["replay"].startswith("not done")


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_a_signed_certificate(root: str, tmp_path: Path) -> None:
    for name in ("key", "other"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(command, check=True)
    signers = tmp_path / "signers"
    signers.write_text(f"maya {(tmp_path / 'key.pub').read_text()}tom {(tmp_path / 'other.pub').read_text()}")
    made = ("certify", WANTED, "--budget", "16", "--out", str(tmp_path / "c"), "-w", root)
    printed = said(*made, "--sign", str(tmp_path / "key")).split()
    file = tmp_path / "c" / "certificate.json"
    assert printed[1:] == [f"{file}.sig", str(file)]

    who = ("--allowed-signers", str(signers), "--identity")
    assert 'Good "understudy" signature for maya' in verified(file, root, *who, "maya")["signature"]
    assert "--allowed-signers and --identity would tell" in verified(file, root)["signature"]
    assert verified(file, root, *who, "tom", status=1)["signature"].startswith("FAILS")
    text = file.read_text()
    file.write_text(text.replace("2026", "2027") if "2026" in text else text.replace("202", "203"))
    parts = verified(file, root, *who, "maya", status=1)
    assert parts["signature"].startswith("FAILS  ssh-keygen -Y verify") and parts["replay"].startswith(
        "holds"
    )
    assert verified(file, root, status=1)["signature"].startswith("FAILS  ssh-keygen -Y check-novalidate")

    said(*made)
    assert not file.with_name("certificate.json.sig").exists(), "a signature of what was replaced is no use"
    told = verified(file, root, *who, "maya", status=1)["signature"]
    assert told.startswith("FAILS  expected a signature by maya")


# ---------------------------------------------------------------------- with a running server


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    workspace = new_workspace(tmp_path_factory.mktemp("served") / "w")
    log = workspace.root / "server.log"
    command = [sys.executable, "-m", "understudy", "serve", "-w", str(workspace.root), "--port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        eventually(workspace.server)
        yield workspace
    finally:
        process.terminate()
        process.wait(30)
        print(log.read_text())


def test_a_running_server_is_asked_and_says_the_same(
    served: Workspace, found: dict[str, object], certified: Path
) -> None:
    root = str(served.root)
    [one] = json.loads(said("check", WANTED, "--budget", "48", "--json", "-w", root))["verdicts"]
    assert one == found["verdicts"][1]  # type: ignore[index]
    parts = verified(certified, root)
    assert parts["weights"].startswith("holds") and parts["replay"].startswith("holds")


def test_a_server_of_another_model_is_not_asked(served: Workspace) -> None:
    elsewhere = Workspace.open(served.root, model={"path": str(checkpoint_directory())})
    with pytest.raises(CommandError, match="it serves another model directory"), subject_of(elsewhere):
        pass


def test_what_is_served_is_certified_and_must_rest_meanwhile(
    served: Workspace, certified: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, folder = str(served.root), tmp_path / "c"
    made = ("certify", WANTED, "--budget", "16", "--out", str(folder), "-w", root)
    said(*made)
    told = json.loads((folder / "certificate.json").read_text())
    assert told["settings"]["engine"] == "served" and told["settings"]["dtype"] == "bfloat16"
    assert told["model"] == json.loads(certified.read_text())["model"]
    assert verified(folder / "certificate.json", root)["replay"].startswith("holds")

    values = load_file(served.root / "model" / "model.safetensors")
    values["model.norm.weight"].mul_(1.01)
    save_file(values, tmp_path / "other.safetensors", metadata={"format": "pt"})
    commits = []

    def moving(*given: Any) -> Any:
        change = ("commit", "--from", str(tmp_path / "other.safetensors"), "-m", "x", "-w", root)
        commits.append(understudy(*change, room="weights").stdout.strip())
        return checked(*given)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr("understudy.cli.certifying.checked", moving)
        before = (folder / "certificate.json").read_bytes()
        refusal = refused(*made)
    assert f"they moved meanwhile, from initial to {commits[0]}: try again" in refusal
    assert (folder / "certificate.json").read_bytes() == before
    assert f"the model is at {commits[0]}" in verified(certified, root, status=1)["weights"]
    said(*made)
    told = json.loads((folder / "certificate.json").read_text())
    assert told["model"]["weight_commit"] == commits[0]
    assert told["model"]["tensors"]["model.norm.weight"] == hash_tensor(values["model.norm.weight"])
