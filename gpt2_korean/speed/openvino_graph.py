"""GPT-2 as a graph of OpenVINO's operations, straight from the weights: no exporter, no copy of the checkpoint.

Inputs: `ids` [batch, n], `positions` [batch, n], `mask` [batch, 1, n, read], added to the scores of attention, `rows`
[batch], of what has been read which row each goes on from (OpenVINO's attention knows its own cache by it), and `first`
[1], the first of the n places whose logits are asked for. Output: the logits [batch, n - first, vocab]. The keys and
values of what has been read are the graph's state.
"""

import mmap
import os
from functools import cache

import numpy as np
import openvino as ov
from openvino import opset15 as ops
from openvino.op.util import Variable, VariableInfo

# Inputs of a layer that share a scale, cut to 8 bits; of more than quantized.GROUP OpenVINO would cut none.
INPUTS = {"int8": 128, "int4": 64}
IN_16_BITS = {"torch.float16": ov.Type.f16, "torch.bfloat16": ov.Type.bf16}
ACTIVATIONS = {"gelu": lambda x: ops.gelu(x, "erf"), "relu": ops.relu}  # the others are GELU by tanh


def build_graph(config, weights):
    """The openvino.Model of a GPT-2; config: as config.json has it, gpt2.is_supported.

    weights: name → a float32 tensor, as weight_shapes names them and `lm_head.weight` where it is another than the
        embeddings; a matrix also in 16 bits, or `(codes, scales)` of quantized.py, [out, in]. They are not copied.
    """
    width, heads = config["n_embd"], config["n_head"]
    ids, positions = (_input(name, ov.Type.i64, 2) for name in ("ids", "positions"))
    mask, rows, first = _input("mask", ov.Type.f32, 4), _input("rows", ov.Type.i32, 1), _input("first", ov.Type.i64, 1)
    embeddings = _weight(weights["wte.weight"])
    batch = ops.shape_of(rows, "i64")
    nothing_read = ops.broadcast(np.float32(0), ops.concat([batch, [0], [heads], [width // heads]], 0))
    activate = ACTIVATIONS.get(config.get("activation_function"), lambda x: ops.gelu(x, "tanh"))
    state = []

    def vector(name):
        return _constant(weights[name])

    def norm(name, x):
        x = ops.mvn(x, [-1], True, config.get("layer_norm_epsilon", 1e-5), "inside_sqrt")
        return ops.add(ops.multiply(x, vector(f"{name}.weight")), vector(f"{name}.bias"))

    def linear(name, x):
        weight = weights[f"{name}.weight"]  # Conv1D's own is [in, out]
        return ops.add(ops.matmul(x, _weight(weight), False, isinstance(weight, tuple)), vector(f"{name}.bias"))

    def split_heads(x):
        return ops.reshape(x, [0, 0, heads, width // heads], True)

    def remember(name, new):
        info = VariableInfo()
        info.data_shape, info.data_type = ov.PartialShape([-1, -1, heads, width // heads]), ov.Type.f32
        info.variable_id = name
        variable = Variable(info)
        seen = ops.concat([ops.gather(ops.read_value(nothing_read, variable), rows, 0), new], 1)
        state.append(ops.assign(seen, variable))
        return seen

    x = ops.add(ops.gather(embeddings, ids, 0), ops.gather(_weight(weights["wpe.weight"]), positions, 0))
    for index in range(config["n_layer"]):
        layer = f"h.{index}"
        qkv = ops.split(linear(f"{layer}.attn.c_attn", norm(f"{layer}.ln_1", x)), 2, 3)
        query, key, value = map(split_heads, qkv.outputs())
        key, value = remember(f"{layer}.key", key), remember(f"{layer}.value", value)
        # Turned behind the cache, where OpenVINO makes these transposes part of its attention.
        query, key, value = (ops.transpose(each, [0, 2, 1, 3]) for each in (query, key, value))
        y = ops.scaled_dot_product_attention(query, key, value, mask)
        y = ops.reshape(ops.transpose(y, [0, 2, 1, 3]), [0, 0, width], True)
        x = ops.add(x, linear(f"{layer}.attn.c_proj", y))
        inner = activate(linear(f"{layer}.mlp.c_fc", norm(f"{layer}.ln_2", x)))
        x = ops.add(x, linear(f"{layer}.mlp.c_proj", inner))
    x = norm("ln_f", ops.slice(x, first, [2**31 - 1], [1], [1]))
    head = _weight(weights["lm_head.weight"]) if "lm_head.weight" in weights else embeddings
    return ov.Model([ops.result(ops.matmul(x, head, False, True))], state, [ids, positions, mask, rows, first])


def _input(name, kind, rank):
    node = ops.parameter(ov.PartialShape([-1] * rank), kind, name)
    node.output(0).set_names({name})
    return node


def _weight(weight):
    """A node that gives a weight in float32, of what it is kept in."""
    if not isinstance(weight, tuple):
        return _constant(weight) if weight.itemsize == 4 else _in_16_bits(weight)
    codes, scales = weight
    if codes.ndim == 2:
        return ops.multiply(ops.convert(_constant(codes), ov.Type.f32), _constant(scales))
    shape = [codes.shape[0], codes.shape[1], 2 * codes.shape[2]]
    codes = ops.constant(ov.Tensor(codes.numpy(), ov.Shape(shape), ov.Type.i4))
    grouped = ops.multiply(ops.convert(codes, ov.Type.f32), _constant(scales))
    return ops.reshape(grouped, [shape[0], shape[1] * shape[2]], False)


def _in_16_bits(tensor):
    """As _weight; widened as it is read, so that half as much is read of memory."""
    from torch import int16

    numbers = ov.Tensor(tensor.view(int16).numpy(), ov.Shape(tensor.shape), IN_16_BITS[str(tensor.dtype)])
    widened = ops.convert(ops.constant(numbers, shared_memory=True), ov.Type.f32)
    widened.get_rt_info()["decompression_0"] = ""  # OpenVINO's own mark; without it all would be widened once, and kept
    return widened


def _constant(tensor):
    return ops.constant(tensor.numpy(), shared_memory=True)


@cache
def core():
    """OpenVINO's, the one of this process. Each puts a stack of its own under the signals, and where the first of two
    ends first, the second leaves that one's behind, which is gone: the next signal, a Ctrl-C, would break the process.
    """
    return ov.Core()


def compile_graph(config, weights, quantize, bfloat16):
    """An openvino.CompiledModel of build_graph's; bfloat16: compute in it rather than in float32."""
    return core().compile_model(build_graph(config, weights), "CPU", _properties(quantize, bfloat16))


def import_graph(content, quantize, bfloat16):
    """What compile_graph made of weights in fewer bits, from what it exports: uint8 [n], which is not copied.

    Raises RuntimeError where it is anything else.
    """
    return core().import_model(ov.Tensor(content, shared_memory=True), "CPU", _properties(quantize, bfloat16))


def _properties(quantize, bfloat16):
    precision, threads = "bf16" if bfloat16 else "f32", os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return {
        "INFERENCE_PRECISION_HINT": precision,
        "KV_CACHE_PRECISION": "u8" if quantize else precision,  # a scale for each token's head
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": INPUTS.get(quantize, 0),
        "ENABLE_CPU_PINNING": False,  # a thread that may not leave its core waits for whoever else computes there
        "INFERENCE_NUM_THREADS": int(threads) if threads.isdigit() else 0,  # 0: one a core
    }


def ready(compiled, mappings):
    """A request to a compiled model; mappings: mmaps that its weights are in, whose memory it gives back.

    In its first step OpenVINO packs the weights; what it has packed it seldom reads again.
    """
    request = compiled.create_infer_request()
    if mappings and hasattr(mmap, "MADV_DONTNEED"):
        one = {name: np.zeros((1, 1), np.int64) for name in ("ids", "positions")}
        one |= {
            "rows": np.zeros(1, np.int32),
            "first": np.zeros(1, np.int64),
            "mask": np.zeros((1, 1, 1, 1), np.float32),
        }
        request.start_async(one, share_inputs=True)
        packed = False
        while not packed:
            packed = request.wait_for(20)
            for mapping in mappings:
                mapping.madvise(mmap.MADV_DONTNEED)
    return request
