"""A compiler that starts anew with every test."""

import pytest
import torch


@pytest.fixture(autouse=True)
def forget_what_was_compiled():
    """A function is compiled for a few shapes at most, of all tests together; then it runs as it is."""
    yield
    torch.compiler.reset()
