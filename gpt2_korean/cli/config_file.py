"""A `--config` file, YAML or JSON → the words that a command line would have."""

import json
from pathlib import Path

from gpt2_korean.cli.parser import nearest, spell_flag
from gpt2_korean.messages import UsageError


def config_words(path, known_flags):
    """The flags of a `--config` file as command-line words."""
    words = []
    for name, value in _read_config(path).items():
        flag = spell_flag(f"--{name}")
        if flag not in known_flags or flag == "--config":
            raise UsageError(f"{path}: 알 수 없는 이름입니다: {name}. {nearest(flag, known_flags)}")
        if isinstance(value, list):
            words += [flag, *map(_config_value, value)]
        elif value is not None:
            words.append(f"{flag}={_config_value(value)}")
    return words


def _read_config(path):
    if Path(path).suffix not in (".json", ".yaml", ".yml"):
        raise UsageError(f"--config={path}: .yaml이나 .json 파일이어야 합니다.")
    import yaml

    try:
        # JSON is YAML as well, so one reader serves both.
        config = yaml.safe_load(Path(path).read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"--config={path}: 읽을 수 없습니다 ({error.strerror}).") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" {mark.line + 1}번째 줄" if mark else ""
        raise UsageError(f"--config={path}:{where} 형식이 잘못되었습니다.") from None
    if not isinstance(config, dict):
        raise UsageError(f"--config={path}: '이름: 값' 꼴이어야 합니다.")
    return config


def _config_value(value):
    if isinstance(value, (bool, dict)):
        return json.dumps(value)
    return str(value)
