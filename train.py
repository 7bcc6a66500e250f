"""Fine-tune a GPT-2 on Korean text: argv → options → texts → vocabulary → blocks → Trainer → output_dir."""

import sys
from functools import partial

from gpt2_korean.checkpoints.complete import check_writable
from gpt2_korean.checkpoints.lock import own_output_dir
from gpt2_korean.cli.train_options import parse_train_options
from gpt2_korean.ending import run_script, stdout_for_results, tracebacks_in
from gpt2_korean.messages import print_once, say, warn
from gpt2_korean.model.find import check_fitting, find_start
from gpt2_korean.model.gpt2 import context_length
from gpt2_korean.text.ahead import begin_ahead
from gpt2_korean.text.documents import Texts, find_texts, read_texts
from gpt2_korean.text.prompts import sample_prompts
from gpt2_korean.training.record import recorded
from gpt2_korean.training.report import describe_training, evaluation_table
from gpt2_korean.training.stopping import leave_together, stop_requests


def main(argv=None):
    options = parse_train_options(argv)
    with stop_requests(options.max_hours) as stop, tracebacks_in(options.output.logging_dir):
        if options.show_data is not None:
            return show(options)
        with stdout_for_results():
            table = learn(options, stop) if options.do_train else measure(options, stop)
            leave_together()
        if table:
            print_once(table)
    return 0


def show(options):
    from gpt2_korean.checkpoints.same_run import learns_prompts
    from gpt2_korean.model.tokenizer import find_tokenizer
    from gpt2_korean.text.show import show_texts

    texts = read_texts(find_texts(options.text), options.text, options.do_eval, options.given["seed"])
    start = find_start(options.model, options.output.resume_from_checkpoint and options.output)
    tokenizer, room, is_new = find_tokenizer(start, texts.main, options.model)
    all_learnt = learns_prompts(start, options.text, is_new)
    for lines in show_texts(texts, tokenizer, room, all_learnt, options.text.block_size, options.show_data):
        print_once(lines)
    return 0


def learn(options, stop):
    with own_output_dir(options.output.output_dir), recorded(options) as record:
        # What the command line and the files alone show to be wrong is refused before torch is imported.
        files, prompts = find_texts(options.text), sample_prompts(options.learning.sample_prompts)
        start = find_start(options.model, options.output)
        check_fitting(start, options.text.block_size, options.learning.dropout)
        read = partial(read_texts, files, options.text, options.do_eval, options.given["seed"])

        def prepare_texts():
            from gpt2_korean.model.tokenizer import find_tokenizer  # in the fork alone: numpy has threads

            find_tokenizer(start, read().main, options.model)

        if not options.text.dataset_name:  # the Hub is asked once, by who tells of it
            begin_ahead(prepare_texts)

        from gpt2_korean.checkpoints.same_run import check_same_run, learns_prompts
        from gpt2_korean.model.load import load_start
        from gpt2_korean.model.packing import can_pack_documents
        from gpt2_korean.model.prepare import prepare_model
        from gpt2_korean.speed.choose import begin_kernels, speed_up
        from gpt2_korean.text.blocks import pack_texts, with_merges_undone
        from gpt2_korean.text.chat_template import prepare_tokenizer
        from gpt2_korean.text.vocabulary import choose_tokenizer
        from gpt2_korean.training.arguments import announce, send_logs_to, set_up_machine
        from gpt2_korean.training.evaluation import evaluate
        from gpt2_korean.training.plan import settle_plan
        from gpt2_korean.training.run import build_trainer, learn_blocks, show_progress

        arguments = set_up_machine(options.machine, options.learning, record)
        if "tensorboard" in arguments.report_to and arguments.process_index == 0:  # one rank writes there, much later
            check_writable(options.output.logging_dir, "--logging_dir")
        texts = read()
        with arguments.main_process_first():  # it learns the vocabulary, which the other ranks then read
            model, own = load_start(start, texts.train, options.model)
            end_kernels = begin_kernels(model, arguments)
            tokenizer = own if start.keeps_vocabulary else choose_tokenizer(own, texts.train, options.model)
        added = prepare_tokenizer(tokenizer, texts.train)
        is_new, room = tokenizer is not own or start.from_scratch, context_length(model.config)
        all_learnt = learns_prompts(start, options.text, is_new)
        blocks = pack_texts(texts, tokenizer, room, can_pack_documents(model), options.text, arguments, all_learnt)
        changes, rank = tokenizer is not own, options.model.lora_rank
        plan = settle_plan(start, blocks, options.learning, arguments, model.config, tokenizer, changes, rank)
        record.provenance = check_same_run(start, options.model, options.text, tokenizer, blocks, plan, arguments)
        blocks = with_merges_undone(blocks, tokenizer, record.provenance["bpe_dropout"])
        send_logs_to(options.output.logging_dir, options.output.output_dir, record.provenance["started"])
        end_kernels()
        with arguments.main_process_first():  # it computes the embeddings of a new vocabulary
            drop = record.provenance["dropout"]
            model = prepare_model(model, own, tokenizer, added, texts.train, blocks.train, start, options.model, drop)

        trainer = build_trainer(model, tokenizer, arguments, blocks, stop, record, options.output)
        steps, tokens = announce(trainer, blocks)
        trainer.take_steps(**speed_up(model, arguments, options.machine, blocks, tokens))
        show_progress(trainer, blocks, prompts)
        learn_blocks(trainer, start, blocks, steps, options.learning)
        table = evaluation_table(evaluate(trainer)) if options.do_eval else None
        if table:
            trainer.create_model_card()
        end = trainer.state.log_history, trainer.model_step(), options.output.output_dir
        talks = tokenizer.chat_template is not None
        say(describe_training(*end, talks, record.characters, trainer.averaged_steps))
        return table


def measure(options, stop):
    files, start = find_texts(options.text), find_start(options.model)
    if start.from_scratch or "output_dir" in options.learning.chosen:  # as one who leaves --do_train out of a command
        warn(f"평가할 모델은 --model_type={start.source}입니다. 학습한 모델이라면 그 폴더를 --model_type으로 주세요.")
    check_fitting(start, options.text.block_size)
    read = partial(read_texts, files, options.text, True, options.given["seed"])
    if not options.text.dataset_name:
        begin_ahead(read)

    from gpt2_korean.model.load import load_start
    from gpt2_korean.model.packing import can_pack_documents
    from gpt2_korean.speed.choose import speed_up
    from gpt2_korean.text.blocks import pack_texts
    from gpt2_korean.training.arguments import send_logs_to, set_up_machine
    from gpt2_korean.training.evaluation import evaluate, measure_texts
    from gpt2_korean.training.run import build_trainer

    arguments = set_up_machine(options.machine, options.learning)
    texts = read()
    model, tokenizer = load_start(start, texts.main, options.model)
    texts = Texts(held_out=texts.held_out)
    room = context_length(model.config)
    blocks = pack_texts(texts, tokenizer, room, can_pack_documents(model), options.text, arguments)
    send_logs_to(options.output.logging_dir, f"{start.source}-eval")
    trainer = build_trainer(model, tokenizer, arguments, blocks, stop)
    trainer.take_steps(**speed_up(model, arguments, options.machine, blocks))
    metrics = evaluate(trainer)
    measured = () if options.learning.no_measure_texts else measure_texts(trainer, texts.held_out)
    return evaluation_table(metrics, *measured)


if __name__ == "__main__":
    sys.exit(run_script(main))
