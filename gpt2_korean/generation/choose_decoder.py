"""The decoder of a GPT-2 that is fastest on a device: by OpenVINO, over Triton's kernels, or by PyTorch alone."""

from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

import torch

from gpt2_korean.device import computes_bfloat16, cpu_capabilities, has_graphs
from gpt2_korean.generation.decoder import GPT2Decoder
from gpt2_korean.generation.kept import keep_graph, read_kept
from gpt2_korean.generation.weights import named, quantize_weights, read_weights
from gpt2_korean.messages import UsageError, particle, say, warn_of_failure
from gpt2_korean.speed import linear

OPENVINO = "2026.4"  # whose attention openvino_graph.py knows how to ask
NEEDED = {"arm64": "sve", "x86_64": "avx2"}  # what a processor needs for that attention
TOLD_OF = set()  # the failures of the Triton kernels that this process has warned of


def has_openvino(asked):
    """Whether the supported OpenVINO is installed and this processor can run it.

    asked: the flag that asks for it, or None. Raises UsageError where it is asked for and cannot be used.
    """
    try:
        version = metadata.version("openvino")
    except metadata.PackageNotFoundError:
        return asked is not None  # the command line has found one, but its version is not known
    if version.startswith(OPENVINO):
        return _has_attention(asked)
    other = f"설치된 OpenVINO {particle(version, '은/는')} 여기에서 쓰는 버전({OPENVINO})이 아닙니다"
    if asked:
        raise UsageError(f"{asked}: {other}: pip install -r requirements-openvino.txt")
    say(f"{other}. PyTorch로 계산합니다. OpenVINO를 쓰려면: pip install -r requirements-openvino.txt")
    return False


def _has_attention(asked):
    """Whether OpenVINO has paged attention for this processor, as far as PyTorch knows what that can do."""
    capabilities = cpu_capabilities()
    needed = NEEDED.get(capabilities.get("architecture"))
    if needed is None or capabilities.get(needed):
        return True
    why = f"이 CPU에는 OpenVINO의 어텐션에 필요한 {needed.upper()}가 없습니다"
    if asked:
        raise UsageError(f"{asked}: {why}. 이 플래그를 빼면 PyTorch로 계산합니다.")
    say(f"{why}. PyTorch로 계산합니다.")
    return False


def quantized_decoder(folder, config, dtype, quantize, reading):
    """The decoder of a GPT-2's folder in fewer bits, from what is kept of it; else it is kept now.

    reading: kept.begin_reading's, or None to read it now.
    """
    from gpt2_korean.generation.openvino_decoder import OpenVINODecoder
    from gpt2_korean.speed.openvino_graph import build_graph

    bfloat16 = dtype == torch.bfloat16
    kept = reading.result() if reading else read_kept(folder, quantize, bfloat16)
    if kept is None:
        say(f"가중치를 {quantize}로 줄이는 중입니다. 다음부터는 저장해 둔 것을 씁니다.")
        tensors = quantize_weights(read_weights(folder, config), config, quantize)
        graph = build_graph(config, tensors)
        keep_graph(graph, folder, quantize)
        kept = read_kept(folder, quantize, bfloat16)
        if kept is None:
            return _decoder_of_graph(config, graph, tensors, quantize, bfloat16)
    return OpenVINODecoder(config, *kept)


def gpt2_decoder(config, weights, device, dtype, captures=True, openvino=False, quantize=None):
    """The decoder that is fastest on this device; weights: name → tensor.

    captures: record steps as graphs where the device has them, which no other thread of ours may then use.
    quantize: None, or by OpenVINO "int8" or "int4".
    """
    if openvino:
        return _openvino_decoder(config, weights, dtype, quantize)
    if device.type in ("cuda", "xpu"):
        captures = captures and has_graphs(device)  # before another thread works: nothing may be allocated meanwhile
        # A copy: where the kernels fail, the weights are taken once more.
        decoder = _decoder_with_kernels(config, dict(weights), device, dtype, captures)
        return decoder or GPT2Decoder(config, weights, device, dtype, captures=captures)
    return GPT2Decoder(config, weights, device, dtype, linear.packed if linear.packs(device, dtype) else linear.plain)


def _openvino_decoder(config, weights, dtype, quantize):
    from gpt2_korean.speed.openvino_graph import build_graph

    bfloat16 = dtype == torch.bfloat16
    if quantize:
        tensors = quantize_weights(weights, config, quantize)
        return _decoder_of_graph(config, build_graph(config, tensors), tensors, quantize, bfloat16)
    bfloat16 = bfloat16 and computes_bfloat16(torch.device("cpu"))
    # Reading weights takes longest, so matrices keep the type of their file, and OpenVINO turns it into what the
    # processor computes in. Where the processor lacks a 16-bit type that was asked for, they are kept in that type.
    as_they_are = bfloat16 or dtype == torch.float32
    tensors = {
        name: weight.detach().to(torch.float32 if weight.ndim == 1 else weight.dtype if as_they_are else dtype)
        for name, weight in named(weights, config).items()
    }
    graph = build_graph(config, tensors)
    return _decoder_of_graph(config, graph, tensors, quantize, bfloat16, getattr(weights, "mappings", []))


def _decoder_of_graph(config, graph, tensors, quantize, bfloat16, mappings=()):
    from gpt2_korean.generation.openvino_decoder import OpenVINODecoder
    from gpt2_korean.speed.openvino_graph import compile_graph, ready

    return OpenVINODecoder(config, ready(compile_graph(graph, config, quantize, bfloat16), mappings), tensors)


def _decoder_with_kernels(config, tensors, device, dtype, captures):
    """A GPT2Decoder over the Triton kernels, None where they cannot be compiled: without Triton or a C compiler.

    They compile while the weights are on their way to the device.
    """
    try:
        from gpt2_korean.speed import writing_kernels as kernels
    except Exception as error:
        failure = error
    else:
        with ThreadPoolExecutor(1) as thread:
            compiling = thread.submit(kernels.compile_kernels, config, device, dtype)
            decoder = GPT2Decoder(config, tensors, device, dtype, kernels.fused, kernels.attend, captures)
            torch.mm(decoder.tokens[:16], decoder.tokens[:16].t())  # the first of all products waits for its library
        failure = compiling.exception()
    if failure is None:
        return decoder
    _tell_of_kernels(failure)  # whatever a compiler and a driver can raise
    return None


def _tell_of_kernels(failure):
    """Once of each kind: a run in training asks for the kernels at each evaluation."""
    if type(failure) not in TOLD_OF:
        TOLD_OF.add(type(failure))
        warn_of_failure(failure, f"Triton 커널을 쓸 수 없어 조금 느리게 씁니다 ({type(failure).__name__}).")
