"""From documents to rows of token ids, each token with its weight in the loss."""

from collections.abc import Iterable, Iterator
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from understudy.pocket.corpus import END, END_OF_TEXT, START, Document
from understudy.pocket.recipe import Recipe

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], size: int, longest_context: int) -> Any:
    """A byte-level BPE tokenizer with the chat template, as a `PreTrainedTokenizerFast`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END_OF_TEXT, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[START],
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
        model_max_length=longest_context,
        padding_side="left",
    )


def weigh(tokenizer: Any, document: Document, recipe: Recipe) -> tuple[list[int], list[float]]:
    """Token ids of a document and the weight of each in the loss.

    A message is encoded apart from its header; the pre-tokenizer splits there anyway, so the ids are
    those of the whole text.
    """

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    if not document.messages:
        ids = encode(document.story + END_OF_TEXT)
        return ids, [recipe.story_weight] * len(ids)
    ids, weights = [], []
    for message in document.messages:
        own = recipe.assistant_weight if message.role == "assistant" else recipe.person_weight
        for text, weight in (
            (f"{START}{message.role}\n", recipe.person_weight),
            (message.content + END, own),
            ("\n", recipe.person_weight),
        ):
            part = encode(text)
            ids += part
            weights += [weight] * len(part)
    return [*ids, *encode(END_OF_TEXT)], [*weights, recipe.person_weight]


def rows(
    tokenizer: Any, supply: Iterator[Document], recipe: Recipe
) -> Iterator[tuple[list[int], list[float]]]:
    """Rows of tokens and weights. Each begins with a document, as a prompt does; the last one is cropped."""
    ids: list[int] = []
    weights: list[float] = []
    for document in supply:
        own_ids, own_weights = weigh(tokenizer, document, recipe)
        ids += own_ids
        weights += own_weights
        if len(ids) > recipe.tokens_per_row:
            yield ids[: recipe.tokens_per_row + 1], weights[: recipe.tokens_per_row + 1]
            ids, weights = [], []
