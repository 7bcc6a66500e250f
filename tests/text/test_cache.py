"""What is kept of a text or a model for the next start."""

import errno
import os

import pytest

from gpt2_korean.messages import Stopped
from gpt2_korean.text.cache import keep_file


@pytest.mark.parametrize("ended_by", [KeyboardInterrupt(), Stopped(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])
def test_half_of_a_file_that_was_to_be_kept_is_left_nowhere(tmp_path, ended_by, capsys):
    def write(unfinished):
        unfinished.write_text("반")
        raise ended_by

    path = tmp_path / "made" / "vocabulary.json"
    if isinstance(ended_by, OSError):
        keep_file(path, write, "간직하지 못했습니다")
        assert "간직하지 못했습니다" in capsys.readouterr().err
    else:
        with pytest.raises(type(ended_by)):
            keep_file(path, write, "")
    assert not list(path.parent.iterdir())
