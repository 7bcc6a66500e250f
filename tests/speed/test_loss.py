"""The chunked loss is cross entropy, its gradients too."""

import pytest
import torch

from gpt2_korean.speed import loss


@pytest.mark.parametrize("chunk", [1, 700, 10**9])
def test_the_chunked_loss_is_cross_entropy(rng, monkeypatch, chunk):
    monkeypatch.setattr(loss, "CHUNK", chunk)
    for _ in range(5):
        batch, length, width, vocabulary = rng.randint(1, 4), rng.randint(2, 9), rng.randint(1, 20), rng.randint(2, 400)
        hidden = torch.randn(batch, length, width, requires_grad=True)
        weight = torch.randn(vocabulary, width, requires_grad=True)
        labels = torch.randint(0, vocabulary, (batch, length))
        labels[torch.rand(batch, length) < 0.2] = -100
        ours = loss.summed_loss(hidden, weight, labels) / 7
        found = torch.autograd.grad(ours, (hidden, weight))
        logits = (hidden[:, :-1] @ weight.T).flatten(0, 1)
        expected = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum") / 7
        torch.testing.assert_close(ours, expected)
        for ours, reference in zip(found, torch.autograd.grad(expected, (hidden, weight)), strict=True):
            torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-5)
