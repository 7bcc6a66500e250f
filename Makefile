# make demo: install, train a small model on the sample corpus, print five texts.
# make test: install, run every test.    make lint: check the style.

PYTHON ?= python3
VENV := .venv
DEMO := fine_tuned_models/demo

.PHONY: demo test lint clean

demo: $(VENV)/installed
	$(VENV)/bin/python train.py --dataset_path="data/korean_texts.txt" --model_type="scratch-mini" \
	  --output_dir="$(DEMO)" --overwrite_output_dir --logging_dir="logs/demo" --do_train \
	  --block_size=128 --per_device_train_batch_size=2 --max_steps=1800 --learning_rate=1e-3 --warmup_steps=100 \
	  --adam_beta2=0.99 --logging_steps=200 --save_steps=600 --save_total_limit=1
	$(VENV)/bin/python generate.py --model_name_or_path="$(DEMO)" --prompt="오늘은" --num_return_sequences=5 \
	  --length=60 --top_k=50 --top_p=0.95 --temperature=0.7 --repetition_penalty=1.2

test: $(VENV)/installed-dev
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/shellcheck -x jobs/*.sh jobs/slurm.sbatch jobs/devcloud.pbs tests/slurm.sh

$(VENV)/installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet -r requirements.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt requirements-serve.txt
	$(VENV)/bin/pip install --quiet -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV)
