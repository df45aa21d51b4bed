"""The main job on the pocket model, played by real processes and measured."""

from understudy.demo.stage import DemoError
from understudy.demo.story import run_demo

__all__ = ["DemoError", "run_demo"]
