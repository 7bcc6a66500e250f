"""What train.py and generate.py share: one concern a file, no work at import."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036, which an older one reads too; of the other files it would not know a word
    sys.exit(
        "오류: Python 3.11 이상이 필요합니다. 이 Python({})은 {}.{}입니다.\n"
        "README의 ‘설치’대로 만든 가상 환경에서 실행하세요.".format(sys.executable, *sys.version_info[:2])
    )
