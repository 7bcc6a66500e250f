"""Fine-tune a GPT-2 on Korean text: argv → options → device → documents → blocks → Trainer → output_dir."""

import sys

from gpt2_korean.checkpoints.complete import check_output_dir, check_source_survives, find_starting_point
from gpt2_korean.checkpoints.lock import hold_output_dir
from gpt2_korean.cli.train_flags import parse_train_options
from gpt2_korean.messages import UsageError, run_script, say, warn
from gpt2_korean.model.find import find_model
from gpt2_korean.model.gpt2 import SCRATCH_SIZES
from gpt2_korean.model.lora import check_adapter
from gpt2_korean.text.files import find_files
from gpt2_korean.text.prompts import read_prompts
from gpt2_korean.training.record import recorded
from gpt2_korean.training.report import describe_run, results
from gpt2_korean.training.stopping import leave_together, stop_requests


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    options = parse_train_options(argv)
    with stop_requests(options.max_hours) as stop:
        if not options.do_train:
            return run(options, stop, {})
        check_output_dir(options.output_dir)
        with hold_output_dir(options.output_dir), recorded(options.output_dir, argv, options) as record:
            return run(options, stop, record)


def run(options, stop, record):
    # Whatever the command line alone can show to be wrong is refused here, before torch and
    # transformers are imported, which takes seconds.
    train_files = find_files(options.dataset_path) if options.dataset_path else []
    eval_files = find_files(options.validation_file, "--validation_file") if options.validation_file else []
    prompts = read_prompts(None, options.sample_prompts, "--sample_prompts") if options.sample_prompts else None
    start, source, notice = None, options.model_type, None
    if options.do_train:
        start = find_starting_point(options.output_dir, options.overwrite_output_dir, options.resume_from_checkpoint)
    if start is not None:
        source, notice = start, f"이어서 학습합니다: {start}"  # model and tokenizer are the checkpoint's own
    elif source not in SCRATCH_SIZES:
        source, notice = find_model(source, "--model_type")
        if options.do_train:
            check_source_survives(source, options.output_dir)
    if notice:
        say(notice)
    if options.do_train:
        check_adapter(start, source, options.lora_rank, options.lora_alpha)

    import torch
    import transformers

    from gpt2_korean import device
    from gpt2_korean.checkpoints.same_run import trace_provenance
    from gpt2_korean.model import lora
    from gpt2_korean.model.embeddings import replace_vocabulary
    from gpt2_korean.model.gpt2 import context_length
    from gpt2_korean.model.load import load_adapted, load_model, show_downloads_only
    from gpt2_korean.speed import choose
    from gpt2_korean.speed.throughput import flops_per_token
    from gpt2_korean.text import blocks
    from gpt2_korean.text import documents as corpus
    from gpt2_korean.text.vocabulary import choose_tokenizer
    from gpt2_korean.training import curve, evaluation, plan, samples
    from gpt2_korean.training import run as training

    show_downloads_only()
    chosen = device.choose_device(options.device)
    bf16, fp16, reason = device.choose_precision(chosen, options.bf16, options.fp16)
    say(device.describe_run(chosen, bf16, fp16, reason))
    _, ipex_notice = device.load_ipex(chosen)
    if ipex_notice:
        say(ipex_notice)
    arguments = training.build_arguments(options.trainer_arguments, chosen, bf16, fp16, options.logging_dir)
    transformers.set_seed(arguments.seed)
    record.update(device=device.describe_device(chosen), precision=device.name_precision(bf16, fp16))
    record.update(processes=arguments.world_size, seed=arguments.seed, resumed_from=start and start.name)

    # Documents: those to learn from, and those held out before anything is packed.
    columns = {"column": options.text_column_name, "template": options.text_template}
    reading = {"encoding": options.encoding, "line_by_line": options.line_by_line, **columns}
    documents = held_out = None
    if options.dataset_name:
        config = options.dataset_config_name
        documents = corpus.read_hub_dataset(options.dataset_name, config, streaming=options.streaming, **columns)
    elif train_files:
        documents = corpus.read_corpus(train_files, **reading)
        say(corpus.describe_files(documents, train_files))
    if eval_files:
        held_out = corpus.read_corpus(eval_files, **reading)
        say(corpus.describe_files(held_out, eval_files))
    elif options.do_eval:
        documents, held_out = corpus.hold_out(documents, options.validation_split_percentage, arguments.seed)

    # Weights are float32 whatever the precision: autocast computes in bfloat16 or float16, but AdamW's
    # small updates would be lost in them.
    if start is not None and options.lora_rank:
        model, tokenizer = load_adapted(start, "--resume_from_checkpoint", options.trust_remote_code)
    else:
        model, tokenizer = load_model(
            source, held_out if documents is None else documents, torch.float32, options.vocab_size,
            options.trust_remote_code,
        )  # fmt: skip
    own = tokenizer
    if options.do_train and start is None and source not in SCRATCH_SIZES:
        tokenizer = choose_tokenizer(own, documents, options.tokenizer, options.vocab_size)
    replaced = tokenizer is not own
    context = context_length(model.config) or 1024
    block_size = options.block_size or context
    if block_size > context:
        raise UsageError(f"--block_size={block_size}: 모델의 문맥 길이 {context}보다 길 수 없습니다.")
    train_blocks = eval_blocks = eval_characters = embedding_learning_rate = None
    if options.do_train:
        train_blocks = blocks.pack(documents, tokenizer, block_size)
        say(blocks.describe("학습 글", documents, train_blocks))
        embedding_learning_rate = plan.choose_embedding_learning_rate(
            options.embedding_learning_rate, replaced, arguments.learning_rate, arguments.optim.value
        )
        record["provenance"] = trace_provenance(
            start, options.model_type, options.tokenizer, options.vocab_size, embedding_learning_rate, tokenizer,
            train_blocks, block_size, stream_name=f"{options.dataset_name}/{options.dataset_config_name}",
        )  # fmt: skip
        embedding_learning_rate = record["provenance"]["embedding_learning_rate"]  # a checkpoint's own, if it goes on
        if replaced:
            replace_vocabulary(model, own, tokenizer, documents, train_blocks)
        if options.lora_rank and start is None:
            model = lora.adapt(model, options.lora_rank, options.lora_alpha, train_embeddings=replaced)
    if options.do_eval:
        eval_blocks, eval_characters = blocks.pack(held_out, tokenizer, block_size), corpus.count_characters(held_out)
        say(blocks.describe("평가 글", held_out, eval_blocks))
    if options.lora_rank:
        say(lora.describe(model))

    tokens_per_character = fused = compilation = None
    if options.do_train:
        tokens, characters = blocks.count_targets(train_blocks), corpus.count_characters(documents)
        tokens_per_character = characters and tokens / characters
        steps, blocks_per_step = training.count_steps(arguments, train_blocks)
        say(plan.describe_steps(steps, blocks_per_step, block_size, arguments.learning_rate, embedding_learning_rate))
        flops = steps * blocks_per_step * block_size * flops_per_token(model, block_size)
        fused = choose.load_fused_layer(model, arguments)
        compilation, reason = plan.choose_compilation(
            options.torch_compile, fused is None and device.can_compile(chosen), flops,
            options.trainer_arguments.get("torch_compile_backend"), options.trainer_arguments.get("torch_compile_mode"),
        )  # fmt: skip
        if reason:
            say(f"컴파일: {'하지 않음' if compilation is None else '함'} ({reason})")

    stepping = choose.speed_up(model, arguments, block_size, fused, compilation, options.device_graphs)
    limit = options.save_total_limit
    trainer = training.build_trainer(
        model, tokenizer, arguments, train_blocks, eval_blocks, eval_characters, limit, stop, record,
        tokens_per_character=tokens_per_character, embedding_learning_rate=embedding_learning_rate, **stepping,
    )  # fmt: skip
    if options.do_train:
        read = curve.Corpus(characters, tokens, blocks_per_step * (block_size - 1))
        training.show_progress(trainer, read, prompts or samples.PROMPTS)
        if training.is_finished(start, steps, options.early_stopping_patience):
            training.complete(trainer, start)
            more = "--num_train_epochs, --max_steps, --early_stopping_patience"
            say(f"이미 끝난 학습입니다: {options.output_dir} (더 하려면 {more}를 늘리세요)")
        else:
            save_steps = arguments.save_steps if arguments.save_strategy == "steps" else None
            for warning in plan.plan_warnings(steps, arguments.warmup_steps, save_steps, tokens, block_size):
                warn(warning)
            training.train(trainer, start, options.early_stopping_patience, options.early_stopping_threshold)
    if options.do_eval:
        metrics = evaluation.evaluate(trainer)
        texts = () if options.do_train else evaluation.measure_texts(trainer, held_out)
        if trainer.is_world_process_zero():
            print(results(metrics, *texts))
    if options.do_train:
        say(describe_run(trainer.state.log_history, trainer.model_step(), options.output_dir))
    leave_together()
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
