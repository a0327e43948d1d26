"""The losses against references in float64, and batches that are hard to learn from."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")

from spicula.core.errors import InputError  # noqa: E402

pytestmark = pytest.mark.usefixtures("torch_seeded")


def unit(count: int, width: int = 6):
    return torch.nn.functional.normalize(torch.randn(count, width, dtype=torch.float64), dim=1)


def reference_contrastive(image, text, scale, smoothing: float, targets=None) -> float:
    """Written out with numpy, a nodule at a time."""
    image, text = image.numpy(), text.numpy()
    count = len(image)
    similarity = np.exp(float(scale)) * image @ text.T
    goal = np.eye(count) if targets is None else targets.double().numpy()
    total = 0.0
    for table, wanted in ((similarity, goal), (similarity.T, goal.T)):
        for row, share in zip(table, wanted, strict=True):
            log_p = row - np.log(np.exp(row).sum())
            total -= float(((1 - smoothing) * share + smoothing / count) @ log_p)
    return total / (2 * count)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_contrastive_loss_equals_its_formula_and_torchs(smoothing) -> None:
    from spicula.networks.clip_losses import contrastive_loss

    image, text, scale = unit(5), unit(5), torch.tensor(2.0, dtype=torch.float64)
    found = float(contrastive_loss(image, text, scale, smoothing=smoothing))
    assert found == pytest.approx(reference_contrastive(image, text, scale, smoothing), rel=1e-12)
    logits, own = scale.exp() * image @ text.T, torch.arange(5)
    cross_entropy = torch.nn.functional.cross_entropy
    both = cross_entropy(logits, own, label_smoothing=smoothing) + cross_entropy(
        logits.T, own, label_smoothing=smoothing
    )
    assert found == pytest.approx(float(both) / 2, rel=1e-12)


def test_nodules_with_equal_texts_share_their_targets() -> None:
    from spicula.networks.clip_losses import contrastive_loss, equal_text_targets

    tokens = torch.tensor([[1, 2], [3, 4], [1, 2], [1, 5]])
    targets = equal_text_targets(tokens)
    torch.testing.assert_close(targets[0], torch.tensor([0.5, 0.0, 0.5, 0.0]))
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(4))
    assert torch.equal(targets, targets.T)
    image, text, scale = unit(4), unit(4), torch.tensor(1.0, dtype=torch.float64)
    found = float(contrastive_loss(image, text, scale, targets=targets))
    assert found == pytest.approx(reference_contrastive(image, text, scale, 0.0, targets), rel=1e-12)
    plain = contrastive_loss(image, text, scale, targets=equal_text_targets(torch.arange(8).reshape(4, 2)))
    assert float(plain) == pytest.approx(float(contrastive_loss(image, text, scale)), rel=1e-12)


def test_weighted_cross_entropy_equals_torchs_and_leaves_out_unknown_labels() -> None:
    from spicula.networks.clip_losses import weighted_cross_entropy

    logits = torch.randn(6, 2, dtype=torch.float64)
    labels = torch.tensor([0, 1, -1, 1, 0, -1])
    weights = torch.tensor([0.6, 3.0], dtype=torch.float64)
    expected = torch.nn.functional.cross_entropy(logits, labels, weight=weights, ignore_index=-1)
    torch.testing.assert_close(weighted_cross_entropy(logits, labels, weights=weights), expected)
    torch.testing.assert_close(
        weighted_cross_entropy(logits, labels), torch.nn.functional.cross_entropy(logits, labels, ignore_index=-1)
    )
    with pytest.raises(InputError, match="labels"):
        weighted_cross_entropy(logits, labels + 2)


def test_class_weights_make_both_classes_count_alike() -> None:
    from spicula.networks.clip_losses import class_weights

    labels = torch.tensor([0, 0, 0, 1, -1])
    weights = class_weights(labels)
    torch.testing.assert_close(weights, torch.tensor([4 / 6, 2.0]))
    assert float(weights[0]) * 3 == pytest.approx(float(weights[1]) * 1)
    with pytest.raises(InputError, match="0 malignant nodules, expected both classes"):
        class_weights(torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1], [-1, -1, -1], [1, -1, -1]])
def test_a_batch_of_one_class_or_none_has_a_finite_loss_and_gradient(small_network, words, labels) -> None:
    from spicula.networks.clip_losses import class_weights, clip_losses, require_finite

    image, text = small_network(torch.randn(3, 9, 3, 32, 32), words(3))
    losses = clip_losses(
        image, text, labels=torch.tensor(labels), logit_scale=small_network.logit_scale,
        by_class=class_weights(torch.tensor([0, 0, 0, 1])),
    )  # fmt: skip
    require_finite(losses, ["a", "b", "c"])
    losses.total.backward()
    gradients = [parameter.grad for parameter in small_network.parameters() if parameter.grad is not None]
    assert gradients
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    if max(labels) < 0:
        assert float(losses.image.detach()) == 0.0


def test_a_batch_of_one_nodule_has_nothing_to_tell_apart() -> None:
    from spicula.networks.clip_losses import contrastive_loss

    assert float(contrastive_loss(unit(1), unit(1), torch.tensor(3.0), smoothing=0.1)) == 0.0


def test_mixed_precision_does_not_reach_the_losses(small_network, words) -> None:
    from spicula.networks.clip_losses import clip_losses

    planes, tokens, labels = torch.randn(3, 9, 3, 32, 32), words(3), torch.tensor([0, 1, 1])
    with torch.no_grad():
        image, text = small_network(planes, tokens)
        plain = clip_losses(image, text, labels=labels, logit_scale=small_network.logit_scale)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = clip_losses(image, text, labels=labels, logit_scale=small_network.logit_scale)
            image, text = small_network(planes, tokens)
            whole = clip_losses(image, text, labels=labels, logit_scale=small_network.logit_scale)
    assert torch.equal(mixed.total, plain.total)
    assert whole.total.dtype == torch.float32
    torch.testing.assert_close(whole.total, plain.total, atol=0.05, rtol=0.05)


def test_parts_are_weighted_as_the_paper_or_as_the_code(small_network, words) -> None:
    from spicula.networks.clip_losses import CODE_WEIGHTS, clip_losses

    with torch.no_grad():
        image, text = small_network(torch.randn(3, 9, 3, 32, 32), words(3))
        scale, labels = small_network.logit_scale, torch.tensor([0, 1, 1])
        paper = clip_losses(image, text, labels=labels, logit_scale=scale)
        code = clip_losses(image, text, labels=labels, logit_scale=scale, weights=CODE_WEIGHTS)
    torch.testing.assert_close(paper.total, paper.contrastive + paper.image + paper.text)
    torch.testing.assert_close(code.total, code.contrastive + (code.image + code.text) / 2)


def test_a_loss_that_is_no_number_stops_and_names_the_batch() -> None:
    from spicula.networks.clip_losses import Losses, require_finite

    zero, bad = torch.tensor(0.5), torch.tensor(float("nan"))
    require_finite(zero, ["n1"])
    with pytest.raises(
        InputError, match=r"batch n1, n2: got total nan, .*image nan, text 0.5, expected finite numbers"
    ):
        require_finite(Losses(bad, zero, bad, zero), ["n1", "n2"])
    with pytest.raises(InputError, match="inf"):
        require_finite(torch.tensor(float("inf")), ["n1"])


def test_shapes_that_do_not_fit_are_refused() -> None:
    from spicula.networks.clip_losses import contrastive_loss

    with pytest.raises(InputError, match="text embeddings"):
        contrastive_loss(unit(3), unit(2), torch.tensor(1.0))
    with pytest.raises(InputError, match="targets"):
        contrastive_loss(unit(3), unit(3), torch.tensor(1.0), targets=torch.eye(2))


def reference_loss(network, planes, tokens, labels, by_class, smoothing: float):
    """The whole loss in another way: a plane and a nodule at a time, log-sum-exp by hand."""
    images, texts, logits = [], [], {"image": [], "text": []}
    for nodule, words in zip(planes, tokens, strict=True):
        projected = [network.image_projection.projector(network.vision_model(plane[None]))[0] for plane in nodule]
        scores = torch.stack([network.image_projection.attention(part)[0] for part in projected])
        shares = scores.exp() / scores.exp().sum()
        pooled = sum(share * part for share, part in zip(shares, projected, strict=True))
        images.append(pooled / pooled.square().sum().sqrt())
        said = network.semantic_projection(network.text_model(words[None]))[0]
        texts.append(said / said.square().sum().sqrt())
        logits["image"].append(network.classifier_image(images[-1]))
        logits["text"].append(network.classifier_text(texts[-1]))
    count, scale = len(images), network.logit_scale.exp()
    loss = 0.0
    for one, other in ((images, texts), (texts, images)):
        for row in range(count):
            similarity = torch.stack([scale * (one[row] * vector).sum() for vector in other])
            log_p = similarity - similarity.exp().sum().log()
            loss = loss - ((1 - smoothing) * log_p[row] + smoothing * log_p.mean()) / (2 * count)
    for side in logits.values():
        parts = [by_class[y] * (z.exp().sum().log() - z[y]) for y, z in zip(labels.tolist(), side, strict=True)]
        loss = loss + sum(parts) / sum(by_class[y] for y in labels.tolist())
    return loss


def test_the_gradient_of_one_step_agrees_with_a_reference_in_float64(small_network, words) -> None:
    from spicula.networks.clip_losses import clip_losses

    network = small_network
    for parameter in network.parameters():
        parameter.data.add_(0.05 * torch.randn(parameter.shape))
    planes, tokens, labels = torch.randn(4, 9, 3, 32, 32), words(4), torch.tensor([0, 1, 1, 0])
    by_class = torch.tensor([0.7, 1.8])
    exact = copy.deepcopy(network).double()
    image, text = network(planes, tokens)
    loss = clip_losses(
        image, text, labels=labels, logit_scale=network.logit_scale, by_class=by_class, smoothing=0.1
    ).total
    loss.backward()
    expected = reference_loss(exact, planes.double(), tokens, labels, by_class.double(), 0.1)
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    size = max(float(parameter.grad.abs().max()) for parameter in exact.parameters())
    for (name, found), true in zip(network.named_parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(
            found.grad.double(), true.grad, atol=1e-5 * size, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}"
        )
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.1) for each in (network, exact)]
    for optimizer in optimizers:
        optimizer.step()
    for found, true in zip(network.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(found.data.double(), true.data, atol=1e-5, rtol=1e-4)


def test_the_reference_itself_agrees_with_differences(small_network, words) -> None:
    network = copy.deepcopy(small_network).double()
    planes, tokens, labels = torch.randn(2, 2, 3, 32, 32, dtype=torch.float64), words(2), torch.tensor([0, 1])
    by_class = torch.tensor([0.7, 1.8], dtype=torch.float64)
    reference_loss(network, planes, tokens, labels, by_class, 0.1).backward()
    for parameter in (
        network.logit_scale, network.vision_model.proj, network.image_projection.attention[0].weight,
        network.text_model.token_embedding.weight, network.classifier_text.bias,
    ):  # fmt: skip
        values, place = parameter.data.view(-1), int(parameter.grad.abs().argmax())
        sides = []
        for step in (1e-5, -2e-5):
            values[place] += step
            with torch.no_grad():
                sides.append(float(reference_loss(network, planes, tokens, labels, by_class, 0.1)))
        values[place] += 1e-5
        assert (sides[0] - sides[1]) / 2e-5 == pytest.approx(float(parameter.grad.view(-1)[place]), rel=1e-5, abs=1e-9)
