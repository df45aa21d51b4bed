"""Every page's address."""

from typing import Any

from starlette.routing import BaseRoute

from understudy.server.operations import ApiRoute, Operation
from understudy.server.pages import acting, asking, editors, forms, live, reading, static
from understudy.server.pages.access import access_routes
from understudy.server.pages.action_answers import AlternativesAnswer, Asked, Done, RevisionAnswer, Stopped
from understudy.server.pages.learn import learn_routes
from understudy.server.pages.model import model_routes
from understudy.server.pages.routing import ActionRoute, Endpoint, PageRoute

_REFUSALS = (404, 409, 429, 503)


def page_routes() -> list[BaseRoute]:
    """All routes of the pages, for an application whose state holds a `site`."""
    return [
        PageRoute("GET", "/", reading.show_list),
        PageRoute("GET", "/assets/{name}", static.send_asset),
        PageRoute("GET", "/live/{name:path}", live.follow_live),
        PageRoute("GET", "/m/{name:path}/{id}", reading.go_to_message),
        PageRoute("GET", "/talk/{name:path}", reading.show_conversation),
        PageRoute("GET", "/part/messages", reading.show_piece),
        PageRoute("GET", "/part/menu", reading.show_menu),
        PageRoute("GET", "/part/history", reading.show_history),
        PageRoute("GET", "/part/editor", editors.show_editor),
        PageRoute("POST", "/do/preview", editors.show_preview),
        PageRoute("POST", "/do/read", acting.mark_read),
        _action("start", acting.start_thread, forms.StartForm),
        _action("post", acting.post_message, forms.PostForm),
        _action("reply", acting.reply, forms.ReplyForm),
        _action("edit", acting.edit, forms.EditForm),
        _action("delete", acting.delete, forms.DeleteForm),
        _action("restore", acting.restore_message, forms.RestoreForm),
        _action("move", acting.move, forms.MoveForm),
        _action("split", acting.split, forms.SplitForm),
        _action("rename", acting.rename, forms.RenameForm),
        _action("ask", asking.ask, forms.MessageForm, Asked),
        _action("retry", asking.retry, forms.MessageForm, speaks=True),
        _action("stop", asking.stop, forms.StopForm, Stopped),
        _action("alternatives", asking.alternatives, forms.MessageForm, AlternativesAnswer, speaks=True),
        _action("revision", asking.revision, forms.MessageForm, RevisionAnswer, speaks=True),
        *access_routes(),
        *learn_routes(),
        *model_routes(),
    ]


def _action(
    name: str, endpoint: Endpoint, form: Any, answer: Any = Done, *, speaks: bool = False
) -> ApiRoute:
    refusals = (*_REFUSALS, 422) if speaks else _REFUSALS
    operation = Operation("conversations", {200: answer}, form=form, refusals=refusals)
    return ActionRoute(f"/do/{name}", endpoint, operation)
