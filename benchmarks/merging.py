"""TIES on two models of one base: ours against mergekit 0.1.5, time and peak memory, in one run.

    python benchmarks/merging.py [--layers 8] [--hidden 768] [--rounds 3] [--dtype float32]

Each merge runs in a process of its own: its time is that of the merge call without imports, its memory the
growth of the process's largest resident set over what it had after the imports. The page cache is warm for
both. The results must agree bit for bit; among entries of equal magnitude mergekit keeps any, so entries
that differ are counted and told.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

OURS = """
from understudy.weights import merge, parse_recipe
recipe = parse_recipe(held)
def work():
    merge(recipe, output)
"""
THEIRS = """
import warnings
warnings.simplefilter("ignore")
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
recipe = MergeConfiguration.model_validate(held)
options = MergeOptions(quiet=True, copy_tokenizer=False, write_model_card=False)
def work():
    run_merge(recipe, str(output), options)
"""
AROUND = """
import json, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
held, output = json.loads(sys.argv[1]), Path(sys.argv[2])
{setup}
def status(field):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
began = time.perf_counter()
work()
print(json.dumps({{"seconds": time.perf_counter() - began, "mib": status("VmHWM") - before}}))
"""


def write_models(folder: Path, layers: int, hidden: int, dtype: torch.dtype) -> tuple[list[str], float]:
    """A random Llama and two neighbours of it; their paths and the size of one in MiB."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=hidden,
        intermediate_size=hidden * 3,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).to(dtype)
    paths = []
    for name in ("base", "first", "second"):
        if name != "base":
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += (1e-3 * torch.randn(parameter.shape)).to(dtype)
        model.save_pretrained(folder / name)
        paths.append(str(folder / name))
    return paths, sum(parameter.nbytes for parameter in model.parameters()) / 2**20


def one(setup: str, held: dict[str, Any], output: Path) -> dict[str, float]:
    script = AROUND.format(setup=setup)
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(held), str(output)],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--density", type=float, default=0.2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths, size = write_models(folder, given.layers, given.hidden, getattr(torch, given.dtype))
        own = {"weight": 1.0, "density": given.density}
        held = {
            "merge_method": "ties",
            "base_model": paths[0],
            "models": [{"model": path, "parameters": own} for path in paths[1:]],
            "dtype": given.dtype,
        }
        runs: dict[str, list[dict[str, float]]] = {"ours": [], "mergekit": []}
        for number in range(given.rounds):  # by turns, so that both see the same machine
            for which, setup in (("ours", OURS), ("mergekit", THEIRS)):
                runs[which].append(one(setup, held, folder / f"{which}-{number}"))
        differ, total = differing(folder / "ours-0", folder / "mergekit-0")
    print(f"two models of {size:.0f} MiB ({given.dtype}) and their base, one thread, {given.rounds} rounds")
    medians = {}
    for which, found in runs.items():
        medians[which] = [statistics.median(run[key] for run in found) for key in ("seconds", "mib")]
        print(f"{which:9} {medians[which][0]:7.2f} s  {medians[which][1]:7.0f} MiB beyond the bare process")
    print(
        f"ours over mergekit: time {medians['ours'][0] / medians['mergekit'][0]:.2f}, "
        f"memory {medians['ours'][1] / medians['mergekit'][1]:.2f}"
    )
    print(f"entries that differ: {differ} of {total}")


def differing(first: Path, second: Path) -> tuple[int, int]:
    """How many entries of two model directories differ, and how many there are."""
    ours, theirs = (
        {n: t for f in d.glob("*.safetensors") for n, t in load_file(f).items()} for d in (first, second)
    )
    if ours.keys() != theirs.keys():
        raise RuntimeError("expected the same tensors from both")
    return sum(int((ours[n] != theirs[n]).sum()) for n in ours), sum(t.numel() for t in ours.values())


if __name__ == "__main__":
    main()
