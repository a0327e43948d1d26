"""Pretrain the compact text tower on made-up reports: what does the text say of each question? No patient is seen.

Without it "calcification" and "no calcification" lie side by side, for few nodules are calcified and most texts that
hold the word deny it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.extras import require
from spicula.datasets.lidc_nodules import TRAITS
from spicula.networks.checkpoint import (
    append_log,
    cosine_rate,
    descend,
    finished_weights,
    resume_checkpoint,
    save_checkpoint,
    save_weights,
    update_average,
)
from spicula.networks.clip_tokens import WordTokenizer
from spicula.pipelines.semantic_words import QUESTIONS, UNSAID, Statement, Wording, draw_statement

CLASSES = 5
"""Most classes of a question."""

CALCIFIED = 0.5
"""Share of the made-up ratings that say calcified."""


@dataclass(frozen=True, slots=True)
class TextRecipe:
    """How the text tower is pretrained.

    Args:
        steps: Batches.
        batch: Texts of a step.
        rate: Highest learning rate, after a warm-up; it falls as a cosine.
        decay: Weight decay.
        seed: Of all chance.
        threads: Threads of torch.
        checkpoint_every: Steps between checkpoints.
    """

    steps: int = 600
    batch: int = 64
    rate: float = 2e-3
    decay: float = 0.05
    seed: int = 0
    threads: int = 1
    checkpoint_every: int = 100


def made_up(rng: np.random.Generator) -> Statement:
    """A text of ratings that no reader gave."""
    ratings = {name: float(rng.integers(1, 6)) for name in TRAITS}
    ratings["calcification"] = float(rng.integers(1, 6)) if rng.random() < CALCIFIED else 6.0
    ratings["internal_structure"] = float(rng.integers(1, 5))
    wording = Wording(one_reader=0.0, nlst=0.5)
    return draw_statement(ratings, np.zeros((1, len(TRAITS)), np.int8), wording, rng)


def answers_of(statements: list[Statement]) -> NDArray[np.int64]:
    """What each text says, ``[n, questions]``: the class, or :data:`CLASSES` where it does not say."""
    said = np.stack([one.said for one in statements]).astype(np.int64)
    return np.where(said == UNSAID, CLASSES, said)


def pretrain_text(folder: Path, recipe: TextRecipe, *, make_text: Any, tokenizer: WordTokenizer) -> dict[str, Any]:
    """Pretrain the text tower, going on from its checkpoint if there is one.

    Args:
        folder: Where ``checkpoint.safetensors``, ``weights.safetensors`` and ``log.jsonl`` go.
        recipe: How.
        make_text: Makes the text tower with random weights.
        tokenizer: Its words.

    Returns:
        Weights of the tower by name (a running average).

    Raises:
        InputError: A loss was not finite; the checkpoint holds the last good state.
    """
    torch = require("torch", extra="train")
    from spicula.networks.clip_losses import require_finite
    from spicula.networks.text_answers import TextAnswers

    done = finished_weights(folder)
    if done is not None:
        return done
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    network = TextAnswers(make_text(), len(QUESTIONS), CLASSES + 1)
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    first = resume_checkpoint(folder, network, optimizer, average)
    started, total, right = time.perf_counter(), 0.0, 0.0
    for step in range(first, recipe.steps):
        torch.manual_seed(recipe.seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = cosine_rate(step, recipe.steps, rate=recipe.rate, warm_part=10)
        rng = np.random.default_rng((5, recipe.seed, step))
        statements = [made_up(rng) for _ in range(recipe.batch)]
        ids = torch.from_numpy(tokenizer.encode([one.text for one in statements]).ids)
        goal = torch.from_numpy(answers_of(statements))
        logits = network(ids)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), goal.flatten())
        require_finite(loss, [f"{step} of the made-up texts"])
        total += descend(loss, network, optimizer)
        update_average(average, network, step=step)
        right += float((logits.detach().argmax(dim=2) == goal).float().mean())
        if (step + 1) % recipe.checkpoint_every == 0 or step == recipe.steps - 1:
            count = (step % recipe.checkpoint_every) + 1
            seconds = round(time.perf_counter() - started, 2)
            facts = {"step": step, "loss": round(total / count, 5), "right": round(right / count, 5)}
            append_log(folder, facts | {"seconds": seconds})
            save_checkpoint(folder, step + 1, network, optimizer, average)
            started, total, right = time.perf_counter(), 0.0, 0.0
    tower = {name.removeprefix("text."): value for name, value in average.items() if name.startswith("text.")}
    save_weights(folder, tower)
    return tower
