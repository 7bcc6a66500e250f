"""A `--config` file, YAML or JSON → the words that a command line would have."""

import json
import re
from pathlib import Path

from gpt2_korean.cli.parser import spell_flag
from gpt2_korean.messages import UsageError, os_reason
from gpt2_korean.text.folders import describe_missing


def config_words(path, parser):
    """The flags of a `--config` file as the words of a command line for `parser`, which takes each of them."""
    words, known_flags = [], parser.flag_names()
    for name, value in _read_config(path).items():
        flag = spell_flag(f"--{name.removeprefix('--')}")
        if flag not in known_flags or flag in ("--config", "--help"):
            raise UsageError(f"{path}: 알 수 없는 이름입니다: {name}. {parser.suggest(flag)}")
        if isinstance(value, list):
            listed = [word for word in value if word is not None]
            if not listed or any(word.startswith("-") for word in listed):  # of which a command line makes other flags
                raise UsageError(
                    f"{path}: {name}의 목록이 비었거나 -로 시작하는 값이 있습니다. 값을 고치거나 그 줄을 빼세요."
                )
            if len(listed) > 1 and flag not in parser.flags_of_several():
                raise UsageError(
                    f"{path}: {name}에는 값을 하나만 줄 수 있는데 {len(listed)}개입니다. 하나만 적으세요"
                    '(여러 파일이면 그 폴더나 "글/*.txt" 같은 패턴).'
                )
            words += [flag, *listed]
        elif value is not None:
            words.append(f"{flag}={value}")
    try:
        parser.parse(words)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return words


def _read_config(path):
    """Name → word, list of words, or None where the default stands. Raises UsageError with the line that is wrong."""
    readers = {".json": _read_json, ".yaml": _read_yaml, ".yml": _read_yaml}
    reader = readers.get(Path(path).suffix.lower())
    if reader is None:
        raise UsageError(f"--config={path}: .yaml이나 .json 파일이어야 합니다.")
    import yaml

    try:
        config = reader(Path(path).read_text("utf-8-sig"))
    except FileNotFoundError:
        raise UsageError(f"--config={path}: 그런 파일이 없습니다. {describe_missing(path)}") from None
    except OSError as error:
        raise UsageError(f"--config={path}: 읽을 수 없습니다 ({os_reason(error)}).") from None
    except UnicodeDecodeError:
        raise UsageError(f"--config={path}: 문자 인코딩이 UTF-8이 아닙니다. UTF-8로 다시 저장하세요.") from None
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        # Where a line lacks its colon, or a quote is left open, the problem is a later line, on which YAML gave up.
        begun = isinstance(error, yaml.scanner.ScannerError) and error.context_mark
        mark = begun or getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else getattr(error, "lineno", None)
        right = '`{"max_steps": 100, "seed": 1}`' if reader is _read_json else "한 줄에 하나씩 `max_steps: 100`"
        raise UsageError(
            f"--config={path}:{f' {line}번째 줄의' if line else ''} 형식이 잘못되었습니다. {right}처럼 적으세요."
        ) from None
    if config is None:
        raise UsageError(f"--config={path}: '이름: 값' 꼴이어야 합니다.")
    return config


def _read_json(content):
    config = json.loads(content)
    if not isinstance(config, dict):
        return None
    return {
        name: list(map(_word, value)) if isinstance(value, list) else _word(value) for name, value in config.items()
    }


def _word(value):
    if isinstance(value, list):
        raise ValueError("a list within a list")
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _read_yaml(content):
    """The words as they stand there: what YAML makes of `11:30` or `no` is not what the command line does."""
    import yaml

    class Loader(yaml.SafeLoader):
        """To which 1e-5 within a mapping is the number that it is in JSON too, where YAML 1.1 takes it for a word."""

    number = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, "-+0123456789")
    loader = Loader(content)
    config = loader.get_single_node()
    if not isinstance(config, yaml.MappingNode):
        return None
    loader.flatten_mapping(config)

    def word(node):
        if isinstance(node, yaml.ScalarNode):
            return None if node.tag == "tag:yaml.org,2002:null" else node.value
        if isinstance(node, yaml.SequenceNode):
            raise yaml.constructor.ConstructorError(problem_mark=node.start_mark)
        return json.dumps(loader.construct_object(node, deep=True), ensure_ascii=False)

    return {
        word(name) or name.value: list(map(word, value.value)) if isinstance(value, yaml.SequenceNode) else word(value)
        for name, value in config.value
    }
