"""`understudy people`: who takes part, and the links that let them in."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from understudy.cli.failures import CommandError
from understudy.cli.options import AuthorOption, JsonOption, WorkspaceOption, author_or_login

if TYPE_CHECKING:
    from understudy.access import Accounts
    from understudy.conversation import Participants
    from understudy.workspace import Workspace

RightsOption = Annotated[
    str, Parameter(help="What they may do, with commas between: read, post, moderate, teach, admin.")
]
DisplayOption = Annotated[str, Parameter(help="The name to show; NAME when not given.")]


def list_people(*, json: JsonOption = False, workspace: WorkspaceOption = Path()) -> None:
    """List who takes part, with their rights, signed-in browsers and API tokens."""
    from understudy.cli.tables import print_table
    from understudy.workspace import Workspace

    opened = Workspace.open(workspace)
    accounts, present = _accounts(opened), opened.repository.participants()
    rows = [
        {
            "name": one.name,
            "display": one.display,
            "kind": one.kind.value,
            "rights": sorted(one.rights),
            "sessions": len(accounts.sessions.of(one.name)),
            "tokens": len(accounts.tokens.of(one.name)),
        }
        for one in sorted(present.people.values(), key=lambda one: one.name)
    ]
    if json:
        from rich import print_json

        print_json(data=rows)
    elif present.unrestricted:
        print("nobody was invited yet: whoever is signed in may do everything")
    else:
        titles = ("name", "shown as", "kind", "rights", "browsers", "tokens")
        print_table(titles, [[_cell(value) for value in row.values()] for row in rows])


def invite_person(
    name: str,
    *,
    rights: RightsOption = "post",
    display: DisplayOption = "",
    author: AuthorOption = None,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Make NAME a participant, and print the link that lets them in once.

    The first invitation restricts the workspace: you become its admin, and from then on nobody takes part
    who was not invited. Without --as you are who came in by the first start's link.
    """
    from understudy.access import invite
    from understudy.conversation import Right, valid_name
    from understudy.workspace import Workspace

    opened = Workspace.open(workspace)
    model, known = opened.settings.model.name, {right.value: right for right in Right}
    words = [word.strip() for word in rights.split(",") if word.strip()]
    unknown = sorted(set(words) - set(known))
    if unknown:
        raise CommandError(f"--rights: expected some of {', '.join(known)}, got {unknown[0]!r}")
    given = [known[word] for word in words]
    accounts = _accounts(opened)
    inviter = _maker(accounts, author)

    def changed(present: "Participants") -> "Participants":
        return invite(present, inviter, name, display, given, model)

    accounts.change_people(opened.repository, inviter, changed)
    print(_link(opened, accounts, valid_name(name.strip()), inviter))


def link_person(name: str, *, author: AuthorOption = None, workspace: WorkspaceOption = Path()) -> None:
    """Print a link that signs NAME in once, for one who takes part already."""
    from understudy.conversation import Kind, valid_name
    from understudy.workspace import Workspace

    opened = Workspace.open(workspace)
    present, known = opened.repository.participants(), valid_name(name)
    person = present.get(known)
    if person is None and not (present.unrestricted and known != opened.settings.model.name):
        raise CommandError(f"expected one who takes part, got {name!r}: see `understudy people list`")
    if person is not None and person.kind is Kind.MODEL:
        raise CommandError(f"expected a person, {name!r} is a model")
    accounts = _accounts(opened)
    print(_link(opened, accounts, known, _maker(accounts, author)))


def revoke_person(name: str, *, workspace: WorkspaceOption = Path()) -> None:
    """End what can come in as NAME: browsers, links, API tokens, the login at GitHub.

    Their rights stay. To end those too, take NAME out of participants.toml, or remove them on the page.
    """
    from understudy.workspace import Workspace

    accounts = _accounts(Workspace.open(workspace))
    ended = (
        len(accounts.sessions.of(name)),
        len(accounts.links.open_ones(name)),
        len(accounts.tokens.of(name)),
    )
    accounts.forget(name)
    print(f"{name}: ended {ended[0]} browsers, {ended[1]} links, {ended[2]} tokens")


def _accounts(workspace: "Workspace") -> "Accounts":
    from understudy.access import Accounts

    return Accounts(workspace.root, workspace.settings.access)


def _maker(accounts: "Accounts", given: str | None) -> str:
    """Who invites: the owner by the name they chose on the pages, else as everywhere."""
    return given or accounts.links.owner() or author_or_login(None)


def _link(workspace: "Workspace", accounts: "Accounts", name: str, maker: str) -> str:
    """A new invitation's address, on the running server or where it will listen."""
    settings, address = workspace.settings, workspace.server()
    secret = accounts.links.make("invitation", name, maker, accounts.invitation_lasts)
    url = address.url if address else f"http://{settings.server.host}:{settings.server.port}"
    return accounts.join_url(secret, url)


def _cell(value: object) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
