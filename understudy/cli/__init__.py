"""The command line: one file per command, each loaded only when it is called."""

import sys

from cyclopts import App

app = App(
    name="understudy",
    help="Your own language model learns durable behaviour from the conversations you have with it.",
    version_flags=["--version"],
)

_HELP = {
    "init": "Make a workspace: conversations in Git, a ledger, a model.",
    "serve": "Serve a workspace: the OpenAI-compatible API, the trainer, the model in its conversations.",
    "threads": "List conversations, threads and messages with their ids; --check what hand edits broke.",
    "show": "Show a conversation, or one message by its permanent link.",
    "start": "Open a new thread with its first message.",
    "post": "Say something in a thread, in answer to no one.",
    "reply": "Reply to a message, as yourself.",
    "edit": "Replace a message's text; an edit of the model's message is a lesson.",
    "move": "Move a message and its replies to another thread, or to a new one.",
    "split": "Make a thread of a paragraph of a message.",
    "delete": "Delete a message.",
    "restore": "Bring a deleted message back.",
    "rename": "Give a thread another title.",
    "merge": "Put all of one thread behind another.",
    "search": "Find messages: by words, or those unread, mentioning you, or newest.",
    "history": "Show how a message came to say what it says.",
    "export": "Write conversations as a page, as JSON, or as lessons.",
    "import": "Bring in a chat export, or conversations of the older layout with their history.",
    "pull": "Fetch what others said elsewhere, and merge it by message.",
    "push": "Send what was said here.",
    "merge-driver": "Merge conversations by message, as Git's merge driver; --install makes Git call it.",
    "say": "Let the model answer a message in its thread.",
    "train": "Train the approved lessons now, or only say what that would do.",
    "finetune": "Teach the running server the lessons of a JSON Lines file.",
    "status": "What the server and the trainer are doing.",
    "report": "Write what a training session did: outcomes, margins, losses, what moved.",
    "dream": "Imagine scenarios, and propose lessons from what the model failed.",
    "study": "Watch a model learn: counts and margins, parts that carry it, flat or sharp.",
    "demo": "The main job, measured: corrections become durable behaviour.",
}
_ELSEWHERE = {  # these names cannot name a module
    "import": "importing:import_conversation",
    "merge-driver": "merge_driver:merge_driver",
}
for _name, _help in _HELP.items():
    app.command(f"understudy.cli.{_ELSEWHERE.get(_name, f'{_name}:{_name}')}", name=_name, help=_help)

lessons = App(name="lessons", help="What is to be learned: list, show, approve, reject.")
for _name, _help in {
    "list": "List lessons, newest last.",
    "show": "Show one lesson: context, what the model said, what it should say, and its history.",
    "approve": "Approve lessons: they will be trained.",
    "reject": "Refuse lessons: they will never be trained.",
}.items():
    lessons.command(f"understudy.cli.lessons:{_name}_lessons", name=_name, help=_help)
_help = "Find replies that lean on notes: which notes are of use, what could be learned without them."
lessons.command("understudy.cli.leaning:lean_lessons", name="lean", help=_help)
app.command(lessons)

behaviours = App(name="behaviours", help="What the model must and must not do: list, check, certify.")
for _name, (_file, _help) in {
    "list": ("behaviours", "List the invariants: what is wanted, how it is judged, how many scenarios."),
    "check": (
        "behaviours",
        "Ask the model until each invariant holds, is violated, or the budget is spent.\n\n"
        "Exits with 1 when a kept invariant is violated, with 2 when something could not be done.",
    ),
    "certify": (
        "certifying",
        "Write down what was found of which weights, for others to find again.\n\n"
        "With --verify, hold such a certificate against this workspace: exits with 1 unless all of it holds.",
    ),
}.items():
    behaviours.command(f"understudy.cli.{_file}:{_name}_behaviours", name=_name, help=_help)
for _name, (_verb, _help) in {
    "decisions": (
        "list_decisions",
        "List what was decided about training sessions, by the gate and by people.",
    ),
    "keep": ("keep_session", "Keep a session about which the gate asks."),
    "revert": ("revert_session", "Revert a session about which the gate asks."),
}.items():
    behaviours.command(f"understudy.cli.deciding:{_verb}", name=_name, help=_help)
app.command(behaviours)

concepts = App(
    name="concepts",
    help="Concepts: directions in activation space: check, collect, train, report, read, steer, export.",
)
for _name, _help in {
    "check": "Look for what is wrong with a corpus, or with the one that comes with Understudy.\n\n"
    "Exits with 1 when there are errors: what would be learned from such a corpus is worth nothing.",
    "collect": "Make a corpus of messages that people scored, and of lessons.\n\n"
    "A message scores itself by a last line such as `warmth:9 clarity:10`, and what it answers when it is "
    "nothing else. FILES are JSON Lines with `messages`, which may have `scores` beside their content, or "
    "lessons with `prompt`, `chosen` and `rejected`. Each text is used once, for one concept; whole scenes "
    "are held out.",
}.items():
    concepts.command(f"understudy.cli.concepts:{_name}_concepts", name=_name, help=_help)
for _name, _help in {
    "train": "Find each concept's direction in a corpus, and measure it on texts that were held out.",
    "report": "Say what directions are worth: figures as JSON, and a page to look at.",
}.items():
    concepts.command(f"understudy.cli.extracting:{_name}_concepts", name=_name, help=_help)
_help = (
    "Read texts by directions, with the workspace's newest weights.\n\n"
    "With --commits A,B,... or `all`, the same texts are read with the weights of each commit, `initial` for "
    "the model as it came: what moved since the first, with a 95 % interval over texts."
)
concepts.command("understudy.cli.reading:read_concepts", name="read", help=_help)
_help = (
    "Steer answers by a concept, more and more: how often it shows, what breaks, which strengths to use.\n\n"
    "With --propose, what is said at a strength becomes lessons for a person to approve."
)
concepts.command("understudy.cli.steering:steer_concepts", name="steer", help=_help)
_help = (
    "Write a concept's directions as a GGUF control vector, for llama.cpp's --control-vector.\n\n"
    "llama.cpp has no place for a vector behind layer 0."
)
concepts.command("understudy.cli.control_vectors:export_concepts", name="export", help=_help)
app.command(concepts)

people = App(name="people", help="Who takes part: list, invite, let in, sign out.")
for _name, (_verb, _help) in {
    "list": ("list_people", "List who takes part, with their rights, signed-in browsers and API tokens."),
    "invite": ("invite_person", "Make someone a participant, and print the link that lets them in once."),
    "link": ("link_person", "Print a link that signs a participant in once."),
    "revoke": ("revoke_person", "End what can come in as someone: browsers, links, tokens, GitHub's login."),
}.items():
    people.command(f"understudy.cli.people:{_verb}", name=_name, help=_help)
app.command(people)

weights = App(name="weights", help="The weights' history: commits, what moved, going back, the files.")
for _file, _commands in {
    "weights": {
        "log": "List the weight commits, newest last.",
        "show": "Show one weight commit: who, why, lessons, settings, effect.",
        "commit": "Record values that another tool made as a weight commit.",
        "checkout": "Bring the weights back to what they were at a commit, bit for bit.",
        "restore": "The same as checkout.",
        "revert": "Undo a commit and all that came after it, bit for bit.",
        "sync": "Bring the model directory's files up to the newest commit.",
    },
    "inspecting": {
        "diff": "Show what moved between two commits, by layer, matrix and head.",
        "verify": "Check every file, record and delta against the recorded hashes.",
        "diagnose": "Compare live weights, journal and disk.",
        "gc": "Remove leftovers, and with --keep the deltas of older commits.",
    },
    "vectors": {
        "vector": "Write a task vector: what leads from one state of the weights to another.",
        "apply": "Add a task vector, times a scale, to a model.",
        "negate": "Write the vector that takes away what another brings.",
        "merge": "Merge task vectors and models: task arithmetic, TIES, DARE, linear, slerp.",
        "conflicts": "Compare task vectors: where do behaviours stand in each other's way?",
    },
}.items():
    for _name, _help in _commands.items():
        _verb = "checkout" if _name == "restore" else _name
        weights.command(f"understudy.cli.{_file}:{_verb}_weights", name=_name, help=_help)
app.command(weights)


def main() -> None:
    """Entry point of `understudy`. What a person did wrong is said in a line or two, without a traceback."""
    from understudy.cli.failures import explained

    with explained():
        sys.exit(app(sys.argv[1:], result_action="return_int_as_exit_code_else_zero"))
