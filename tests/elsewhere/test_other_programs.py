"""Other programs open what is saved and write what transformers here writes; skipped where a program is not installed.

A program that wants other versions than ours runs in a Python of its own: see GPT2_KOREAN_PYTHONS in conftest.py.
"""

import json
import os

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPT, NEW = "오늘은 영화가", 12
TURNS = [{"role": "user", "content": "안녕 하세요"}]
OTHERS = [*filter(None, os.environ.get("GPT2_KOREAN_PYTHONS", "").split(os.pathsep))]


def greedy(folder, prompt=PROMPT):
    """Ids of the prompt and of what follows."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer(prompt, return_tensors="pt")
    written = model.generate(**ids, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)[0].tolist()
    assert len(set(written[-NEW:])) > 2
    return written


@pytest.mark.skipif(not OTHERS, reason="GPT2_KOREAN_PYTHONS names none")
@pytest.mark.parametrize("python", OTHERS)
def test_transformers_of_another_version_reads_the_same_ids_and_writes_the_same(
    python, saved, sample_texts, run_python
):
    code = f"""
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, chat, file = sys.argv[1:]
texts = json.load(open(file, encoding="utf-8"))
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
ids = [tokenizer(text)["input_ids"] for text in texts]
written = model.generate(
    torch.tensor([tokenizer({PROMPT!r})["input_ids"]]), max_new_tokens={NEW}, min_new_tokens={NEW}, do_sample=False)
talk = AutoTokenizer.from_pretrained(chat).apply_chat_template({TURNS!r}, tokenize=False, add_generation_prompt=True)
print(json.dumps([ids, [tokenizer.decode(row) for row in ids], written[0].tolist(), talk]))
"""
    folder = saved["texts"]
    (folder.parent / "texts.json").write_text(json.dumps(sample_texts), "utf-8")
    found = json.loads(run_python(python, code, folder, saved["conversations"], folder.parent / "texts.json"))
    file = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = [each.ids for each in file.encode_batch(sample_texts)]
    texts = [file.decode(row, skip_special_tokens=False) for row in ids]
    assert found == [ids, texts, greedy(folder), "<|endoftext|><|user|> 안녕 하세요<|assistant|>"]


def test_ctranslate2_writes_the_same(saved, run_with, tmp_path):
    code = f"""
import sys, json, ctranslate2
from ctranslate2.converters import TransformersConverter
from transformers import AutoTokenizer
TransformersConverter(sys.argv[1]).convert(sys.argv[2])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
ids = tokenizer({PROMPT!r})["input_ids"]
(result,) = ctranslate2.Generator(sys.argv[2], device="cpu").generate_batch(
    [tokenizer.convert_ids_to_tokens(ids)], max_length={NEW}, min_length={NEW}, sampling_topk=1,
    include_prompt_in_result=False)
print(json.dumps(ids + result.sequences_ids[0]))
"""
    found = json.loads(run_with("ctranslate2", code, saved["texts"], tmp_path / "converted"))
    assert found == greedy(saved["texts"])


def test_onnx_runtime_writes_the_same_and_has_the_tokenizer_beside_it(saved, run_with, tmp_path):
    code = f"""
import sys, json
from optimum.exporters.onnx import main_export
from optimum.onnxruntime import ORTModelForCausalLM
from transformers import AutoTokenizer
main_export(sys.argv[1], sys.argv[2], task="text-generation-with-past")
tokenizer = AutoTokenizer.from_pretrained(sys.argv[2])
ids = tokenizer({PROMPT!r}, return_tensors="pt")
model = ORTModelForCausalLM.from_pretrained(sys.argv[2])
print(json.dumps(model.generate(**ids, max_new_tokens={NEW}, min_new_tokens={NEW}, do_sample=False)[0].tolist()))
"""
    assert json.loads(run_with("optimum.onnxruntime", code, saved["texts"], tmp_path / "onnx")) == greedy(
        saved["texts"]
    )


def test_openvino_genai_encodes_and_writes_the_same(saved, run_with, tmp_path):
    code = f"""
import sys, json
import openvino_genai
from optimum.exporters.openvino import main_export
main_export(sys.argv[1], sys.argv[2], task="text-generation-with-past", convert_tokenizer=True)
exact = {{"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}}
pipe = openvino_genai.LLMPipeline(sys.argv[2], "CPU", **exact)
tokenizer = pipe.get_tokenizer()
ids = tokenizer.encode({PROMPT!r}).input_ids
chat = tokenizer.apply_chat_template({TURNS!r}, add_generation_prompt=True)
new = {{"max_new_tokens": {NEW}, "min_new_tokens": {NEW}}}
text = pipe.generate({PROMPT!r}, do_sample=False, apply_chat_template=False, **new)
print(json.dumps([ids.data[0].tolist(), chat, text]))
"""
    folder = saved["conversations"]
    ids, chat, text = json.loads(
        run_with("openvino_genai optimum.exporters.openvino", code, folder, tmp_path / "openvino")
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert ids == tokenizer(PROMPT)["input_ids"]
    assert chat == "<|endoftext|><|user|> 안녕 하세요<|assistant|>"
    assert text == tokenizer.decode(greedy(folder)[len(ids) :], skip_special_tokens=True)


def test_vllm_writes_the_same_and_speaks_by_the_template(saved, run_with):
    code = f"""
import os, sys, json
if __name__ == "__main__":
    os.environ["VLLM_CONFIGURE_LOGGING"] = "0"  # on its standard output
    from vllm import LLM, SamplingParams
    model = LLM(sys.argv[1], dtype="float32", enforce_eager=True, kv_cache_memory_bytes=2**26)
    sampling = SamplingParams(temperature=0, max_tokens={NEW}, min_tokens={NEW})
    (text,), (answer,) = model.generate([{PROMPT!r}], sampling), model.chat([{TURNS!r}], sampling)
    print(json.dumps([text.prompt_token_ids + list(text.outputs[0].token_ids), answer.prompt_token_ids]))
"""
    folder = saved["conversations"]
    written, asked = json.loads(run_with("vllm", code, folder))
    assert written == greedy(folder)
    assert AutoTokenizer.from_pretrained(folder).decode(asked) == "<|endoftext|><|user|> 안녕 하세요<|assistant|>"


def test_trl_learns_texts_and_of_messages_the_answers(saved, run_with, tmp_path):
    code = """
import sys, json
from datasets import Dataset
from trl import SFTConfig, SFTTrainer
found = []
talk = [{"role": "user", "content": "안녕"}, {"role": "assistant", "content": "반가워요"}]
for folder, row in ((sys.argv[1], {"text": "오늘은 비"}), (sys.argv[2], {"messages": talk})):
    settings = SFTConfig(
        sys.argv[3], max_steps=1, per_device_train_batch_size=2, max_length=64, report_to=[], use_cpu=True, bf16=False,
        save_strategy="no", assistant_only_loss="messages" in row)
    trainer = SFTTrainer(folder, args=settings, train_dataset=Dataset.from_list([row] * 4))
    trainer.train()
    found.append(trainer.train_dataset[0]["labels"])
print(json.dumps(found))
"""
    texts, answers = json.loads(run_with("trl", code, saved["texts"], saved["conversations"], tmp_path))
    tokenizer = AutoTokenizer.from_pretrained(saved["texts"])
    assert texts == [*tokenizer("오늘은 비")["input_ids"], tokenizer.eos_token_id]
    tokenizer = AutoTokenizer.from_pretrained(saved["conversations"])
    answer = [label for label in answers if label != -100]
    assert tokenizer.decode(answer) == " 반가워요<|endoftext|>"


def test_lm_eval_measures_an_adapter_as_the_model_it_is_merged_into(saved, run_with):
    code = """
import sys, json
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
folder, start, text = sys.argv[1:]
found = []
adapter = folder + "/adapter"
for more in ({"pretrained": folder}, {"pretrained": start, "peft": adapter, "tokenizer": adapter}):
    model = HFLM(**more, device="cpu", batch_size=1, dtype="float32")
    request = Instance("loglikelihood", {}, (text, " 그리고 다시"), 0)
    found.append(model.loglikelihood([request])[0][0])
print(json.dumps(found))
"""
    one, other = json.loads(run_with("lm_eval", code, saved["adapter"], saved["start"], PROMPT))
    assert one == pytest.approx(other, rel=1e-4)


def test_a_plain_trainer_goes_on_from_a_checkpoint_as_from_a_model(saved, tmp_path):
    """Its optimizer has other groups, since the rows of a new vocabulary have a learning rate of their own."""
    from datasets import Dataset
    from transformers import Trainer, TrainingArguments

    folder = saved["texts"] / "checkpoint-1"
    settings = {"max_steps": 2, "report_to": [], "use_cpu": True, "save_strategy": "no", "disable_tqdm": True}
    rows = Dataset.from_list([{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 4)

    def trainer():
        model = AutoModelForCausalLM.from_pretrained(folder)
        return Trainer(model, TrainingArguments(tmp_path, **settings), train_dataset=rows)

    with pytest.raises(ValueError, match="different number of parameter groups"):
        trainer().train(resume_from_checkpoint=str(folder))
    assert torch.isfinite(torch.tensor(trainer().train().training_loss))
