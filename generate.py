"""Continue or answer a prompt with a trained model: argv → options → model → ids → text on stdout, or on a page.

Or write the model for other programs.
"""

import os
import sys

from gpt2_korean.checkpoints.lock import hold_records
from gpt2_korean.cli.generate_checks import check_chat
from gpt2_korean.cli.generate_options import parse_generate_options, parse_setting
from gpt2_korean.ending import run_script
from gpt2_korean.generation.output import Output, naming, open_output
from gpt2_korean.generation.resume import take_up
from gpt2_korean.model.find import find_model, models_below
from gpt2_korean.text.prompts import find_prompts


def main(argv=None):
    # Whatever the command line and the files alone can show to be wrong is refused here, before torch is
    # imported, which takes seconds.
    options = parse_generate_options(argv, models_below)
    if options.export.export:
        from gpt2_korean.export.command import export

        export(find_model(options.model.model_name_or_path), options)
        return 0
    prompts = [] if options.output.interactive else find_prompts(options.prompts, not options.page.serve)
    source = find_model(options.model.model_name_or_path)
    with open_output(options.output.output_file) as file:
        if file:
            hold_records(file, alone=options.output.resume)
        return write(options, prompts, source, file)


def write(options, prompts, source, file):
    """The texts, answers or the page that `options` (GenerateOptions) ask for; file: of the records, open, or None."""
    done = 0  # of the texts
    if options.output.resume:
        options, done = take_up(options, prompts, source)
        if done == len(prompts) * options.output.num_return_sequences:
            return 0
    if options.page.serve:
        from gpt2_korean.server.port import open_port

        listener = open_port(options.page.host, options.page.port)

    # OpenMP libraries but GNU's read it when torch is imported: threads that spin as they wait slow other programs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if "LD_PRELOAD" in os.environ:
        # Else a library of OpenVINO's bypasses a preloaded allocator (Colab has tcmalloc) as it frees, which crashes.
        os.environ.setdefault("TBB_ENABLE_SANITIZERS", "1")
    # It would report each import of OpenVINO to Google Analytics. OpenVINO does without it.
    sys.modules.setdefault("openvino_telemetry", None)
    from gpt2_korean.generation.driver import wake_driver
    from gpt2_korean.generation.kept import begin_reading

    # Beside the import of torch.
    wake_driver(options.model.device)
    reading = begin_reading(source, options.model)
    from gpt2_korean.generation.batch import write_all
    from gpt2_korean.generation.load import load
    from gpt2_korean.generation.terminal import converse
    from gpt2_korean.generation.write import converses

    model, settled = load(source, options.model, reading, tells_seed=not options.page.serve)  # the page draws its own
    check_chat(options, model.chat, prompts)
    if options.page.serve:
        from gpt2_korean.server.app import serve
        from gpt2_korean.server.events import Page

        serve(listener, Page(model, options, prompts[0]))
        return 0
    with naming(file):
        out = Output(file, converses(model, options.prompts), options.prompts, settled)
        if options.output.interactive:
            converse(model, out, options.settings, parse_setting, options.output.num_return_sequences)
        else:
            write_all(model, out, prompts, options.settings, options.output, done)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
