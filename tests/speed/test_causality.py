"""No token sees a later one, whatever the attention: another text after it leaves its loss as it was."""

import json

import pytest
import torch
from conftest import NO_DROPOUT, read_to_write, save_tiny_gpt2, tiny_gpt2
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from gpt2_korean.cli.train_options import parse_train_options
from gpt2_korean.model.load import load_pretrained
from gpt2_korean.speed.choose import speed_up
from gpt2_korean.text.blocks import Blocks
from gpt2_korean.training.arguments import build_arguments

CPU = torch.device("cpu")
LENGTH, PLACE = 24, 13  # of the text; where another begins


def attentions_here():
    """Those of transformers' attentions that a GPT-2 computes on this machine."""
    for name in ("eager", *sorted(ALL_ATTENTION_FUNCTIONS.valid_keys())):
        try:
            tiny_gpt2(300, attn_implementation=name.removeprefix("paged|"))(torch.ones(1, 4, dtype=torch.long))
        except (ImportError, ValueError, TypeError):  # a package that is not here, or one for another kind of cache
            continue
        yield name


@pytest.fixture(params=list(attentions_here()))
def attention(request):
    return request.param


@pytest.fixture(
    params=[
        {},
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"reorder_and_upcast_attn": True},
        {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True},
        {"activation_function": "relu"},
        {"activation_function": "silu"},
        {"n_inner": 50, "tie_word_embeddings": False},
    ],
    ids=lambda changes: "+".join(changes) or "plain",
)
def folder(request, attention, tmp_path, byte_tokenizer):
    """A GPT-2's folder whose config.json asks for this attention."""
    save_tiny_gpt2(tmp_path / "model", byte_tokenizer, **NO_DROPOUT, **request.param)
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "attn_implementation": attention}))
    return path.parent


@pytest.fixture
def texts(byte_tokenizer, rng):
    """Two texts, int64 [2, LENGTH], the same up to PLACE and other from there on."""
    first = [rng.randrange(len(byte_tokenizer)) for _ in range(LENGTH)]
    second = first[:PLACE] + [(token + 1) % len(byte_tokenizer) for token in first[PLACE:]]
    return torch.tensor([first, second])


@pytest.mark.parametrize("trains", [True, False])
def test_training_and_evaluation_do_not_see_the_future(folder, attention, texts, trains, tmp_path):
    model, _ = load_pretrained(folder, torch.float32)
    assert model.config._attn_implementation == attention.removeprefix("paged|")
    arguments = build_arguments({"output_dir": str(tmp_path), "report_to": "none"}, CPU, False, False)
    speed_up(
        model, arguments, parse_train_options(["--do_eval", "--dataset_path=x"]).machine, Blocks(None, None, LENGTH)
    )
    model.train(trains)
    labels = texts.where(torch.arange(LENGTH) < PLACE, -100)
    one, other = (model(input_ids=ids[None], labels=goals[None]).loss for ids, goals in zip(texts, labels, strict=True))
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    whole = [model(input_ids=ids[None], labels=ids[None]).loss for ids in texts]
    assert abs(whole[0] - whole[1]) > 1e-3  # the later tokens themselves do count


def test_writing_reads_a_text_as_if_it_came_a_token_at_a_time(folder, texts):
    decoder = read_to_write(folder).decoder
    with torch.inference_mode():
        whole = decoder.start(texts[:1], torch.ones_like(texts[:1]), 0)
        decoder.start(texts[:1, :1], torch.ones_like(texts[:1, :1]), LENGTH)
        for place in range(1, LENGTH):
            last = decoder.step(texts[:1, place], decoder.reach(place + 1))
    torch.testing.assert_close(whole, last, rtol=1e-4, atol=1e-4)
