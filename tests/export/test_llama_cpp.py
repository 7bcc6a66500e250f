"""llama.cpp makes of an exported model what we make of it: the same ids, the same greedy texts, the same probabilities.

llama-cpp-python is in no requirements file: it is compiled for minutes where it is installed.
"""

import numpy as np
import pytest
import torch
from conftest import read_to_write, save_tiny_gpt2
from hypothesis import given
from hypothesis import strategies as st

from gpt2_korean.generation.loop import generate_ids
from gpt2_korean.generation.sampling import Sampling
from gpt2_korean.text.chat_prompt import as_turns
from gpt2_korean.text.chat_template import encode_texts

library = pytest.importorskip("llama_cpp.llama_cpp", reason="llama-cpp-python is not installed")
pytest.importorskip("gguf", reason="requirements-export.txt is not installed")


@pytest.fixture(scope="module", autouse=True)
def plain_weights():
    """No weights laid out anew for AMX, which a build can know and a virtual machine not have."""
    default = library.llama_model_default_params

    def parameters():
        chosen = default()
        chosen.use_extra_bufts = False
        return chosen

    library.llama_model_default_params = parameters
    yield
    library.llama_model_default_params = default


@pytest.fixture(scope="module")
def folder(tmp_path_factory, chat_tokenizer):
    return save_tiny_gpt2(tmp_path_factory.mktemp("models") / "llama", chat_tokenizer, n_positions=96)


@pytest.fixture(scope="module")
def opened(folder, tmp_path_factory):
    """A function: the type of an export → llama.cpp's Llama of it."""
    from llama_cpp import Llama

    import generate

    def open_model(kind):
        path = tmp_path_factory.mktemp("gguf") / "m.gguf"
        generate.main([f"--model_name_or_path={folder}", f"--export={path}", f"--export_type={kind}"])
        return Llama(str(path), n_ctx=96, logits_all=True, type_k=0, type_v=0, n_threads=2, verbose=False)

    kept = {}
    yield lambda kind: kept.get(kind) or kept.setdefault(kind, open_model(kind))
    for llama in kept.values():
        llama.close()


PIECES = st.one_of(
    st.sampled_from(
        ["  ", "\n\n", "\t", "'s", "'LL", "<|user|>", "<|endoftext|>", "👩🏿‍💻", "🇰🇷", "def f(x):\n    return", "３"]
    ),
    st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), max_size=4),
    st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=4),
)


@given(st.lists(PIECES, max_size=12).map("".join))
def test_ids_are_the_tokenizers_with_and_without_the_begin_token(opened, chat_tokenizer, text):
    llama = opened("f32")
    for whole in (False, True):
        read = llama.tokenize(text.encode(), add_bos=whole, special=False)
        assert read == encode_texts([text], chat_tokenizer, whole)[0]


def test_conversations_and_greedy_texts_are_ours(opened, folder):
    model, llama = read_to_write(folder, allow_invalid_utf8=True), opened("f32")
    for prompt in ("안녕하세요", "오늘은 뭐 하지?", "a", "1 + 1 = ?", "🙂"):
        turns = as_turns("너는 상담원이야.", [("가", "나다")], prompt)
        ids = model.chat.encode(turns)
        (ours,) = generate_ids(model.decoder, [ids], 24, Sampling(temperature=0), model.chat.end)
        llama.reset()
        theirs = []
        for index in llama.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0):
            if index == model.chat.end or len(theirs) == 24:
                break
            theirs.append(index)
        assert theirs == ours
        answer = llama.create_chat_completion(turns, max_tokens=1)  # by the chat template that is in the file
        assert answer["usage"]["prompt_tokens"] == len(ids) and llama.input_ids[: len(ids)].tolist() == ids


def test_probabilities_are_ours_but_for_the_types_rounding(opened, folder, sample_texts, chat_tokenizer):
    from transformers import AutoModelForCausalLM

    rows = encode_texts([text[:200] for text in sample_texts[:20]], chat_tokenizer, whole=True)
    rows = [row[:96] for row in rows]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def loss(logits, row):
        return torch.nn.functional.cross_entropy(torch.as_tensor(logits)[:-1], torch.tensor(row[1:])).item()

    with torch.no_grad():
        ours = np.mean([loss(model(torch.tensor([row])).logits[0], row) for row in rows])
    for kind, most in {"f32": 2e-4, "f16": 5e-4, "bf16": 5e-3, "q8_0": 2e-3}.items():
        losses = []
        for row in rows:
            llama = opened(kind)
            llama.reset()
            llama.eval(row)
            losses.append(loss(llama.scores[: len(row)].copy(), row))
        assert abs(np.mean(losses) - ours) < most * ours, kind
