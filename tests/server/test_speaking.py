"""What the model is to say in a conversation and does not: nobody is left waiting for it."""

import asyncio
from pathlib import Path

import pytest
from workspace_server import small_workspace

from understudy.participant import EmptyAnswer
from understudy.server import open_engine
from understudy.server.speaking import Answers
from understudy.server.speeches import Speech, Speeches

FILE = "conversations/talk.md"


def test_an_answer_of_nothing_is_posted_nowhere_and_told_to_everyone(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path)
    repository = workspace.repository
    asked = repository.start(FILE, "Tea", "maya", "Which tea?").message
    with open_engine(workspace) as engine:
        speeches, told = Speeches(engine), list[tuple[str, bool, str]]()

        def hear(speech: Speech) -> None:
            told.append((speech.message, speech.ended, speech.failure))
            if not speech.ended:
                speech.stop("tom")  # before it said a word

        speeches.listen(hear)
        with pytest.raises(EmptyAnswer):
            asyncio.run(Answers(workspace, repository, speeches).give(FILE, asked))
    assert not repository.read(FILE).message(asked).replies
    assert [one[:2] for one in told][-2:] == [(asked, True), (asked, True)]
    assert "with nothing" in told[-1][2] and not told[-2][2]
    assert speeches.of(FILE) == ()
