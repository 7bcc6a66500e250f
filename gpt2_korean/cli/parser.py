"""argparse in Korean: every refusal, and for a flag that is none the one that was meant.

Knows how flags are parsed, not which flags there are.
"""

import argparse
import dataclasses
import os
import shutil

from gpt2_korean.cli.suggestions import describe_bare, describe_spaced, suggest_flag
from gpt2_korean.cli.values import NO, YES, boolean, negated
from gpt2_korean.messages import UsageError, width

# What both scripts have.
DEVICES = ("auto", "xpu", "cuda", "mps", "cpu")
DEVICE = "auto, xpu, cuda, mps, cpu. auto는 xpu, cuda, mps, cpu 순으로 있는 것을 고릅니다"
REMOTE_CODE = "모델에 딸린 Python 코드를 실행합니다. 만든 사람을 믿을 때만 주세요"
WIDEST = 120  # columns of a line of --help


class KoreanHelp(argparse.HelpFormatter):
    """Help with a Korean usage line, one column wide enough for the longest flag, and lines that the terminal holds."""

    def __init__(self, prog):
        super().__init__(prog, max_help_position=38, width=min(shutil.get_terminal_size().columns, WIDEST) - 2)

    def add_usage(self, usage, actions, groups, prefix=None):
        super().add_usage(usage, actions, groups, prefix="사용법: ")

    def _split_lines(self, text, columns):
        # textwrap counts letters, of which a Korean one takes two columns.
        lines = [""]
        for word in text.split():
            longer = f"{lines[-1]} {word}".lstrip()
            lines[-1:] = [longer] if not lines[-1] or width(longer) <= columns else [lines[-1], word]
        return lines

    def _fill_text(self, text, columns, indent):
        return "\n".join(indent + line for line in self._split_lines(text, columns))

    def _format_action(self, action):
        # argparse counts letters: each Korean one takes its second column from the gap behind the flag.
        header = self._format_action_invocation(action)
        wide = sum(width(letter) == 2 for letter in header)
        return super()._format_action(action).replace(header + " " * wide, header, 1)


class KoreanArgumentParser(argparse.ArgumentParser):
    """An ArgumentParser whose every refusal is a `UsageError` in Korean.

    other_names: a table of other_names.py. flag_of_path: which flag a path that stands alone is meant for.
    """

    def __init__(self, other_names, flag_of_path, **kwargs):
        super().__init__(**kwargs, formatter_class=KoreanHelp, add_help=False, allow_abbrev=False, exit_on_error=False)
        self.other_names, self.flag_of_path = other_names, flag_of_path
        self._optionals.title = "그 밖"
        self.add_argument("-h", "--help", action="help", help="이 도움말을 보여 주고 끝냅니다")

    def error(self, message):
        raise UsageError(message)

    def parse(self, argv):
        """Parse `argv`; raises UsageError that names the flag, its value and the way on."""
        if spaced := describe_spaced(argv):
            raise UsageError(spaced)
        try:
            namespace, unknown = self.parse_known_args(self._settle_switches([spell_flag(word) for word in argv]))
        except argparse.ArgumentError as error:
            raise UsageError(f"{error.argument_name}: {translate(error.message)}") from None
        if unknown:
            raise UsageError(self.describe_unknown(unknown[0], vars(namespace)))
        return namespace

    def _settle_switches(self, words):
        """`--do_train 글.txt` as `--do_train=true 글.txt`: a path is no value of a switch, which would refuse it."""
        switches = {
            name for action in self._actions if action.type in (boolean, negated) for name in action.option_strings
        }
        return [
            f"{word}=true" if word in switches and other.lower() not in YES + NO and os.path.exists(other) else word
            for word, other in zip(words, [*words, ""][1:], strict=True)
        ]

    def _get_values(self, action, words):
        # argparse of Python 3.11 takes the value of --flag=-- for the mark that ends all flags, and drops it.
        if action.option_strings and words == ["--"]:
            value = self._get_value(action, "--")
            return [value] if action.nargs == "+" else value
        return super()._get_values(action, words)

    def parse_given(self, argv):
        """As parse, the flags alone that `argv` gives; afterwards the parser knows no defaults."""
        for action in self._actions:
            action.default = argparse.SUPPRESS
        return self.parse(argv)

    def describe_unknown(self, word, values):
        """What is wrong with a `word` that no flag takes; values: name → value of all flags."""
        flag = word.split("=", 1)[0]
        if not flag.startswith("-"):
            given = {name for name, value in values.items() if value != self.get_default(name)}
            return describe_bare(word, self.flag_of_path, given)
        shown = flag if flag.isprintable() else repr(flag)
        return f"알 수 없는 플래그입니다: {shown}. {self.suggest(flag)}"

    def suggest(self, flag):
        """A sentence that names the flag which was meant by one that there is not."""
        return suggest_flag(flag, self.flag_names(), self.other_names)

    def listed(self):
        """The actions that --help lists."""
        return [action for action in self._actions if action.help is not argparse.SUPPRESS]

    def flag_names(self):
        return [name for action in self._actions for name in action.option_strings if name.startswith("--")]

    def flags_of_several(self):
        """The flags that take more than one value."""
        return [name for action in self._actions if action.nargs == "+" for name in action.option_strings]


class Collect(argparse.Action):
    """A flag that can be given more than once, which then has the given values in place of its default ones."""

    def __call__(self, parser, namespace, value, option_string=None):
        given = getattr(namespace, self.dest, self.default)
        setattr(namespace, self.dest, [value] if given is self.default else [*given, value])


def spell_flag(word):
    """`--learning-rate=1` as `--learning_rate=1`: both spellings are in use among Hugging Face's scripts."""
    if not word.startswith("--"):
        return word
    flag, equals, value = word.partition("=")
    return "--" + flag[2:].replace("-", "_") + equals + value


def translate(message):
    """argparse's own refusals in Korean; messages raised by the types of values.py are Korean already."""
    if message.startswith("expected one argument"):
        return '값이 필요합니다. 값이 -로 시작하면 --flag="-값" 꼴로 쓰세요.'
    if message.startswith("expected at least one argument"):
        return "값이 하나 이상 필요합니다."
    if message.startswith("ignored explicit argument"):
        return "값을 받지 않는 플래그입니다."
    return message


def group_of(cls, namespace):
    """A dataclass `cls`, each field filled with what `namespace` has under its name: one group of the options."""
    return cls(**{field.name: getattr(namespace, field.name) for field in dataclasses.fields(cls)})


def add_flag(group, flag, kind, help_text, default=None, metavar="값", **keywords):
    """A flag with a value of a `kind` (a function of the word), its default named in its help."""
    if default is not None:
        shown = " ".join(default).replace("\n", "\\n") if isinstance(default, list) else default
        help_text += f" (기본값: {shown})"
    group.add_argument(flag, type=kind, default=default, help=help_text, metavar=metavar, **keywords)


def add_switch(group, flag, help_text, default=False):
    """A flag that is true by itself and takes true or false; its --no_NAME, which is not listed, is false by itself and
    takes them too, as a config file gives every switch one."""
    group.add_argument(flag, nargs="?", const=True, type=boolean, default=default, help=help_text, metavar="true|false")
    if not flag.startswith("--no_"):
        name, unlisted = flag.removeprefix("--"), {"default": default, "help": argparse.SUPPRESS}
        group.add_argument(f"--no_{name}", dest=name, nargs="?", const=False, type=negated, **unlisted)
