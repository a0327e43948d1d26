"""How the network of images and words is trained: the compact recipe, the paper's, and the towers of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from spicula.core.errors import InputError
from spicula.core.extras import require
from spicula.networks.clip_tokens import WordTokenizer, clip_tokenizer, load_tokenizer
from spicula.pipelines.semantic_pretrain import PretrainRecipe
from spicula.pipelines.semantic_pretrain_text import TextRecipe
from spicula.pipelines.semantic_words import Wording, word_tokenizer

Config: TypeAlias = Literal["compact", "paper"]
Tuning: TypeAlias = Literal["lora", "ft", "probe"]
Modality: TypeAlias = Literal["clip", "vision"]

MERGES = ("bpe_simple_vocab_16e6.txt.gz", "merges.txt")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one fold's network is trained; the defaults are the compact recipe.

    Args:
        config: Which towers.
        tuning: Which of their weights train.
        modality: ``"vision"`` leaves the words out.
        epochs: At most.
        batch: Nodules of a step, on each device.
        rate: Highest learning rate.
        one_cycle: Whether it warms up and falls; else it stays.
        decay: Weight decay of matrices.
        kept: Share of the running average of the weights that a step keeps at most; 0 for none.
        patience: Epochs without a better loss on the validation patients before it stops; 0 for none, all are learned.
        width: Length of the shared embedding.
        temperature: First one.
        measures: Whether the network is told measures of the outline.
        spread: Whether the targets of InfoNCE are spread over all that the words fit.
        weights: Of the contrastive loss, the cross-entropies of image and text, and the traits.
        label_part: What is learned of malignancy, between the share of readers (0) and the label made of it (1).
        rarity: Power with which nodules of rare answers are drawn more often, see ``rarity`` of the words.
        wording: How texts are drawn.
        pretraining: How the image tower is pretrained on single slices, without the fold's patients; None for not.
        text_pretraining: How the text tower is pretrained on made-up texts, of no patient; None for not.
        networks: How many, of different seeds; their logits and probabilities are averaged.
        kernel_weight: Of a kernel machine on the measures beside the networks, in the logit of malignancy; 0 for none.
        shuffle_texts: Whether each nodule gets the words of another one: the proof that words matter.
        seed: Of all chance.
        threads: Threads of torch.
    """

    config: Config = "compact"
    tuning: Tuning = "ft"
    modality: Modality = "clip"
    epochs: int = 24
    batch: int = 32
    rate: float = 3e-3
    one_cycle: bool = True
    decay: float = 0.05
    kept: float = 0.99
    patience: int = 0
    width: int = 128
    temperature: float = 0.07
    measures: bool = True
    spread: bool = True
    weights: tuple[float, float, float, float] = (1.0, 1.0, 0.5, 4.0)
    label_part: float = 0.5
    rarity: float = 0.5
    wording: Wording = field(default_factory=Wording)
    pretraining: PretrainRecipe | None = field(default_factory=PretrainRecipe)
    text_pretraining: TextRecipe | None = field(default_factory=TextRecipe)
    networks: int = 2
    kernel_weight: float = 0.5
    shuffle_texts: bool = False
    seed: int = 0
    threads: int = 1

    @property
    def pretrained(self) -> bool:
        """Whether towers learn before they are aligned."""
        return self.pretraining is not None or self.text_pretraining is not None


def recipe_of(
    config: Config, *, tuning: Tuning | None = None, modality: Modality = "clip", shuffle_texts: bool = False,
    seed: int = 0, threads: int = 1,
) -> Recipe:  # fmt: skip
    """The recipe of a configuration.

    Args:
        config: ``"compact"``, or ``"paper"`` with the values of arXiv 2504.21344 where it names them.
        tuning: Fine-tuning in compact, LoRA in paper if omitted.
        modality: As in :class:`Recipe`; so the others.
        shuffle_texts: As above.
        seed: As above.
        threads: As above.

    Raises:
        InputError: Unknown names.
    """
    for what, name, known in (
        ("config", config, ("compact", "paper")),
        ("tuning", tuning or "ft", ("lora", "ft", "probe")),
        ("modality", modality, ("clip", "vision")),
    ):
        if name not in known:
            raise InputError(what, got=repr(name), expected=" or ".join(known))
    if config == "compact":
        return Recipe(tuning=tuning or "ft", modality=modality, shuffle_texts=shuffle_texts, seed=seed, threads=threads)
    return Recipe(
        config="paper", tuning=tuning or "lora", modality=modality, epochs=100, batch=16, rate=1e-4, one_cycle=False,
        decay=0.1, kept=0.0, patience=5, width=256, temperature=0.03, measures=False, spread=False,
        weights=(1.0, 1.0, 1.0, 0.0), label_part=1.0, rarity=1.0,
        wording=Wording(whole=1.0, one_reader=0.0, nlst=1.0), pretraining=None, text_pretraining=None, networks=1,
        kernel_weight=0.0, shuffle_texts=shuffle_texts, seed=seed, threads=threads,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Towers:
    """Where towers come from.

    Args:
        make: Makes a NoduleClip; seed torch before.
        tokenizer: Its words.
        image_size: Pixels of the published tower; None for planes as they are.
        identity: Says in ``run.json`` which they are.
    """

    make: Callable[[], Any]
    tokenizer: WordTokenizer
    image_size: int | None
    identity: str


def compact_towers(recipe: Recipe) -> Towers:
    """Small towers with random weights and a tokenizer of their own."""
    require("torch", extra="train")
    from spicula.networks.clip_compact import CompactText
    from spicula.networks.clip_outlined import OutlinedVision
    from spicula.networks.nodule_clip import NoduleClip

    words = word_tokenizer()

    def make() -> Any:
        text = CompactText(
            vocabulary=words.vocabulary, end_token=words.end_token, pad_token=words.pad_token, context=words.context,
            width=96, layers=2, output_dim=128,
        )  # fmt: skip
        return NoduleClip(OutlinedVision(output_dim=128), text, width=recipe.width, temperature=recipe.temperature)

    return Towers(make, words, None, "compact")


def published_towers(folder: Path, recipe: Recipe) -> Towers:
    """CLIP's towers from published weights, of the sizes that the weights have.

    Args:
        folder: A bundle of ``spicula bundle import openai-clip`` or a Hugging Face folder: one ``*.safetensors`` and
            ``tokenizer.json``, ``merges.txt`` or ``bpe_simple_vocab_16e6.txt.gz``.
        recipe: Temperature and width of the heads.

    Raises:
        InputError: A file is missing, or the weights are not those of a CLIP with a vision transformer.
    """
    require("torch", extra="train")
    safetensors = require("safetensors.torch", extra="train")
    from spicula.networks.clip import Clip, ClipText, ClipVision
    from spicula.networks.clip_names import hf_to_openai, load_strictly
    from spicula.networks.nodule_clip import NoduleClip

    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise InputError(
            f"{folder}", got=f"{len(files)} files *.safetensors", expected="one, with CLIP's weights",
            hint="spicula bundle import openai-clip makes such a folder",
        )  # fmt: skip
    state = safetensors.load_file(files[0])
    if "text_model.final_layer_norm.weight" in state:
        state = hf_to_openai(state)
    if "visual.conv1.weight" not in state or "token_embedding.weight" not in state:
        raise InputError(f"{files[0]}", got=f"keys such as {sorted(state)[:3]}", expected="CLIP ViT: visual.conv1 ...")
    words = _words_of(folder)
    patch = state["visual.conv1.weight"].shape
    grid = round((state["visual.positional_embedding"].shape[0] - 1) ** 0.5)
    vocabulary, width = state["token_embedding.weight"].shape
    output_dim = state["text_projection"].shape[1]

    def layers(tower: str) -> int:
        return len({name.split(".resblocks.")[1].split(".")[0] for name in state if name.startswith(tower)})

    def make() -> Any:
        vision = ClipVision(
            image_size=grid * patch[2], patch_size=patch[2], width=patch[0], layers=layers("visual.transformer."),
            heads=max(1, patch[0] // 64), output_dim=output_dim,
        )  # fmt: skip
        text = ClipText(
            vocabulary=vocabulary, context=words.context, width=width, layers=layers("transformer."),
            heads=max(1, width // 64), output_dim=output_dim, end_token=words.end_token,
        )  # fmt: skip
        clip = Clip(vision, text)
        load_strictly(clip, state, source=str(files[0]))
        return NoduleClip(clip.visual, clip.text_model, width=recipe.width, temperature=recipe.temperature)

    return Towers(make, words, grid * patch[2], _identity(files[0]))


def _words_of(folder: Path) -> WordTokenizer:
    merges = next((folder / name for name in MERGES if (folder / name).is_file()), None)
    if merges is not None:
        return clip_tokenizer(merges)
    if not (folder / "tokenizer.json").is_file():
        raise InputError(f"{folder}", got="no tokenizer", expected=f"{' or '.join(MERGES)}, or tokenizer.json")
    return load_tokenizer(folder)


def _identity(file: Path) -> str:
    import hashlib

    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
