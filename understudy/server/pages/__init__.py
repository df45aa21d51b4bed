"""The pages: talk, correct, watch it learn. Server-rendered; a small script makes them live."""

from understudy.server.pages.doorkeeper import WorkspaceDoorkeeper
from understudy.server.pages.routes import page_routes
from understudy.server.pages.site import Site, open_site

__all__ = ["Site", "WorkspaceDoorkeeper", "open_site", "page_routes"]
