"""CLIP as OpenAI published it, under the published key names (needs torch).

References:
    Radford et al. 2021, arXiv 2103.00020. Attention runs through ``scaled_dot_product_attention``; a text is read
    at its first end token, which has the highest id: the published code looks for that.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from spicula.core.errors import InputError
from spicula.networks.clip_names import name_flatly

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
END_TOKEN = 49407
"""Of the published vocabulary of 49,408 tokens."""


class QuickGELU(nn.Module):  # type: ignore[misc, unused-ignore]
    """``x * sigmoid(1.702 x)``, as the published weights were trained."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply it to each element."""
        return x * torch.sigmoid(1.702 * x)


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, heads: int, causal: bool, keep: torch.Tensor | None
) -> torch.Tensor:
    q, k, v = (x.unflatten(-1, (heads, x.shape[-1] // heads)).transpose(1, 2) for x in (q, k, v))
    seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=keep, is_causal=causal)
    return seen.transpose(1, 2).flatten(2)


class Attention(nn.Module):  # type: ignore[misc, unused-ignore]
    """Self-attention with q, k and v packed in one matrix, as published.

    Args:
        width: Features.
        heads: They divide the features.
        causal: Whether a token sees only those before it.
    """

    def __init__(self, width: int, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.normal_(self.in_proj_weight, std=width**-0.5)

    def forward(self, x: torch.Tensor, keep: torch.Tensor | None = None, *, first: bool = False) -> torch.Tensor:
        """``[n, tokens, width]`` to the same shape; ``keep`` (bool, broadcast to ``[n, heads, t, t]``) may be seen.

        With ``first`` only the first token asks: ``[n, 1, width]``.
        """
        if first:
            width = x.shape[-1]
            q = functional.linear(x[:, :1], self.in_proj_weight[:width], self.in_proj_bias[:width])
            k, v = functional.linear(x, self.in_proj_weight[width:], self.in_proj_bias[width:]).chunk(2, dim=-1)
        else:
            q, k, v = functional.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        seen: torch.Tensor = self.out_proj(_attend(q, k, v, heads=self.heads, causal=self.causal, keep=keep))
        return seen


class SplitAttention(nn.Module):  # type: ignore[misc, unused-ignore]
    """The same with q, k and v apart (``q_proj``, ``k_proj``, ``v_proj``, ``proj``), so that each can take an adapter.

    Args:
        packed: Whose weights are copied.
    """

    def __init__(self, packed: Attention) -> None:
        super().__init__()
        self.heads, self.causal = packed.heads, packed.causal
        width = packed.in_proj_weight.shape[1]
        weights = packed.in_proj_weight.detach().chunk(3)
        biases = packed.in_proj_bias.detach().chunk(3)
        for name, weight, bias in zip(("q_proj", "k_proj", "v_proj"), weights, biases, strict=True):
            linear = nn.Linear(width, width, device="meta")
            linear.weight, linear.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
            self.add_module(name, linear)
        self.proj = packed.out_proj

    def forward(self, x: torch.Tensor, keep: torch.Tensor | None = None, *, first: bool = False) -> torch.Tensor:
        """As :meth:`Attention.forward`."""
        q, k, v = self.q_proj(x[:, :1] if first else x), self.k_proj(x), self.v_proj(x)
        seen: torch.Tensor = self.proj(_attend(q, k, v, heads=self.heads, causal=self.causal, keep=keep))
        return seen


class Block(nn.Module):  # type: ignore[misc, unused-ignore]
    """One residual block of attention and a two-layer perceptron, each after a layer norm.

    Args:
        width: Features.
        heads: Of the attention.
        layers: How many blocks the tower has, for the scale of the first weights.
        causal: Whether a token sees only those before it.
        dropout: Of what each half adds, in training; the published towers have none.
    """

    def __init__(self, width: int, heads: int, layers: int, *, causal: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.attn = Attention(width, heads, causal=causal)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("gelu", QuickGELU())
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))
        self.ln_2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.mlp.c_fc.weight, std=(2 * width) ** -0.5)
        for last in (self.attn.out_proj, self.mlp.c_proj):
            nn.init.normal_(last.weight, std=(2 * layers * width) ** -0.5)

    def forward(self, x: torch.Tensor, keep: torch.Tensor | None = None, *, first: bool = False) -> torch.Tensor:
        """``[n, tokens, width]`` to the same shape; with ``first`` the first token alone, ``[n, 1, width]``."""
        x = (x[:, :1] if first else x) + self.dropout(self.attn(self.ln_1(x), keep, first=first))
        return x + self.dropout(self.mlp(self.ln_2(x)))


class Transformer(nn.Module):  # type: ignore[misc, unused-ignore]
    """A row of blocks.

    Args:
        width: Features.
        layers: Number of blocks.
        heads: Of each attention.
        causal: Whether a token sees only those before it.
        dropout: As in :class:`Block`.
    """

    def __init__(self, width: int, layers: int, heads: int, *, causal: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(
            [Block(width, heads, layers, causal=causal, dropout=dropout) for _ in range(layers)]
        )

    def forward(self, x: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        """``[n, tokens, width]`` to the same shape."""
        for block in self.resblocks:
            x = block(x, keep)
        return x

    def first(self, x: torch.Tensor) -> torch.Tensor:
        """What :meth:`forward` makes of the first token: ``[n, width]``.

        The last block computes it for that token alone, which saves four fifths of that block.
        """
        *others, last = self.resblocks
        for block in others:
            x = block(x)
        return last(x, first=True)[:, 0]  # type: ignore[no-any-return, unused-ignore]


class ClipVision(nn.Module):  # type: ignore[misc, unused-ignore]
    """The image tower: a vision transformer.

    Args:
        image_size: Pixels a side.
        patch_size: Pixels a side of a patch.
        width: Features.
        layers: Number of blocks.
        heads: Of each attention.
        output_dim: Length of an embedding.
    """

    channels = 3

    def __init__(
        self,
        *,
        image_size: int = 224,
        patch_size: int = 32,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        output_dim: int = 512,
    ) -> None:
        super().__init__()
        self.image_size, self.output_dim = image_size, output_dim
        scale = width**-0.5
        self.conv1 = nn.Conv2d(3, width, patch_size, stride=patch_size, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn((image_size // patch_size) ** 2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, layers, heads)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, output_dim))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """``[n, 3, image_size, image_size]``, normalized by :func:`clip_pixels`, to ``[n, output_dim]``."""
        if images.shape[1:] != (3, self.image_size, self.image_size):
            raise InputError(
                "images", got=tuple(images.shape), expected=f"[n, 3, {self.image_size}, {self.image_size}]",
                hint="clip_pixels makes them of gray planes",
            )  # fmt: skip
        patches = self.conv1(images).flatten(2).transpose(1, 2)
        start = self.class_embedding.expand(patches.shape[0], 1, -1)
        x = self.ln_pre(torch.cat([start, patches], dim=1) + self.positional_embedding)
        return self.ln_post(self.transformer.first(x)) @ self.proj


class ClipText(nn.Module):  # type: ignore[misc, unused-ignore]
    """The text tower: a causal transformer, read at the end token.

    Args:
        vocabulary: Number of tokens.
        context: Tokens of a text.
        width: Features.
        layers: Number of blocks.
        heads: Of each attention.
        output_dim: Length of an embedding.
        end_token: Id of the token that ends a text.
    """

    def __init__(
        self,
        *,
        vocabulary: int = 49408,
        context: int = 77,
        width: int = 512,
        layers: int = 12,
        heads: int = 8,
        output_dim: int = 512,
        end_token: int = END_TOKEN,
    ) -> None:
        super().__init__()
        self.context, self.output_dim, self.end_token = context, output_dim, end_token
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(context, width))
        self.transformer = Transformer(width, layers, heads, causal=True)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(width**-0.5 * torch.randn(width, output_dim))
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Token ids ``[n, context]`` to ``[n, output_dim]``."""
        x = self.ln_final(self.transformer(self.token_embedding(tokens) + self.positional_embedding))
        return at_end(x, tokens, self.end_token) @ self.text_projection


def at_end(x: torch.Tensor, tokens: torch.Tensor, end_token: int) -> torch.Tensor:
    """The features ``[n, width]`` at each text's first end token, of ``[n, tokens, width]``."""
    place = (tokens == end_token).int().argmax(dim=-1)
    return x.gather(1, place[:, None, None].expand(-1, 1, x.shape[-1]))[:, 0]


class Clip(nn.Module):  # type: ignore[misc, unused-ignore]
    """Both towers under OpenAI's key names (``visual.*``, the text tower's without a prefix, ``logit_scale``).

    CLIP_nodule's ``vision_model.*`` is read as ``visual.*``.

    Args:
        vision: Maps images to embeddings.
        text: Maps tokens to embeddings of the same length.
    """

    def __init__(self, vision: nn.Module, text: nn.Module) -> None:
        super().__init__()
        self.visual, self.text_model = vision, text
        self.logit_scale = nn.Parameter(torch.tensor(2.6592600369))  # ln(1 / 0.07)
        name_flatly(self, vision="visual", other="vision_model")

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        """``[n, 3, side, side]`` to ``[n, d]``, not normalized."""
        return self.visual(images)

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[n, context]`` to ``[n, d]``, not normalized."""
        return self.text_model(tokens)

    def forward(self, images: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Scaled cosine similarities ``[images, texts]``."""
        image = functional.normalize(self.encode_image(images), dim=-1)
        text = functional.normalize(self.encode_text(tokens), dim=-1)
        return self.logit_scale.exp() * image @ text.T


def clip_vit_b32() -> Clip:
    """CLIP ViT-B/32 with random weights, 151,277,313 parameters."""
    return Clip(ClipVision(), ClipText())


def clip_pixels(planes: torch.Tensor) -> torch.Tensor:
    """Gray planes ``[n, side, side]``, 0 to 1, as the published tower takes them: ``[n, 3, side, side]``."""
    mean, std = (planes.new_tensor(x)[:, None, None] for x in (MEAN, STD))
    return (planes[:, None] - mean) / std
