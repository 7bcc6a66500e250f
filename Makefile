# make demo: install, train a small model on conversations, ask it some questions.
# make test: install, run every test.    make lint: check the style.

PYTHON ?= python3
# What is installed; for an Intel GPU: make demo REQUIREMENTS=requirements-xpu.txt
REQUIREMENTS ?= requirements.txt
# Where the demo takes a torch without CUDA from (3 GB less), on a Linux that has no card for it.
CPU_TORCH ?= https://download.pytorch.org/whl/cpu
VENV := .venv
PIP := $(VENV)/bin/pip install --quiet
RUN := $(VENV)/bin/python
DEMO := fine_tuned_models/demo
INSTALLED := $(VENV)/installed-$(notdir $(REQUIREMENTS))
SAY := @printf '%s\n'

.PHONY: demo test lint clean

demo: TORCH_FIRST = echo '약 350MB를 내려받아 $(VENV)에 설치합니다. GPU용 PyTorch라면 약 3GB입니다.'; \
	  if [ "$$(uname)" = Linux ] && ! command -v nvidia-smi >/dev/null; then \
	  for torch in $$(grep -x 'torch==[0-9.]*' $(REQUIREMENTS)); do \
	  $(PIP) --quiet --retries=1 --index-url=$(CPU_TORCH) $$torch || \
	  echo 'CPU용 PyTorch를 받지 못했습니다. GPU용(약 3GB)을 받을 수도 있습니다.'; done; fi
demo: $(INSTALLED)
	$(SAY) '' '대화 842개를 처음부터 배웁니다. 노트북 CPU로 2분쯤 걸립니다.' ''
	$(RUN) train.py --dataset_path="data/conversations.jsonl" --model_type="scratch-mini" --vocab_size=2048 \
	  --output_dir="$(DEMO)" --overwrite_output_dir --logging_dir="logs/demo" --do_train --block_size=128 \
	  --per_device_train_batch_size=4 --max_steps=1000 --save_steps=1000 --learning_rate=1e-3 --warmup_steps=0.1 --bpe_dropout=0.01
	$(SAY) '' '질문 12개에 답합니다. 앞의 4개는 외운 질문이고, 뒤의 8개는 배운 대화에 없던 질문입니다.' ''
	@$(RUN) generate.py --model_name_or_path="$(DEMO)" --prompt_file="data/demo_questions.txt" --temperature=0
	$(SAY) '' '직접 말을 걸어 보세요. 터미널에서(--interactive) 또는 브라우저에서(--serve):' \
	  '  $(RUN) generate.py --model_name_or_path=$(DEMO) --temperature=0.3 --interactive' \
	  '  $(RUN) generate.py --model_name_or_path=$(DEMO) --temperature=0.3 --serve' \
	  '' '자기 글이나 대화로 학습하려면(docs/data.md, docs/recipes.md):' \
	  '  $(RUN) train.py --dataset_path=내글.txt --model_type=scratch-mini --output_dir=fine_tuned_models/mine --do_train'

test: $(VENV)/installed-dev
	$(RUN) -m pytest -n 2 --dist worksteal

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/shellcheck -x jobs/*.sh jobs/slurm.sbatch jobs/devcloud.pbs tests/slurm.sh

$(INSTALLED): $(REQUIREMENTS) requirements-serve.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15) and "Python 3.11~3.14가 필요합니다. 있다면: make $(MAKECMDGOALS) PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	@$(TORCH_FIRST)
	$(PIP) -r $(REQUIREMENTS) -r requirements-serve.txt
	rm -f $(VENV)/installed-*
	touch $@

$(VENV)/installed-dev: $(INSTALLED) requirements-dev.txt
	$(PIP) -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV)
