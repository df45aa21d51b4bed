"""Weights on the page: real sessions, what is told of them, and the way back."""

import asyncio
import re
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch
from learning_pages import HOSTILE, Pages, correct, people, small_pages, training_pages
from workspace_server import eventually, idle_service, small_workspace

from understudy.behaviours import EngineVoice, ModelSubject
from understudy.engine import Directions, ReadoutManifest, ReadoutStatistics
from understudy.lessons import LedgerEntry, Lesson, Source, chat_context
from understudy.pocket import lessons, new_workspace
from understudy.server.pages.learn import propose_now
from understudy.server.pages.plots import bar_plot, line_plot
from understudy.server.pages.readouts import read_message
from understudy.weights import read_commits
from understudy.workspace import Workspace

CONCEPTS = ["calm", "<b>bold</b>"]


def proposed(pages: Pages, file: str, said: str, better: str) -> LedgerEntry:
    message, commit = correct(pages.site.workspace, file, said, better)
    entry = propose_now(pages.site, f"conversations/{file}.md", message, commit)  # type: ignore[arg-type]
    assert entry is not None
    return entry


def approved_and_trained(pages: Pages, entries: list[LedgerEntry]) -> None:
    """Through the page, with settings of their own, so that they are one session in any workspace."""
    assert pages.do("approve", {"ids": [one.id for one in entries], "lr": "0.0003"}) == 303, pages.said[-1]
    ledger = pages.ledger
    eventually(lambda: all(ledger.get(one.id).result for one in entries) or None)
    eventually(lambda: pages.site.service.sessions.running is None or None)


def test_a_real_session_is_shown_with_its_evidence_decided_about_compared_and_undone(tmp_path: Path) -> None:
    workspace = new_workspace(tmp_path / "w")
    file = workspace.root / "understudy.toml"
    file.write_text(file.read_text() + "on_approval = false\n[gate]\nbudget = 5\n")
    workspace = Workspace.open(workspace.root)
    people(workspace)
    with training_pages(workspace) as pages:
        source = Source("", "", "", "", "maya", "")
        taught = [
            pages.ledger.propose(Lesson(one.prompt, one.chosen, "No.", source)).entry for one in lessons(0, 5)
        ]
        approved_and_trained(pages, taught)
        [made] = read_commits(workspace.root / "model")
        assert made.details["settings"]["lr"] == 3e-4
        seen = pages.see("/learn")
        assert "A session waits for a decision" in seen and "is not decided" in seen
        assert re.search(r"push-back.*?\[-?\d+\.\d\d, -?\d+\.\d\d\]", seen, re.DOTALL), "intervals"
        result = pages.ledger.get(taught[0].id).result
        assert result is not None and result.answer_before and result.answer_after
        one = pages.see(f"/learn/{taught[0].short}")
        assert "Before its session" in one and result.answer_before in one.replace("&#39;", "'")
        assert "Keep what was learned" in one and made.id in one

        commit = pages.see(f"/model/{made.id}")
        assert "development split" in commit and "Keep what was learned" in commit and "push-back" in commit
        assert "a lesson you may not read" in pages.see(f"/model/{made.id}", "lena")
        moved = pages.part("/part/movement", a="initial", b=made.id)
        assert moved.count("<img") == 2 and "Groups of a layer" in moved
        for plot in ("heads", "matrices", "losses"):
            found = pages.client.get(f"/model/{made.id}/{plot}.svg", headers={"x-name": "lena"})
            assert found.status_code == 200 and found.headers["content-type"].startswith("image/svg+xml")
            assert found.headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'"
            assert found.text.startswith("<svg") and "<script" not in found.text
        assert pages.get(f"/model/{made.id}/odd.svg")[0] == 404

        decision = {"session": made.session or "", "decision": "revert", "why": "I read the answers"}
        assert pages.do("decide", decision, "lena") == 403
        assert pages.do("decide", decision, "jonas") == 303, pages.said[-1]
        assert {pages.ledger.get(entry.id).state for entry in taught} == {"reverted"}
        timeline = pages.see("/model")
        assert "undone" in timeline and "serves now" in timeline and "I read the answers" in timeline
        assert "<polyline" in timeline or "<circle" in timeline
        assert "a lesson you may not read" in pages.see("/model", "lena")

        restored = {"commit": made.id}
        assert pages.do("restore-weights", restored, "lena") == 403
        assert pages.do("restore-weights", restored, "jonas") == 303, pages.said[-1]
        assert {pages.ledger.get(entry.id).state for entry in taught} == {"trained"}
        newest = read_commits(workspace.root / "model")[-1]
        assert (newest.author, newest.details["restores"]) == ("jonas", made.id)
        back = pages.see("/model/compare", a="initial", b=newest.id)
        assert back.count("a lesson you may not read") == 0 and taught[0].short in back
        assert (
            result.answer_after in back.replace("&#39;", "'") and "Only the weights that are served" in back
        )
        assert pages.get("/model/compare", a=made.id, b=made.id)[0] == 400
        assert pages.get("/model/compare", a=made.id, b="ffffffff")[0] == 404
        assert pages.do("restore-weights", {"commit": made.id, "parent": "1"}) == 303
        assert read_commits(workspace.root / "model")[-1].details["restores"] is None
        assert pages.do("restore-weights", {"commit": newest.id[:4] + "zz"}) == 404


def test_weights_that_were_never_trained_and_names_that_are_none(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path)
    people(workspace)
    with idle_service(workspace) as service:
        pages = small_pages(workspace, service)
        assert "nothing was trained yet" in pages.see("/model", "lena")
        assert pages.get("/model", "")[0] == 403
        for path in ("/model/abc", "/model/abc/heads.svg", "/model/%3Cscript%3E"):
            status, text = pages.get(path)
            assert status == 404 and "<script>" not in text, path
        assert pages.get("/model", page="2")[0] == 404
        assert pages.get("/part/movement", a="initial", b="initial")[0] == 400
        status, text = pages.get("/part/readout", file="conversations/talk.md", id="x")
        assert status == 404 and "no concepts are loaded" in text


@pytest.fixture
def reading(tmp_path: Path) -> Workspace:
    """A workspace whose model has directions to read."""
    workspace = small_workspace(tmp_path)
    draw = torch.Generator().manual_seed(0)
    manifest = ReadoutManifest(concepts=CONCEPTS, layers=[0, 1], hidden_size=32, dtype="float32")
    folder = workspace.root / "directions"
    Directions(manifest, {n: torch.randn(2, 32, generator=draw) for n in (0, 1)}).save(folder)
    people(workspace)
    return Workspace.open(workspace.root, model={"readout": "directions"})


def test_readouts_are_shown_token_by_token_for_people_and_the_model(reading: Workspace) -> None:
    correct(reading, "talk", "Take it.", f"Take the blue cup. {HOSTILE}")
    with idle_service(reading) as service:
        pages = small_pages(reading, service)
        path = reading.repository.read("conversations/talk.md").messages
        for message, by in ((path[0], "jonas"), (path[1], "understudy")):
            assert message.author == by
            shown = pages.part("/part/readout", file="conversations/talk.md", id=message.id)
            strip = re.search(r'<div class="strip"[^>]*>(.*?)</div>', shown, re.DOTALL)
            assert strip is not None
            tokens = re.findall(r'<span class="tok r(\d+)"[^>]*>(.*?)</span>', strip[1], re.DOTALL)
            text = "".join(piece for _, piece in tokens).replace("&#34;", '"').replace("&#39;", "'")
            text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
            assert text.strip() == message.body, "the message's own tokens, all and no others"
            assert {int(level) for level, _ in tokens} & {0, 10}, "the furthest has the strongest colour"
            assert "<b>bold" not in shown and "<script>" not in shown and " style=" not in shown
        asked = {"file": "conversations/talk.md", "id": path[1].id}
        assert pages.part("/part/readout", **asked, concept=CONCEPTS[1], layer="1") != shown
        assert pages.get("/part/readout", **asked, layer="7")[0] == 400
        assert pages.get("/part/readout", **asked, concept="pride")[0] == 400
        assert pages.get("/part/readout", file="conversations/talk.md", id="nothing")[0] == 404
        assert pages.get("/part/readout", "", **asked)[0] == 403


def test_readouts_are_z_scores_where_there_are_statistics(reading: Workspace) -> None:
    correct(reading, "talk", "Take it.", "Take the blue cup, please.")
    message = reading.repository.read("conversations/talk.md").messages[1].id
    asked = {"file": "conversations/talk.md", "id": message, "concept": "calm", "layer": "1"}
    with idle_service(reading) as service:
        pages = small_pages(reading, service)
        raw = pages.part("/part/readout", **asked)
        assert '<label for="scale' not in raw and "calm (raw)" in raw, "nothing to choose"
        assert pages.part("/part/readout", **asked, scale="raw") == raw
        status, text = pages.get("/part/readout", **asked, scale="z")
        assert status == 400 and "expected a scale of raw" in text
    folder = reading.root / "directions"
    table = [[1.5, 2.5], [0.5, 4.0]]
    statistics = ReadoutStatistics(mean=table, deviation=table, norms=table, tokens=9)
    plain = Directions.load(folder)
    replace(plain, manifest=msgspec.structs.replace(plain.manifest, statistics=statistics)).save(folder)
    with idle_service(reading) as service:
        pages = small_pages(reading, service)
        scored = pages.part("/part/readout", **asked)
        assert '<option value="z" selected>' in scored and "calm (z)" in scored
        assert '<option value="raw" selected>' in pages.part("/part/readout", **asked, scale="raw")
        assert pages.get("/part/readout", **asked, scale="x")[0] == 400
        directions = service.engine.directions
        assert directions is not None
        read = {
            scale: asyncio.run(
                read_message(pages.site, asked["file"], message, directions, "calm", (1,), scale)  # type: ignore[arg-type]
            )
            for scale in ("raw", "z")
        }
    assert read["z"].mean == pytest.approx((read["raw"].mean - 0.5) / 0.5, rel=1e-6)
    for one, z_one in zip(read["raw"].tokens, read["z"].tokens, strict=True):
        assert one.text == z_one.text and z_one.value == pytest.approx((one.value - 0.5) / 0.5, rel=1e-6)


def test_a_message_reads_as_the_same_answer_does_for_an_invariant(reading: Workspace) -> None:
    correct(reading, "talk", "Take it.", "Take the blue cup, please.")
    path = reading.repository.read("conversations/talk.md").messages
    with idle_service(reading) as service:
        pages, engine = small_pages(reading, service), service.engine
        directions = engine.directions
        assert directions is not None
        read = asyncio.run(
            read_message(pages.site, "conversations/talk.md", path[1].id, directions, "calm", (0, 1), "raw")  # type: ignore[arg-type]
        )
        said = (chat_context(path[:1], "understudy"), path[1].body)
        [expected] = ModelSubject(EngineVoice(engine)).readouts([said], "calm", None)  # type: ignore[arg-type]
    assert read.mean == pytest.approx(expected, rel=1e-4)
    assert sum(token.value for token in read.tokens) / len(read.tokens) == pytest.approx(read.mean)


def test_readouts_of_private_conversations_are_for_their_members(reading: Workspace) -> None:
    message, _ = correct(reading, "secret", "Take it.", "Take the blue one.")
    with idle_service(reading) as service:
        pages = small_pages(reading, service)
        assert pages.get("/part/readout", "lena", file="conversations/secret.md", id=message)[0] == 403
        assert pages.get("/part/readout", "jonas", file="conversations/secret.md", id=message)[0] == 200


def test_plots_are_made_of_attributes_and_say_what_they_show() -> None:
    line = line_plot([(1, 2.0), (2, float("nan")), (3, 0.5)], 'a "label" <b>')
    assert 'aria-label="a &#34;label&#34; &lt;b&gt;"' in line and "style" not in line
    assert line.count(",") == 2, "what is no number is left out"
    assert line_plot([], "none") == "" and bar_plot([], "none") == ""
    assert "<circle" in line_plot([(5, 0.0)], "one point")
    bars = bar_plot([("<i>", 1.0), ("low", -0.5)], "bars")
    assert 'class="plot-up"' in bars and 'class="plot-down"' in bars and "<i>" not in bars
