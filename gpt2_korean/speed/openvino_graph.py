"""GPT-2 as a graph of OpenVINO's operations, straight from the weights: no exporter, no copy of the checkpoint.

Attention is paged (Kwon et al. 2023): keys and values stand in blocks of BLOCK tokens, of which each row has its own in
any order. Inputs, all of int32: `ids` and `positions` [tokens], the new tokens of all rows, row after row, and `begins`
[batch + 1], where in them each row begins; `read` [batch], how many tokens of each row stand in its blocks already;
`blocks` [all], the blocks of each row, as many as its tokens take with the new ones, and `block_begins` [batch + 1],
where in them each row begins; `longest` [], the most tokens that a row has; `asked` [n], the places in `ids` whose
logits are asked for. Output: the logits [n, vocab]. What stands in the blocks is an input too, see make_room.
"""

import math
import mmap
import os
import platform
from functools import cache

import numpy as np
import openvino as ov
from openvino import opset15 as ops
from openvino.op import _PagedAttentionExtension as PagedAttention

# Inputs of a layer that share a scale, cut to 8 bits; of more than quantized.GROUP OpenVINO would cut none.
INPUTS = {"int8": 128, "int4": 64}
IN_16_BITS = {"torch.float16": ov.Type.f16, "torch.bfloat16": ov.Type.bf16}
KEYS, VALUES, BLOCK = "keys", "values", 32
ARM = ("aarch64", "arm64")  # as Linux and macOS say
ACTIVATIONS = {"gelu": lambda x: ops.gelu(x, "erf"), "relu": ops.relu}  # the others are GELU by tanh


def build_graph(config, weights):
    """The openvino.Model of a GPT-2; config: as config.json has it, gpt2.is_supported.

    weights: name → a float32 tensor, as weight_shapes names them and `lm_head.weight` where it is another than the
        embeddings; a matrix also in 16 bits, or `(codes, scales)` of quantized.py, [out, in]. They are not copied.
    """
    width = config["n_embd"]
    names = ("ids", "positions", "read", "begins", "blocks", "block_begins", "longest", "asked")
    inputs = {name: _input(name, ov.Type.i32, [] if name == "longest" else [-1]) for name in names}
    embeddings = _weight(weights["wte.weight"])
    activate = ACTIVATIONS.get(config.get("activation_function"), lambda x: ops.gelu(x, "tanh"))
    caches = []

    def vector(name):
        return _constant(weights[name])

    def norm(name, x):
        x = ops.mvn(x, [-1], True, config.get("layer_norm_epsilon", 1e-5), "inside_sqrt")
        return ops.add(ops.multiply(x, vector(f"{name}.weight")), vector(f"{name}.bias"))

    def linear(name, x):
        weight = weights[f"{name}.weight"]  # Conv1D's own is [in, out]
        return ops.add(ops.matmul(x, _weight(weight), False, isinstance(weight, tuple)), vector(f"{name}.bias"))

    def attend(layer, qkv):
        mine = [_input(f"{layer}.{name}", ov.Type.dynamic, [-1] * 4) for name in (KEYS, VALUES)]
        caches.extend(mine)
        return _paged_attention(qkv, *mine, inputs, width // config["n_head"])

    places = ops.gather(_weight(weights["wpe.weight"]), inputs["positions"], 0)
    x = ops.add(ops.gather(embeddings, inputs["ids"], 0), places)
    for index in range(config["n_layer"]):
        layer = f"h.{index}"
        qkv = ops.split(linear(f"{layer}.attn.c_attn", norm(f"{layer}.ln_1", x)), 1, 3)
        x = ops.add(x, linear(f"{layer}.attn.c_proj", attend(layer, qkv.outputs())))
        inner = activate(linear(f"{layer}.mlp.c_fc", norm(f"{layer}.ln_2", x)))
        x = ops.add(x, linear(f"{layer}.mlp.c_proj", inner))
    x = norm("ln_f", ops.gather(x, inputs["asked"], 0))
    head = _weight(weights["lm_head.weight"]) if "lm_head.weight" in weights else embeddings
    result = ops.result(ops.matmul(x, head, False, True))
    return _tell_heads(ov.Model([result], [*inputs.values(), *caches]), config)


def _input(name, kind, shape):
    node = ops.parameter(ov.PartialShape(shape), kind, name)
    node.output(0).set_names({name})
    return node


def _paged_attention(qkv, keys, values, inputs, size):
    """What heads of `size` see, [tokens, width]; qkv: three outputs like it."""
    rows = [inputs[name] for name in ("read", "begins", "blocks", "block_begins")]
    zero, integers = ops.constant(np.int32(0)), ops.constant(np.zeros(0, np.int32))
    floats, table = ops.constant(np.zeros(0, np.float32)), ops.constant(np.zeros([0] * 4, np.float32))
    # No sliding window, no ALiBi, and nothing of what else it can: sums of scores, turned, sparse and dropped blocks,
    # sinks, images, trees of guesses.
    asked = [keys, values, *rows, ops.constant(np.float32(size**-0.5)), zero, floats, inputs["longest"]]
    unasked = [*[integers] * 3, floats, floats, zero, zero, table, zero, *[integers] * 4]
    unasked += [ops.constant(np.zeros(0, np.uint8)), integers]
    return PagedAttention([*qkv, *(node.output(0) for node in asked + unasked)]).output(0)


def _tell_heads(model, config):
    """Tell OpenVINO what its blocks are to hold; it does not write that down with a graph."""
    heads = config["n_head"]
    for node in model.get_ops():
        if node.get_type_name() == PagedAttention.__name__.lstrip("_"):
            for side in "kv":
                node.get_rt_info()[f"num_{side}_heads"] = heads
                node.get_rt_info()[f"{side}_head_size"] = config["n_embd"] // heads
    return model


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
    """The only ov.Core of this process. Each installs a signal stack and at its end puts back the one that it found: of
    two, the second may put back the first one's, which is freed, and the next signal, a Ctrl-C, would crash.
    """
    return ov.Core()


def read_graph(description, weights, config):
    """The openvino.Model of what openvino.serialize has written of build_graph's; weights: uint8 [n], not copied.

    Raises RuntimeError where it is anything else.
    """
    core().get_versions("CPU")  # which knows paged attention, and is loaded as it is first asked for
    return _tell_heads(core().read_model(description, ov.Tensor(weights, shared_memory=True)), config)


def compile_graph(model, config, quantize, bfloat16):
    """An openvino.CompiledModel of build_graph's; bfloat16: compute in it rather than in float32."""
    # Of heads of an odd size OpenVINO's attention makes wrong numbers in bfloat16, and often none.
    bfloat16 = bfloat16 and config["n_embd"] // config["n_head"] % 2 == 0
    return core().compile_model(model, "CPU", _properties(quantize, bfloat16))


def _properties(quantize, bfloat16):
    precision, threads = "bf16" if bfloat16 else "f32", os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    in_16_bits = (quantize or bfloat16) and platform.machine() not in ARM  # whose attention takes keys in float32
    return {
        "INFERENCE_PRECISION_HINT": precision,
        # Of float16 OpenVINO makes bfloat16 where it computes in that, which may be elsewhere than where PyTorch does.
        "KV_CACHE_PRECISION": "f16" if in_16_bits else "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": INPUTS.get(quantize, 0),
        "ENABLE_CPU_PINNING": False,  # a thread that may not leave its core waits for whoever else computes there
        "INFERENCE_NUM_THREADS": int(threads) if threads.isdigit() else 0,  # 0: one a core
    }


def make_room(request, blocks):
    """Give a request room for the keys and values of `blocks` blocks; arrays [blocks, bytes], which may not go before
    what it is asked next.
    """
    rooms = []
    for parameter in request.get_compiled_model().inputs:
        if parameter.any_name.endswith((KEYS, VALUES)):
            kind, sizes = parameter.element_type, [size.get_length() for size in list(parameter.partial_shape)[1:]]
            # Zeros, which take no memory until a block is written; what is masked must be a number.
            rooms.append(np.zeros((blocks, math.prod(sizes) * kind.size), np.uint8))
            request.set_tensor(parameter, ov.Tensor(rooms[-1], ov.Shape([blocks, *sizes]), kind))
    return rooms


def ready(compiled, mappings):
    """A request to a compiled model; mappings: mmaps that its weights are in, whose memory it gives back.

    In its first step OpenVINO packs the weights; what it has packed it seldom reads again.
    """
    request = compiled.create_infer_request()
    if mappings and hasattr(mmap, "MADV_DONTNEED"):
        room = make_room(request, 1)
        one = dict.fromkeys(("ids", "positions", "read", "blocks", "asked"), np.zeros(1, np.int32))
        one |= dict.fromkeys(("begins", "block_begins"), np.arange(2, dtype=np.int32))
        request.start_async({**one, "longest": np.array(1, np.int32)}, share_inputs=True)
        packed = False
        while not packed:
            packed = request.wait_for(20)
            for mapping in mappings:
                mapping.madvise(mmap.MADV_DONTNEED)
        del room
    return request
