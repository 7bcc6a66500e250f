"""What a GPT-2 is that we know our way through: transformers' own GPT-2, and which of its variants."""

import pytest
from conftest import tiny_gpt2

from gpt2_korean.model import gpt2
from gpt2_korean.speed import linear


def test_no_torch_is_imported_to_know_a_gpt2(run_script):
    result = run_script("-c", "import sys; from gpt2_korean.model import gpt2; print('torch' in sys.modules)")
    assert result.stdout == "False\n", result.stderr


def test_every_activation_that_is_known_can_be_computed():
    assert set(gpt2.ACTIVATIONS) == set(linear.ACTIVATIONS)


@pytest.mark.parametrize(
    ("changes", "supported", "fast", "fused"),
    [
        ({}, True, True, True),
        ({"n_inner": 50, "activation_function": "gelu_fast"}, True, True, True),
        ({"activation_function": "relu"}, True, True, False),
        ({"activation_function": "silu"}, False, True, False),
        ({"scale_attn_by_inverse_layer_idx": True}, False, True, False),
        ({"scale_attn_weights": False}, False, True, False),
        ({"add_cross_attention": True}, False, False, False),
        ({"attn_implementation": "eager"}, True, False, False),
    ],
)
def test_who_knows_the_way_through_which_variant(changes, supported, fast, fused):
    model = tiny_gpt2(300, **changes)
    found = gpt2.is_supported(model.config.to_dict()), gpt2.can_be_fast(model), gpt2.can_be_fused(model)
    assert found == (supported, fast, fused)
    assert not gpt2.can_be_fast(model.transformer)  # without a head it predicts nothing


def test_a_config_of_something_else_is_no_gpt2():
    for config in ({}, {"model_type": "llama"}, {"model_type": "gpt2"}):
        assert not gpt2.is_supported(config)


def test_the_context_is_the_same_however_the_config_is_given():
    config = tiny_gpt2(300, n_positions=48).config
    assert gpt2.context_length(config) == gpt2.context_length(config.to_dict()) == 48


def test_the_shapes_are_those_of_transformers_model():
    for changes in ({}, {"n_inner": 50}):
        model = tiny_gpt2(300, **changes)
        theirs = {name.removeprefix("transformer."): tuple(each.shape) for name, each in model.state_dict().items()}
        del theirs["lm_head.weight"]
        assert gpt2.weight_shapes(model.config.to_dict()) == theirs
