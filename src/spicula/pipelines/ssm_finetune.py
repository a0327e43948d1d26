"""A transformer tuned end to end for malignancy, from pretrained or from random weights (needs torch).

The same training from random weights is the supervised network that self-supervision is compared with.

References:
    Noreen and Shaukat 2025, arXiv 2505.15120, its check "end-to-end fine-tuned transformer"; Bao et al. 2022, arXiv
    2106.08254 (rates that fall from block to block).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicula.core.extras import require
from spicula.networks.checkpoint import cosine_rate
from spicula.pipelines.slice_table import SliceTable
from spicula.pipelines.ssm_features import Rows, middle_slices
from spicula.pretraining.ct_views import ViewRecipe

Scores = NDArray[np.float64]

VIEWS = ViewRecipe(
    global_pixels=70, locals=0, global_area=(0.385, 0.395), aspect=(0.97, 1.03), shift=0.2, flip_up_down=True,
    turn=True, blur=(0.3, 0.3, 0.0), blur_pixels=(0.1, 1.0),
)  # fmt: skip
"""What a slice is seen as while it is learned from: the pixel of use, turned, shifted, in a moving window."""


@dataclass(frozen=True, slots=True)
class TuningRecipe:
    """How a transformer is tuned.

    Args:
        steps: Batches.
        batch: Slices of a batch; each is seen twice.
        rate: Learning rate of the head and the last block.
        layer_decay: Factor of the rate from each block to the one before.
        decay: Weight decay of matrices.
        drop: Stochastic depth.
        views: How slices are disturbed.
        seed: Of all chance.
    """

    steps: int = 400
    batch: int = 16
    rate: float = 5e-4
    layer_decay: float = 0.75
    decay: float = 0.05
    drop: float = 0.1
    views: ViewRecipe = VIEWS
    seed: int = 0


def tuning_recipe(steps: int, *, scratch: bool, seed: int = 0) -> TuningRecipe:
    """All blocks alike from random weights; else the earlier ones, which know something already, more slowly."""
    return TuningRecipe(steps=steps, layer_decay=1.0 if scratch else 0.75, seed=seed)


def tuned_scores(
    backbone: Any, table: SliceTable, learn: Rows, labels: Mapping[int, bool], judge: Rows, recipe: TuningRecipe
) -> Scores:
    """Tune a copy of a transformer on some slices and tell the malignancy of others.

    Args:
        backbone: A :class:`spicula.networks.vit.VisionTransformer`, pretrained or not; it stays as it is.
        table: Slices.
        learn: Rows to learn from.
        labels: Whether the nodule of each of these rows is malignant.
        judge: Rows to be told, of other patients.
        recipe: How.

    Returns:
        Logits ``[judge]``.

    Raises:
        InputError: The loss is no longer finite.
    """
    torch = require("torch", extra="train")
    from spicula.networks.clip_losses import require_finite
    from spicula.networks.vit import VisionTransformer
    from spicula.pretraining.ct_views import make_views, undisturbed

    torch.manual_seed(recipe.seed)
    network = VisionTransformer(backbone.shape, drop=recipe.drop)
    network.load_state_dict(backbone.state_dict())
    head = torch.nn.Linear(backbone.shape.width, 1)
    torch.nn.init.zeros_(head.weight)
    truth = np.array([labels[int(row)] for row in learn], dtype=np.float32)
    share = float(np.clip(truth.mean(), 0.02, 0.98))
    torch.nn.init.constant_(head.bias, float(np.log(share / (1 - share))))
    groups = _groups(network, head, recipe)
    optimizer = torch.optim.AdamW(groups, lr=0.0)
    rng = np.random.default_rng(recipe.seed)
    order = np.concatenate([rng.permutation(len(learn)) for _ in range(-(-recipe.steps * recipe.batch // len(learn)))])
    network.train()
    for step in range(recipe.steps):
        some = order[step * recipe.batch : (step + 1) * recipe.batch]
        hu, near = (torch.from_numpy(values) for values in table.read(learn[some]))
        images, _ = make_views(hu, near, recipe.views, rng)
        target = torch.from_numpy(np.tile(truth[some], 2))
        said = head(network(images).cls)[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(said, target)
        require_finite(loss, [f"step {step}"])
        rate = cosine_rate(step, recipe.steps, rate=recipe.rate)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 3.0)
        optimizer.step()
    network.eval()
    scores = []
    with torch.inference_mode():
        for at in range(0, len(judge), 64):
            hu = torch.from_numpy(middle_slices(table, judge[at : at + 64], side=recipe.views.global_pixels))
            scores.append(head(network(undisturbed(hu)).cls)[:, 0].double().numpy())
    return np.concatenate(scores)


def _groups(network: Any, head: Any, recipe: TuningRecipe) -> list[dict[str, Any]]:
    """Parameters by the factor of their rate and by whether they decay."""
    depth = network.shape.depth
    groups: dict[tuple[float, float], list[Any]] = {}
    for name, parameter in [*network.named_parameters(), *head.named_parameters()]:
        block = name.split(".")
        layer = int(block[1]) + 1 if block[0] == "blocks" else 0
        late = block[0] in ("norm", "weight", "bias")
        factor = 1.0 if late else recipe.layer_decay ** (depth - layer)
        groups.setdefault((factor, recipe.decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    return [{"params": some, "factor": factor, "weight_decay": decay} for (factor, decay), some in groups.items()]
