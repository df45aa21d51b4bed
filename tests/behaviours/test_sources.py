"""Where scenarios come from, and that none of what is tested stands in another split."""

import json
import string
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.behaviours import (
    InvalidInvariant,
    Invariant,
    Prompt,
    Scenario,
    Split,
    read_invariant,
    split_of,
)
from understudy.behaviours.sources import deal
from understudy.conversation import ConversationRepository
from understudy.lessons import ChatMessage
from understudy.workspace import Workspace

HEAD = 'wanted = "x"\nkind = "kept"\nrequired = 0.9\nindifferent = 0.75\n'
TAIL = '[judge]\nkind = "rule"\naccept = ["x"]\n[margin]\nacceptable = ["x"]\n'
WORDS = st.text(string.ascii_lowercase, min_size=1, max_size=6)


def user(text: str) -> Prompt:
    return (ChatMessage("user", text),)


def write(folder: Path, name: str, scenarios: str) -> Path:
    file = folder / f"{name}.toml"
    file.write_text(f"{HEAD}[scenarios]\n{scenarios}\n{TAIL}")
    return file


def texts(invariant: Invariant, split: Split) -> list[str]:
    return [one.prompt[-1].content for one in invariant.scenarios[split]]


# ---------------------------------------------------------------------- splits


@given(st.lists(st.text(min_size=1), min_size=1, max_size=3), st.text())
def test_a_split_depends_on_the_prompt_alone(said: list[str], target: str) -> None:
    prompt = tuple(ChatMessage("user", text) for text in said)
    assert split_of(Scenario(prompt, target)) == split_of(Scenario(prompt))


@given(st.text(min_size=1), st.lists(st.text(), min_size=1, max_size=5))
def test_scenarios_of_one_group_are_in_one_split(group: str, said: list[str]) -> None:
    assert len({split_of(Scenario(user(text), text, group)) for text in said}) == 1


@pytest.mark.parametrize(
    "made",
    [
        lambda number: Scenario(user(number)),
        lambda number: Scenario((), number),
        lambda number: Scenario(user("same"), "same", number),
    ],
    ids=["prompts", "documents", "groups"],
)
def test_splits_have_their_shares(made: Callable[[str], Scenario]) -> None:
    found = [split_of(made(str(number))) for number in range(10_000)]
    assert abs(found.count("train") / 10_000 - 0.6) < 0.02
    assert abs(found.count("test") / 10_000 - 0.2) < 0.02


def test_a_scenario_stays_in_its_split_whatever_comes_beside_it(tmp_path: Path) -> None:
    scenarios = 'templates = [{ prompt = "Take the {thing} to {place}." }]\n[scenarios.slots]\n'
    things = 'thing = ["cup", "lamp", "vase", "map"]\n'
    fewer = write(tmp_path, "one", f'{scenarios}{things}place = ["a", "b", "c"]')
    more = write(tmp_path, "two", f'{scenarios}{things}place = ["d", "a", "e", "b", "c"]')
    before, after = read_invariant(fewer).scenarios, read_invariant(more).scenarios
    assert all(set(before[split]) < set(after[split]) for split in before)


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=30))
def test_no_prompt_is_in_two_splits_whatever_its_groups(drawn: list[tuple[str, str]]) -> None:
    dealt = deal(Scenario(user(text), group, group) for text, group in drawn)
    prompts = [{one.prompt for one in held} for held in dealt.values()]
    assert sum(map(len, prompts)) == len({text for text, _ in drawn})
    assert sum(map(len, dealt.values())) == len(drawn)


def slots(**words: Sequence[str]) -> str:
    return "\n[scenarios.slots]\n" + "\n".join(f"{name} = {json.dumps(held)}" for name, held in words.items())


@settings(deadline=None)
@given(st.data())
def test_no_word_of_a_slot_that_splits_stands_in_two_splits_of_any_invariant(data: st.DataObject) -> None:
    """Two invariants that share words, as the shipped ones do; each word is in the same split in both."""
    shared = data.draw(st.lists(WORDS, min_size=2, max_size=8, unique=True))
    own = [data.draw(st.lists(WORDS, min_size=2, max_size=8, unique=True)) for _ in "ab"]
    free = data.draw(st.lists(WORDS, min_size=1, max_size=3, unique=True))
    templates = [
        {"prompt": "<{free}> take ({thing})", "target": "{thing}"},
        {"prompt": "({name}) goes <{free}>"},
    ]
    told = ", ".join("{ " + ", ".join(f'{k} = "{v}"' for k, v in one.items()) + " }" for one in templates)
    homes: dict[str, set[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, mine in enumerate(own):
            things = list(dict.fromkeys([*mine, *shared]))
            held = slots(free=free, thing=things, name=shared)
            file = write(
                Path(folder), f"i{number}", f'split_by = ["thing", "name"]\ntemplates = [{told}]{held}'
            )
            try:
                found = read_invariant(file)
            except InvalidInvariant as error:
                assert "none of" in str(error) and "fell there" in str(error)
                continue
            assert sum(map(len, found.scenarios.values())) == len(free) * (len(things) + len(shared))
            for split in found.scenarios:
                for text in texts(found, split):
                    homes.setdefault(text[text.index("(") : text.index(")")], set()).add(split)
    assert all(len(splits) == 1 for splits in homes.values()), homes


@pytest.mark.parametrize(
    ("template", "named"),
    [('{ prompt = "{who} {what}" }', "who, what"), ('{ prompt = "{who}", group = "all" }', "all, who")],
)
def test_a_template_whose_words_could_not_be_kept_apart_is_refused(
    tmp_path: Path, template: str, named: str
) -> None:
    held = slots(who=["a", "b"], what=["c", "d"])
    file = write(tmp_path, "one", f'split_by = ["who", "what"]\ntemplates = [{template}]{held}')
    with pytest.raises(InvalidInvariant, match=f"a group or one slot of split_by, got {named}"):
        read_invariant(file)


# ---------------------------------------------------------------------- JSON Lines


def lines(folder: Path, *given: object) -> Path:
    (folder / "said.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in given), encoding="utf-8")
    return write(folder, "one", 'files = ["said.jsonl"]')


def test_lines_of_one_group_stay_together(tmp_path: Path) -> None:
    given = [{"prompt": f"{group} {n}", "group": f"g{group}"} for group in range(40) for n in range(3)]
    found = read_invariant(lines(tmp_path, *given))
    homes = {text.split()[0]: split for split in found.scenarios for text in texts(found, split)}
    assert len(homes) == 40 and set(homes.values()) == {"train", "development", "test"}
    assert all(len(texts(found, split)) == 3 * list(homes.values()).count(split) for split in found.scenarios)


def test_lines_are_taken_as_they_are(tmp_path: Path) -> None:
    """Braces are no slots, blank lines nothing, and a line ends where JSON Lines says, not at U+2028."""
    odd = "A {thing}\u2028and\x85more"
    file = lines(tmp_path, *({"prompt": str(number)} for number in range(20)))
    said = file.parent / "said.jsonl"
    said.write_text(
        said.read_text() + "\n\n" + json.dumps({"prompt": odd}, ensure_ascii=False) + "\r\n", encoding="utf-8"
    )
    found = [one for held in read_invariant(file).scenarios.values() for one in held]
    assert Scenario(user(odd)) in found and len(found) == 21


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ('{"prompt": 3}', r"said\.jsonl, line 2: .*\$\.prompt"),
        ('{"prompt": "x"', r"said\.jsonl, line 2: "),
        ('{"prompt": "x", "answer": "y"}', r"said\.jsonl, line 2: .*unknown field `answer`"),
        ('{"prompt": [{"role": "robot", "content": "x"}]}', r"said\.jsonl, line 2: .*'robot'"),
        ('{"prompt": []}', r"said\.jsonl, line 2: expected a prompt, or a document as the target"),
        ("\udcff", "utf-8"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, match: str) -> None:
    file = lines(tmp_path, {"prompt": "a"})
    with (tmp_path / "said.jsonl").open("ab") as stream:
        stream.write(line.encode(errors="surrogateescape"))
    with pytest.raises(InvalidInvariant, match=match) as failure:
        read_invariant(file)
    assert str(file) in str(failure.value)


# ---------------------------------------------------------------------- conversations


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace.create(tmp_path / "w", model="none", copy_model=False, replay=(), settings="")
    (made.root / "behaviours").mkdir()
    return made


FILE = "conversations/talk.md"


def talk(repository: ConversationRepository, count: int) -> list[str]:
    """A thread of questions that the model answers; the ids of the questions."""
    asked = repository.start(FILE, "Tea", "maya", "@understudy Which tea 0?").message
    ids = [asked]
    for number in range(1, count):
        answer = repository.reply(FILE, asked, "understudy", f"Mint {number - 1}.").message
        asked = repository.reply(FILE, answer, "maya", f"Which tea {number}?").message
        ids.append(asked)
    return ids


def test_a_conversation_gives_what_the_model_answered(workspace: Workspace) -> None:
    ids = talk(workspace.repository, 12)
    write(workspace.root / "behaviours", "one", 'conversations = ["talk.md"]')
    [found] = workspace.invariants()
    prompts = {one.prompt for held in found.scenarios.values() for one in held}
    assert {len(prompt) for prompt in prompts} == {1 + 2 * place for place in range(11)}, "the last has none"
    assert min(prompts, key=len) == user("Which tea 0?")
    longest = max(prompts, key=len)
    assert longest[-2:] == (ChatMessage("assistant", "Mint 9."), ChatMessage("user", "Which tea 10?"))

    paths = [f"conversations/talk.md#{one}" for one in ids]
    write(workspace.root / "behaviours", "one", f"conversations = {json.dumps(paths)}")
    [named] = workspace.invariants()
    also = {one.prompt for held in named.scenarios.values() for one in held}
    assert prompts < also and [len(one) for one in also - prompts] == [23], "a named message needs no answer"


def test_a_message_that_was_deleted_is_not_asked(workspace: Workspace) -> None:
    repository = workspace.repository
    ids = talk(repository, 12)
    repository.delete(FILE, ids[5], "maya")
    write(workspace.root / "behaviours", "one", 'conversations = ["talk.md"]')
    [found] = workspace.invariants()
    said = {one.prompt[-1].content for held in found.scenarios.values() for one in held}
    assert "Which tea 4?" in said and "Which tea 5?" not in said and len(said) == 10


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("none.md", r"none\.md: .*conversations/none\.md"),
        ("talk.md#nothing", r"talk\.md#nothing: "),
        ("lonely.md", r"lonely\.md: expected messages that understudy replied to, found none"),
        ("../participants.md", r"\.\./participants\.md: "),
    ],
)
def test_what_no_scenario_comes_from_is_named(workspace: Workspace, path: str, match: str) -> None:
    talk(workspace.repository, 2)
    workspace.repository.start("conversations/lonely.md", "Tea", "maya", "Anyone?")
    file = write(workspace.root / "behaviours", "one", f'conversations = ["{path}"]')
    with pytest.raises(InvalidInvariant, match=match) as failure:
        workspace.invariants()
    assert str(file) in str(failure.value)
