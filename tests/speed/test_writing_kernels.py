"""The kernels of a step compute what PyTorch's own functions do. Without a GPU Triton's interpreter runs them."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from conftest import GPU, tiny_gpt2

from gpt2_korean.generation.decoder import GPT2Decoder
from gpt2_korean.generation.loop import generate_ids
from gpt2_korean.generation.sampling import Sampling
from gpt2_korean.speed import linear

pytest.importorskip("triton")

from gpt2_korean.speed import writing_kernels
from gpt2_korean.speed.writing_kernels import attend, fused


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [48, 100])
@pytest.mark.parametrize("rows", [1, 6])
def test_the_linear_kernels_give_what_pytorch_gives(dtype, width, rows):
    torch.manual_seed(0)
    for outputs, activation, has_bias in ((3 * width, None, True), (1001, "gelu_new", True), (101, None, False)):
        shapes = ((outputs, width), (outputs,), (rows, width), (rows, width), (width,), (width,))
        weight, bias, x, added, *norm = (torch.randn(*shape, device=GPU).to(dtype) for shape in shapes)
        bias = bias if has_bias else None
        for norms in ((*norm, 1e-5), None):
            exact = norms and (norm[0].float(), norm[1].float(), 1e-5)
            ours = fused(weight, bias, norms, activation)
            plain = linear.plain(weight.float(), bias.float() if has_bias else None, exact, activation)
            tolerance = {torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.2}[dtype]
            for inputs in ((x,), (x, added)) if norms else ((x,),):
                found, expected = ours(*inputs), plain(*(each.float() for each in inputs))
                for one, other in zip(found, expected, strict=True) if norms else ((found, expected),):
                    torch.testing.assert_close(one.float(), other, rtol=0.02, atol=tolerance)


def test_attention_of_a_new_token_is_pytorchs_and_keeps_its_key_and_value(rng, monkeypatch):
    # Widths that are a power of two and one that is not, and scores of which no power can be taken as they are.
    for width, slots, size in itertools.product((4, 16, 24), (16, 300), (1, 10)):
        monkeypatch.setattr(writing_kernels, "MANY", rng.choice([1, 1024]))
        batch, heads = rng.randint(1, 3), rng.randint(1, 3)
        last = rng.randint(0, slots - 1)
        first = torch.tensor([rng.randint(0, last) for _ in range(batch)], device=GPU)
        keys, values = size * torch.randn(2, batch, heads, slots, width, device=GPU)
        qkv = size * torch.randn(batch, 1, 3 * heads * width, device=GPU)
        query, key, value = qkv.view(batch, 1, 3, heads, width).permute(2, 0, 3, 1, 4)
        kept = keys.clone(), values.clone()
        for cache, new in zip(kept, (key, value), strict=True):
            cache[:, :, last] = new[:, :, 0]
        places = torch.arange(slots, device=GPU)
        mask = (places >= first[:, None]) & (places <= last)
        expected = F.scaled_dot_product_attention(query, *kept, attn_mask=mask[:, None, None])
        found = attend(qkv, keys, values, first, torch.tensor([last], device=GPU), last + 1)
        torch.testing.assert_close(found, expected.transpose(1, 2).flatten(2), rtol=1e-4 * size, atol=1e-4 * size**2)
        torch.testing.assert_close((keys, values), kept)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_decoder_over_the_kernels_writes_what_plain_pytorch_does(rng, rows):
    model = tiny_gpt2(301)
    ways = ((linear.plain, None), (fused, attend))
    plain, ours = (
        GPT2Decoder(model.config.to_dict(), dict(model.state_dict()), GPU, torch.float32, *way) for way in ways
    )
    prompts = [[rng.randint(1, 300) for _ in range(rng.randint(1, 9))] for _ in range(rows)]
    greedy = Sampling(temperature=0, repetition_penalty=1.2)
    for each in (prompts, [[7]] * rows, [*prompts, prompts[0]]):  # texts of one prompt share one reading
        assert generate_ids(ours, each, 12, greedy, -1) == generate_ids(plain, each, 12, greedy, -1)


# A GPU that has compiled nothing yet, with kernels that are launched without effect: it is pretended, Triton and what
# compiles for it are real.
PRETENDED_GPU = """
import torch, triton
from types import SimpleNamespace
from triton.backends.compiler import GPUTarget
from gpt2_korean.model.gpt2 import weight_shapes
from gpt2_korean.speed.writing_kernels import attend, compile_kernels, fused
driver = SimpleNamespace(
    get_current_target=lambda: GPUTarget("cuda", 90, 32),
    get_current_device=lambda: 0,
    get_current_stream=lambda device: 0,
    launcher_cls=lambda source, metadata: lambda *arguments: None,
    utils=SimpleNamespace(
        load_binary=lambda *arguments: (1, 1, 0, 0, 1024),
        get_device_properties=lambda device: {"max_shared_mem": 2**17},
    ),
)
triton.runtime.driver.set_active(driver)
config, cpu, dtype = CONFIG, torch.device("cpu"), torch.bfloat16
"""
SHAPE = {"n_layer": 2, "n_embd": 32, "n_inner": 160, "n_head": 2, "n_positions": 512, "vocab_size": 320}
WRITING = """
from pathlib import Path
from gpt2_korean.generation import loop
from gpt2_korean.generation.decoder import GPT2Decoder
from gpt2_korean.generation.sampling import Sampling
loop.record_graph = lambda work, device, before: (SimpleNamespace(replay=work), None)
cached = lambda: {str(path) for path in Path("CACHE").rglob("*.cubin")}
compile_kernels(config, cpu, dtype)
before = cached()
tensors = {name: torch.zeros(shape) for name, shape in weight_shapes(config).items()}
decoder = GPT2Decoder(config, tensors, cpu, dtype, fused, attend, captures=True)
for rows in (1, 3, 600):
    for length in (200, 400):
        loop.generate_ids(decoder, [[1, 2, 3]] * rows, length, Sampling(temperature=0), None)
print(sorted({Path(path).stem for path in before}), cached() - before)
"""


# Another thread goes on while one looks for garbage, as where that ends with a file to close.
COLLECTING = """
import gc, time
gc.callbacks.append(lambda *_: time.sleep(0.001))
gc.set_threshold(100)
compile_kernels(config, cpu, dtype)
print(gc.isenabled())
"""


@pytest.fixture
def on_pretended_gpu(tmp_path, monkeypatch, run_script):
    """Run a script there; returns what it prints."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)

    def run(script):
        script = (PRETENDED_GPU + script).replace("CONFIG", repr(SHAPE)).replace("CACHE", str(tmp_path))
        finished = run_script("-c", script)
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    return run


def test_writing_asks_for_no_kernel_that_was_not_compiled_with_the_others(on_pretended_gpu):
    assert on_pretended_gpu(WRITING) == "['attention_kernel', 'linear_kernel', 'norm_kernel'] set()\n"


def test_kernels_compile_side_by_side_whatever_garbage_there_is(on_pretended_gpu):
    assert on_pretended_gpu(COLLECTING) == "True\n"
