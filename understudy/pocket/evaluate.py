"""Measure a pocket checkpoint: its behaviours, its perplexity on held-out dialogue.

`python -m understudy.pocket.evaluate DIR --split development`
"""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

from understudy.behaviours import Measurement, Split, measure
from understudy.lessons import ChatMessage
from understudy.pocket.questions import QUESTION_KINDS
from understudy.pocket.scenarios import QUESTIONS_OF_EACH_KIND, behaviours, dialogue

LONGEST_ANSWER = 40
PROMPTS_AT_ONCE = 128


def load(directory: Path, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """Model (ready to answer) and tokenizer of a checkpoint directory."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    return AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).eval(), tokenizer


@torch.no_grad()
def _answer_batch(model: Any, tokenizer: Any, prompts: Sequence[str], temperature: float) -> list[str]:
    inputs = tokenizer(
        list(prompts), return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
    )
    sampling = (
        {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    )
    made = model.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        max_new_tokens=LONGEST_ANSWER,
        **(sampling or {"do_sample": False}),
    )
    texts = tokenizer.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in texts]


def answerer(
    model: Any, tokenizer: Any, *, temperature: float = 0.0, seed: int = 0
) -> Callable[[Sequence[tuple[ChatMessage, ...]]], list[str]]:
    """A function that answers many prompts; at temperature 0 the likeliest token is taken.

    The same prompt gets the same answer wherever it stands in the list, so behaviours that share
    scenarios judge the same text.
    """

    def answer(prompts: Sequence[tuple[ChatMessage, ...]]) -> list[str]:
        torch.manual_seed(seed)
        texts = [
            tokenizer.apply_chat_template(
                [{"role": message.role, "content": message.content} for message in prompt],
                tokenize=False,
                add_generation_prompt=True,
            )
            for prompt in prompts
        ]
        distinct = sorted(set(texts), key=lambda text: (len(text), text))
        found: dict[str, str] = {}
        for start in range(0, len(distinct), PROMPTS_AT_ONCE):
            batch = distinct[start : start + PROMPTS_AT_ONCE]
            found.update(zip(batch, _answer_batch(model, tokenizer, batch, temperature), strict=True))
        return [found[text] for text in texts]

    return answer


@torch.no_grad()
def perplexity(model: Any, tokenizer: Any, texts: Sequence[str], at_once: int = 64) -> float:
    """exp of the mean next-token cross entropy over all tokens of `texts` but each one's first."""
    encoded = sorted((tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts), key=len)
    total, count = 0.0, 0
    for start in range(0, len(encoded), at_once):
        batch = encoded[start : start + at_once]
        longest = max(map(len, batch))
        ids = torch.tensor([row + [tokenizer.pad_token_id] * (longest - len(row)) for row in batch])
        wanted = torch.tensor([row + [-100] * (longest - len(row)) for row in batch])[:, 1:]
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        total += torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), wanted.reshape(-1), ignore_index=-100, reduction="sum"
        ).item()
        count += int((wanted != -100).sum())
    return math.exp(total / count)


def by_question_kind(measurement: Measurement) -> dict[str, float]:
    """The share of right answers for each kind of question."""
    verdicts = [verdict for _, _, verdict in measurement.answers]
    size = QUESTIONS_OF_EACH_KIND
    return {kind: sum(verdicts[n * size : (n + 1) * size]) / size for n, kind in enumerate(QUESTION_KINDS)}


def figures(model: Any, tokenizer: Any, split: Split, temperature: float = 0.0) -> dict[str, Any]:
    """Rates with 95 % intervals, questions by kind, perplexity: what a card holds."""
    found = measure(behaviours(split), answerer(model, tokenizer, temperature=temperature))
    rates = {
        name: {
            "successes": one.rate.successes,
            "n": one.rate.n,
            "rate": round(one.rate.value, 4),
            "interval": [round(end, 4) for end in one.rate.interval()],
        }
        for name, one in found.items()
    }
    return {
        "split": split,
        "temperature": temperature,
        "behaviours": rates,
        "questions_by_kind": {
            kind: round(v, 4) for kind, v in by_question_kind(found["answers_questions"]).items()
        },
        "perplexity": round(perplexity(model, tokenizer, dialogue(split)), 4),
    }


def _show(found: dict[str, Any]) -> Table:
    table = Table(title=f"{found['split']} split, temperature {found['temperature']}")
    for column in ("behaviour", "rate", "95 % interval", "n"):
        table.add_column(column)
    for name, one in found["behaviours"].items():
        low, high = one["interval"]
        table.add_row(name, f"{one['rate']:.2f}", f"{low:.2f} - {high:.2f}", str(one["n"]))
    for kind, share in found["questions_by_kind"].items():
        table.add_row(f"  question: {kind}", f"{share:.2f}", "", "")
    table.add_row("perplexity", f"{found['perplexity']:.3f}", "", "")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure a checkpoint directory and print the table."""
    parser = argparse.ArgumentParser(prog="python -m understudy.pocket.evaluate", description=main.__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--split", choices=["development", "test"], default="development")
    parser.add_argument("--temperature", type=float, default=0.0)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    model, tokenizer = load(given.directory)
    Console().print(_show(figures(model, tokenizer, given.split, given.temperature)))


if __name__ == "__main__":
    main()
