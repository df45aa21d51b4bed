"""Scripts outside of the package as modules: examples and benchmarks that tests hold to their numbers."""

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]


def load_script(folder: str, name: str) -> ModuleType:
    """The script `folder/name.py` of the project, imported."""
    specification = importlib.util.spec_from_file_location(name, ROOT / folder / f"{name}.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module
