"""What other tools and our own other script call the flags of train.py and generate.py.

Each table: a flag of ours, or one with its value → the names that people type for it, separated by spaces. Case,
hyphens and underscores do not count (suggestions.py).
"""

DEVICE_NAMES = {
    "device=cpu": "cpu cpu_only no_cuda no_gpu force_cpu",
    "device=cuda": "cuda gpu use_cuda use_gpu gpus gpu_id gpu_ids nvidia",
    "device=xpu": "xpu use_xpu intel use_ipex ipex",
    "device=mps": "mps use_mps use_mps_device apple",
}

TRAIN_NAMES = {
    **DEVICE_NAMES,
    "dataset_path": "data dataset data_path data_dir data_file data_files dataset_dir dataset_file train_file "
    "train_files train_data train_data_file train_path train_dataset training_file training_data input input_file "
    "input_dir file corpus text text_file i",
    "dataset_name": "hf_dataset hub_dataset dataset_id",
    "dataset_config_name": "dataset_config subset dataset_subset",
    "streaming": "stream",
    "text_column_name": "text_column text_field text_key column dataset_text_field content_column field",
    "text_template": "template format prompt_template",
    "prompt_column": "question_column input_column",
    "answer_column": "response_column completion_column target_column",
    "answer_as": "answer_by speaker kakaotalk",
    "line_by_line": "lines by_line",
    "sample_by": "split_by",
    "train_on_prompt": "train_on_inputs train_on_input train_on_prompts",
    "block_size": "context context_length context_size context_window ctx ctx_size n_ctx n_positions seq_len "
    "seq_length sequence_length sequence_len max_length max_len max_seq_len max_seq_length max_sequence_length "
    "model_max_length cutoff_len block",
    "validation_file": "validation valid_file val_file val_data dev_file test_file test_data eval_file eval_data "
    "eval_path eval_dataset eval_data_file validation_data validation_path",
    "validation_split_percentage": "val_split val_size val_ratio validation_split validation_ratio eval_split "
    "eval_ratio test_size test_split",
    "show_data": "preview dry_run inspect peek show",
    "model_type": "model model_name model_name_or_path model_path model_id model_dir m base_model init_model "
    "init_from pretrained pretrained_model pretrained_model_name_or_path checkpoint config_name config_overrides "
    "from_scratch",
    "tokenizer": "tokenizer_name tokenizer_name_or_path tokenizer_path tokenizer_type vocab vocab_file",
    "vocab_size": "vocabulary_size n_vocab vocab_length",
    "lora_rank": "lora_r lora_dim r rank",
    "lora_rank=16": "lora use_lora peft use_peft",
    "lora_alpha": "alpha",
    "output_dir": "output output_path output_folder out out_dir o save_dir save_path save_to result_dir results_dir",
    "overwrite_output_dir": "overwrite force",
    "resume_from_checkpoint": "resume resume_from resume_path resume_checkpoint load_checkpoint from_checkpoint "
    "continue ckpt restart",
    "max_hours": "max_time time_limit hours timeout walltime",
    "save_steps": "save_every save_interval save_freq save_frequency save_every_n_steps checkpoint_interval "
    "checkpoint_every ckpt_interval",
    "save_total_limit": "keep keep_last keep_checkpoints max_checkpoints num_checkpoints save_top_k",
    "logging_dir": "log log_dir logs tensorboard_dir tb_dir",
    "logging_steps": "log_steps log_every log_interval log_freq logging_interval log_every_n_steps print_every",
    "report_to": "log_with logger loggers tracker trackers",
    "report_to=wandb": "wandb use_wandb wandb_log wandb_project",
    "report_to=tensorboard": "tensorboard use_tensorboard tb",
    "report_to=none": "no_wandb no_tensorboard",
    "do_train": "train",
    "do_eval": "eval evaluate evaluation eval_only validate do_validation do_evaluate",
    "eval_steps": "eval_every eval_interval eval_freq eval_frequency evaluate_every val_check_interval "
    "val_interval validation_steps sample_every",
    "sample_prompts": "prompt prompts prompt_file sample_prompt p",
    "early_stopping_patience": "patience early_stopping early_stop",
    "load_best_model_at_end": "load_best save_best save_best_only best",
    "per_device_train_batch_size": "batch batch_size bs b train_batch_size train_bs micro_batch_size mbs "
    "device_batch_size per_gpu_train_batch_size per_device_batch_size",
    "per_device_eval_batch_size": "eval_batch_size eval_bs val_batch_size per_gpu_eval_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation grad_accum grad_accum_steps grad_accumulation grad_acc "
    "accum accum_steps accumulation_steps accumulate_grad_batches gas ga",
    "num_train_epochs": "epoch epochs num_epochs n_epochs max_epochs train_epochs e ep",
    "max_steps": "steps num_steps n_steps total_steps train_steps num_train_steps max_train_steps training_steps "
    "iters iterations max_iters num_iters num_iterations",
    "learning_rate": "lr max_lr base_lr peak_lr eta",
    "embedding_learning_rate": "embedding_lr embed_lr",
    "bpe_dropout": "subword_dropout merge_dropout subword_regularization",
    "dropout": "drop dropout_rate resid_pdrop attn_pdrop embd_pdrop",
    "average_last": "average average_weights weight_averaging swa lawa ema",
    "warmup_steps": "warmup warmup_iters warmup_ratio warmup_proportion num_warmup_steps lr_warmup_steps",
    "weight_decay": "wd l2 decay",
    "adam_beta1": "beta1",
    "adam_beta2": "beta2",
    "adam_epsilon": "eps epsilon adam_eps",
    "max_grad_norm": "grad_clip clip clip_grad clip_grad_norm gradient_clipping gradient_clip_val max_norm",
    "lr_scheduler_type": "scheduler scheduler_type schedule lr_schedule lr_scheduler lr_decay_style",
    "optim": "optimizer optimiser opt",
    "seed": "random_seed random_state manual_seed rng_seed",
    "bf16": "bfloat16 mixed_precision precision dtype torch_dtype amp use_bf16",
    "fp16": "float16 half use_fp16",
    "torch_compile": "compile use_compile",
    "auto_find_batch_size": "auto_batch_size",
    "gradient_checkpointing": "grad_checkpointing use_gradient_checkpointing recompute",
    "dataloader_num_workers": "num_workers n_workers workers j",
    "hub_model_id": "hub_id repo_id hub_repo hub_name",
    "push_to_hub": "push upload",
    "config": "config_file config_path cfg yaml c",
}

GENERATE_NAMES = {
    **DEVICE_NAMES,
    "model_name_or_path": "model model_name model_type model_path model_id model_dir m checkpoint ckpt base_model "
    "pretrained pretrained_model pretrained_model_name_or_path init_from load out_dir path",
    "dtype": "torch_dtype precision data_type",
    "dtype=float32": "fp32 float32 float",
    "dtype=bfloat16": "bf16 bfloat16",
    "dtype=float16": "fp16 float16 half",
    "quantize=int8": "int8 load_in_8bit 8bit quant quantization quantized",
    "quantize=int4": "int4 load_in_4bit 4bit q4 q4_0",
    "engine": "backend runtime",
    "engine=openvino": "openvino ov",
    "prompt": "p text input input_text start start_text prefix message question instruction context",
    "prompt_file": "prompts prompts_file prompt_path input_file file f infile",
    "prompt_template": "template chat_template format",
    "system": "system_prompt system_message system_instruction sys sys_prompt persona role",
    "raw": "no_chat no_template completion no_chat_template no_conversation",
    "length": "max_length max_len max_tokens max_new_tokens max_new_token new_tokens num_tokens n_tokens tokens "
    "n_predict predict gen_len gen_length max_gen_len max_gen_length l",
    "min_length": "min_len min_tokens min_new_tokens",
    "stop": "stop_sequence stop_sequences stop_string stop_strings stop_word stop_words stop_token eos reverse_prompt",
    "top_k": "k",
    "top_p": "nucleus nucleus_p",
    "min_p": "min_probability",
    "typical_p": "typical typ typ_p locally_typical typical_sampling",
    "temperature": "temp t heat do_sample",
    "temperature=0": "greedy no_sample no_do_sample",
    "repetition_penalty": "repetition repeat_penalty rep_pen rep_penalty penalty",
    "frequency_penalty": "freq_penalty freq_pen frequency",
    "presence_penalty": "pres_penalty presence_pen presence",
    "repetition_window": "repeat_last_n penalty_last_n rep_window rep_pen_range",
    "dry_multiplier=0.8": "dry use_dry dry_sampling",
    "dry_multiplier": "dry_strength dry_penalty",
    "dry_allowed_length": "dry_length dry_allowed_len",
    "dry_penalty_last_n": "dry_range dry_last_n dry_window dry_penalty_range",
    "dry_sequence_breaker": "dry_sequence_breakers dry_breaker dry_breakers dry_seq_breakers",
    "end_at_sentence": "trim_sentences trim_incomplete trim_incomplete_sentences trim_sentence finish_sentence "
    "complete_sentence complete_sentences stop_at_sentence generate_until_sentence",
    "no_repeat_ngram_size": "no_repeat no_repeat_ngram no_repeat_ngrams ngram ngram_size",
    "seed": "random_seed random_state manual_seed rng_seed s",
    "stream": "streaming",
    "interactive": "chat i repl conversation cnv interactive_mode",
    "num_return_sequences": "n num nsamples num_samples samples num_return num_sequences num_outputs "
    "num_texts count best_of",
    "batch_size": "batch bs b per_device_batch_size",
    "output_file": "output output_dir output_path out out_file o save save_to result",
    "resume": "resume_from resume_from_checkpoint continue_run skip_existing skip_done",
    "serve": "server web webui ui gui gradio http api openai",
    "host": "address bind ip listen server_name",
    "port": "server_port",
    "api_key": "key token auth_token password api_token",
    "cors_origin": "cors cors_origins allowed_origins allow_origins allowed_origin",
    "export": "gguf to_gguf export_gguf convert ollama modelfile llama_cpp",
    "export_type": "outtype quantization_type ftype gguf_type",
    "export_type=q8_0": "q8_0 q8",
}
