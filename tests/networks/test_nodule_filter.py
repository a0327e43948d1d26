"""The detector's filter looks at both boxes, at every voxel."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="pip install 'spicula[train]'")


def test_one_logit_a_candidate_whatever_its_neighbors_in_the_batch() -> None:
    from spicula.networks.nodule_filter import NoduleFilter

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = NoduleFilter().eval()
    image = torch.rand(3, 2, 24, 24, 24)
    with torch.no_grad():
        logits = network(image)
        assert logits.shape == (3, 1)
        torch.testing.assert_close(network(image[1:2]), logits[1:2], atol=1e-5, rtol=1e-4)


def test_no_voxel_of_either_box_is_passed_over() -> None:
    from spicula.networks.nodule_filter import _tower

    torch.set_num_threads(1)
    torch.manual_seed(0)
    first = _tower((12, 16, 32, 64))[0]
    image = torch.rand(1, 1, 24, 24, 24, requires_grad=True)
    first(image).square().sum().backward()
    assert (image.grad.abs() > 0).all()
