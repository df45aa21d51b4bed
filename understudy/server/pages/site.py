"""What the pages share: one workspace with its engine and trainer, who is who, and what is new."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from understudy.access import Accounts
from understudy.conversation import ConversationRepository, Index
from understudy.lessons import Ledger
from understudy.server.pages.board import Board
from understudy.server.pages.message_views import MessageViews
from understudy.server.pages.origins import Origins
from understudy.server.speaking import Answers
from understudy.server.speeches import Speeches
from understudy.server.training import TrainingService
from understudy.workspace import Workspace

if TYPE_CHECKING:
    from understudy.engine import Engine


@dataclass(frozen=True)
class Site:
    """All that an endpoint can ask for; it finds it as `request.app.state.site`."""

    workspace: Workspace
    engine: "Engine"
    service: TrainingService
    accounts: Accounts
    repository: ConversationRepository
    """One for all requests: it remembers what it parsed."""
    answers: Answers
    origins: Origins
    views: MessageViews
    board: Board

    @cached_property
    def index(self) -> Index:
        """Search, what is new, and where moved messages stand."""
        return Index(self.repository)

    @cached_property
    def ledger(self) -> Ledger:
        """The lessons."""
        return self.workspace.ledger

    @property
    def model_name(self) -> str:
        """The participant that is the model."""
        return self.workspace.settings.model.name


def open_site(workspace: Workspace, engine: "Engine", service: TrainingService) -> Site:
    """The site of a workspace that is being served. Call it in the process that serves, once."""
    repository = workspace.repository
    answers = Answers(workspace, repository, Speeches(engine))
    origins, views = Origins(repository), MessageViews(workspace.settings.model.name)
    board = Board(repository, origins, views, answers.speeches)
    accounts = Accounts(workspace.root, workspace.settings.access)
    return Site(workspace, engine, service, accounts, repository, answers, origins, views, board)
