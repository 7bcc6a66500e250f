"""What the Hub, and its library's cache, have of a model: asked before anything is loaded."""

import errno
from pathlib import Path

from gpt2_korean.checkpoints.complete import missing_weights
from gpt2_korean.messages import UserError, describe_error, particle
from gpt2_korean.model import lora


def cached_path(name, file, commit=None):
    """The Path of a hub id's file in the Hub's cache, of its main branch or another `commit`; None: it is not there."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, file, revision=commit)
    return Path(found) if isinstance(found, str) else None


def find_cached(name, flag):
    """`(the folder of a hub id's files in the Hub's cache, whether the Hub answers)`.

    The first is None where not all are there that a tokenizer is made of, the second where the Hub need not be asked
    for that. The files are the newest, as far as it answers. Raises UserError as load_pretrained does.
    """

    def cached(commit=None):
        files = [cached_path(name, file, commit) for file in ("config.json", "tokenizer.json", "tokenizer_config.json")]
        return files[0].parent if all(files) else None

    if cached() is None:
        return None, None
    commit = newest_commit(name, flag)
    return cached(commit), commit is not None


def newest_commit(name, flag):
    """The newest commit of a hub id, None where the Hub is out of reach and what the cache has must do.

    Asked once and at once: each file's own request would try six times, half a minute in all.
    """
    import huggingface_hub

    adapter = UserError(
        f"{flag}={name}: 어댑터는 Hub의 이름으로 열지 못합니다. `hf download {name}` 명령이 알려 주는 폴더를 주세요."
    )
    try:
        info = huggingface_hub.model_info(name, timeout=10)
    except Exception as error:  # no route, no name, a proxy's page, HF_HUB_OFFLINE, a refusal: whatever, no answer
        config = cached_path(name, "config.json")
        missing = config and missing_weights(config.parent)
        if config is not None and missing is None:
            return None
        if config is None and cached_path(name, lora.CONFIG) is not None:
            raise adapter from None
        if hasattr(error, "response"):  # the Hub is reached, and refuses
            raise broken_off(name, flag, error) from None
        if missing is not None:
            raise UserError(
                f"{flag}={name}: 네트워크에 연결할 수 없고, 미리 받아 둔 파일 가운데 {particle(missing, '이/가')} "
                f"없거나 잘렸습니다. 네트워크가 되는 곳에서 `hf download {name}` 명령으로 마저 받으세요."
            ) from None
        scratch = "\n(3) 내려받지 않는 --model_type=scratch-mini로 처음부터 학습합니다."
        raise UserError(
            f"{flag}={name}: 네트워크에 연결할 수 없고 미리 받아 둔 파일도 없습니다({describe_error(error)}).\n"
            "이름이 맞다면 다음 가운데 하나를 하세요.\n"
            f"(1) 네트워크가 되는 곳에서 `hf download {name}` 명령으로 받은 캐시(HF_HOME)나 모델 폴더를 씁니다.\n"
            f"(2) HF_ENDPOINT에 미러 주소를 설정합니다.{scratch if flag == '--model_type' else ''}"
        ) from None
    names = {file.rfilename for file in info.siblings or ()}
    if lora.CONFIG in names and "config.json" not in names:
        raise adapter
    return info.sha


def broken_off(name, flag, error):
    """The UserError for a library's `error` where the Hub refused a model's files, the connection broke, or the cache
    has no room for them; None where `error` has another cause."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    while not (_is_of_hub(error) or _is_full(error)):
        error = error.__cause__ or error.__context__
        if error is None:
            return None
    if isinstance(error, GatedRepoError):  # the Hub tells anybody of one, but hands out no file
        words = "허락이 필요한 모델입니다. Hub에서 신청하고 HF_TOKEN을 설정하세요."
    elif isinstance(error, RepositoryNotFoundError):
        words = "Hub에 그런 모델이 없습니다. 이름을 확인하세요(비공개라면 HF_TOKEN 설정)."
    elif getattr(getattr(error, "response", None), "status_code", None) == 401 and get_token():
        words = "Hub가 토큰을 받지 않습니다. HF_TOKEN을 고치거나, 저장해 둔 토큰이라면 hf auth login을 다시 하세요."
    elif _is_full(error):
        words = (
            "받은 파일을 둘 캐시(HF_HOME)의 디스크에 남은 공간이 없습니다. 공간을 비우거나 다른 디스크의 폴더를 "
            "HF_HOME에 설정하세요."
        )
    else:
        words = (
            f"Hub에서 받지 못했습니다({describe_error(error)}).\n"
            "조금 뒤에 다시 실행하세요. 다 받은 파일은 다시 받지 않습니다."
        )
    return UserError(f"{flag}={name}: {words}")


def _is_of_hub(error):
    from huggingface_hub.errors import EntryNotFoundError, FileMetadataError, HTTPError

    if isinstance(error, EntryNotFoundError):
        return False
    is_cut = "Consistency check failed" in str(error)  # an OSError like others
    # The last is of hf_xet, which fetches large files.
    return is_cut or isinstance(error, (HTTPError, FileMetadataError, ConnectionError))


def _is_full(error):
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
