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
    "threads": "List conversations, threads and messages with their ids.",
    "start": "Open a new thread with its first message.",
    "reply": "Reply to a message, as yourself.",
    "edit": "Replace a message's text; an edit of the model's message is a lesson.",
    "say": "Let the model answer a message in its thread.",
    "train": "Train the approved lessons now, or only say what that would do.",
    "status": "What the server and the trainer are doing.",
    "demo": "The main job, measured: corrections become durable behaviour.",
}
for _name, _help in _HELP.items():
    app.command(f"understudy.cli.{_name}:{_name}", name=_name, help=_help)

lessons = App(name="lessons", help="What is to be learned: list, show, approve, reject.")
for _name, _help in {
    "list": "List lessons, newest last.",
    "show": "Show one lesson: context, what the model said, what it should say, and its history.",
    "approve": "Approve lessons: they will be trained.",
    "reject": "Refuse lessons: they will never be trained.",
}.items():
    lessons.command(f"understudy.cli.lessons:{_name}_lessons", name=_name, help=_help)
app.command(lessons)

weights = App(name="weights", help="The weights' history: log, restore.")
for _name, _help in {
    "log": "List the weight commits, newest last.",
    "restore": "Bring the weights back to a commit, bit for bit.",
}.items():
    weights.command(f"understudy.cli.weights:{_name}_weights", name=_name, help=_help)
app.command(weights)


def main() -> None:
    """Entry point of `understudy`. What a person did wrong is said in a line or two, without a traceback."""
    from understudy.cli.failures import explained

    with explained():
        sys.exit(app(result_action="return_int_as_exit_code_else_zero"))
