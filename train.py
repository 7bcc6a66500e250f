"""Fine-tune a GPT-2 on Korean text: argv → options → device → documents → blocks → Trainer → output_dir."""

import sys

from gpt2_korean.checkpoints import check_source_survives, find_model, find_starting_point, remove_earlier_run
from gpt2_korean.messages import UsageError, run_script, say, warn
from gpt2_korean.options import parse_train_options
from gpt2_korean.text_files import find_files


def main(argv=None):
    # Whatever the command line alone can show to be wrong is refused here, before torch and
    # transformers are imported, which takes seconds.
    options = parse_train_options(argv)
    train_files = find_files(options.dataset_path) if options.dataset_path else []
    eval_files = find_files(options.validation_file, "--validation_file") if options.validation_file else []
    start = None
    if options.do_train:
        start = find_starting_point(options.output_dir, options.overwrite_output_dir, options.resume_from_checkpoint)
        if start is None:
            check_source_survives(options.model_type, options.output_dir)

    import torch
    import transformers

    from gpt2_korean import blocks, corpus, device, plan
    from gpt2_korean.model import SCRATCH_SIZES, context_length, load_model
    from gpt2_korean.training import build_arguments, build_trainer, train

    transformers.utils.logging.disable_progress_bar()  # of its own: downloads show theirs all the same
    chosen = device.choose_device(options.device)
    bf16, fp16, reason = device.choose_precision(chosen, options.bf16, options.fp16)
    precision = "bfloat16" if bf16 else "float16" if fp16 else "float32"
    say(f"장치: {device.describe_device(chosen)} · 정밀도: {precision} ({reason})")
    _, ipex_notice = device.load_ipex(chosen)
    if ipex_notice:
        say(ipex_notice)
    arguments = build_arguments(options.trainer_arguments, chosen, bf16, fp16, options.logging_dir)
    transformers.set_seed(arguments.seed)

    # Documents: those to learn from, and those held out before anything is packed.
    columns = {"column": options.text_column_name, "template": options.text_template}
    reading = {"encoding": options.encoding, "line_by_line": options.line_by_line, **columns}
    documents = held_out = None
    if options.dataset_name:
        documents = corpus.read_hub_dataset(
            options.dataset_name, options.dataset_config_name, streaming=options.streaming, **columns
        )
    elif train_files:
        documents = corpus.read_corpus(train_files, **reading)
        say("\n".join(corpus.describe_files(documents, train_files)))
    if eval_files:
        held_out = corpus.read_corpus(eval_files, **reading)
        say("\n".join(corpus.describe_files(held_out, eval_files)))
    elif options.do_eval:
        documents, held_out = corpus.hold_out(documents, options.validation_split_percentage, arguments.seed)

    # A resumed run takes model and tokenizer from its checkpoint.
    source = options.model_type
    if start is not None:
        source = start
        say(f"이어서 학습합니다: {start}")
    elif source not in SCRATCH_SIZES:
        source, notice = find_model(source, "--model_type")
        if notice:
            warn(notice)
    texts = corpus.texts_of(documents if documents is not None else held_out)
    # Weights stay float32 whatever the precision: autocast computes in bfloat16 or float16, AdamW's
    # small updates would be lost in them.
    model, tokenizer = load_model(source, texts, torch.float32)
    context = context_length(model.config) or 1024
    block_size = options.block_size or context
    if block_size > context:
        raise UsageError(f"--block_size={block_size}: 모델의 문맥 길이 {context}보다 길 수 없습니다.")

    train_blocks = blocks.pack(documents, tokenizer, block_size) if options.do_train else None
    eval_blocks = blocks.pack(held_out, tokenizer, block_size) if options.do_eval else None
    eval_characters = corpus.count_characters(held_out) if options.do_eval else None
    trainer = build_trainer(
        model, tokenizer, arguments, train_blocks, eval_blocks, eval_characters, options.save_total_limit
    )

    for name, texts, packed in (("학습 글", documents, train_blocks), ("평가 글", held_out, eval_blocks)):
        if packed is not None and not options.streaming:
            say(
                plan.describe_text(
                    name, len(texts), corpus.count_characters(texts), blocks.count_targets(packed), len(packed)
                )
            )
    if options.do_train:
        blocks_per_batch = arguments.train_batch_size * arguments.world_size
        accumulation = arguments.gradient_accumulation_steps
        steps = plan.total_steps(
            None if options.streaming else len(train_blocks), blocks_per_batch, accumulation,
            arguments.num_train_epochs, arguments.max_steps,
        )  # fmt: skip
        say(plan.describe_steps(steps, blocks_per_batch * accumulation, block_size))
        tokens = None if options.streaming else blocks.count_targets(train_blocks)
        for warning in plan.plan_warnings(steps, arguments.warmup_steps, arguments.save_steps, tokens, block_size):
            warn(warning)
        # Only now, when nothing is left to refuse, does an earlier run give way to this one.
        if start is None and arguments.process_index == 0:
            remove_earlier_run(options.output_dir)
        train(trainer, start)
        say(f"저장했습니다: {options.output_dir}")
        say(f'써 보기: python generate.py --model_name_or_path="{options.output_dir}" --prompt="앞글"')
    if options.do_eval:
        metrics = trainer.evaluate()
        if arguments.process_index == 0:
            print(f"손실(토큰당): {metrics['eval_loss']:.4f}")
            print(f"혼란도(토큰당): {metrics['eval_perplexity']:.2f}")
            print(f"글자당 비트: {metrics['eval_bits_per_character']:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
