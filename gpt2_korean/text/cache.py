"""What is made of texts, kept in the cache of the datasets library: a second run on the same text starts at once.

It lies there under a fingerprint of what it is made from and of the code that makes it.
"""

import contextlib
import errno
import os
import secrets
from pathlib import Path

from gpt2_korean.messages import UserError, describe_os_error, warn_of_failure

FOLDER = "gpt2-korean"  # in the library's cache: what may be deleted without what was downloaded
MOST_ROWS = 10_000  # of a table that is written as it is; a longer one would be cut


def cached_dataset(generator, arguments, identity, features=None, rows=MOST_ROWS):
    """The pyarrow Tables of `generator(**arguments)`, at least one row, as one datasets.Dataset cached under `identity`
    (anything picklable).

    features: a datasets.Features, where the first table does not tell. rows: how many stand in memory at most where
    tables have one each, which datasets gathers. Raises what the generator raises; nothing half-made stays in the
    cache, and of several processes that ask for the same one makes it and the others wait.
    """
    import datasets
    from datasets.exceptions import DatasetGenerationError
    from datasets.fingerprint import Hasher

    fingerprint = Hasher.hash([identity, hash_code()])

    class Tables(datasets.ArrowBasedBuilder):  # Dataset.from_generator takes rows alone: reading took twice as long
        def _info(self):
            return datasets.DatasetInfo(features=features)

        def _split_generators(self, _):
            return [datasets.SplitGenerator("train")]

        def _generate_tables(self):
            yield from enumerate(generator(**arguments))

    place = Path(datasets.config.HF_DATASETS_CACHE, FOLDER, fingerprint)

    def open_cache():
        builder = Tables(config_id=fingerprint, writer_batch_size=rows)
        builder.download_and_prepare(str(place))
        dataset = builder.as_dataset("train")
        if len(dataset) != builder.info.splits["train"].num_examples:  # a file that a power cut emptied reads as short
            raise OSError
        return dataset

    datasets.disable_progress_bars()  # the generators show their own, in their own units
    try:
        try:
            return open_cache()
        except (OSError, ValueError):  # some of its files were cleared away, or half of one was written
            (place / datasets.config.DATASET_INFO_FILENAME).unlink(missing_ok=True)  # its mark of a whole cache
            return open_cache()
    except DatasetGenerationError as error:
        cause = error.__cause__ or error
        if isinstance(cause, OSError) and cause.filename is None:  # a full disk; what cannot be read has a name
            raise _no_cache(cause) from None
        raise cause from None
    except OSError as error:
        # datasets finds no byte free before it begins, and says so in words alone
        raise _no_cache(error if error.errno else OSError(errno.ENOSPC, "")) from None
    finally:
        datasets.enable_progress_bars()


def _no_cache(error):
    """The UserError for a cache that cannot be written."""
    import datasets

    error.filename = error.filename or str(datasets.config.HF_DATASETS_CACHE)
    # Not HF_HOME: another one would lack the downloaded models, which a cluster may keep for all its users.
    way_on = "글의 캐시를 다른 곳에 두려면 환경 변수 HF_DATASETS_CACHE에 그 폴더를 주세요."
    return UserError(f"{describe_os_error(error)}\n{way_on}")


def hash_code():
    """A hash of the code that makes rows of texts: it is part of what the rows are."""
    from datasets.fingerprint import Hasher

    return Hasher.hash([module.read_bytes() for module in sorted(Path(__file__).parent.glob("*.py"))])


def when_changed(path):
    """What a file's state says of its content, a tuple: another where it was written since.

    Copying, unpacking or touching a file may set its time of writing back; nothing sets st_ctime back.
    """
    state = path.stat()
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


def kept_beside(dataset, name):
    """The path of what is kept with a Dataset in its cache, None where it is not cached."""
    files = getattr(dataset, "cache_files", None)
    return Path(files[0]["filename"]).with_name(f"{dataset._fingerprint}-{name}") if files else None


def one_makes(path):
    """A context in which one process makes what is kept at a path of kept_beside, while others wait to enter it."""
    from filelock import FileLock

    return contextlib.nullcontext() if path is None else FileLock(f"{path}.lock")


def keep(path, content):
    """Write bytes to a path of kept_beside, whole or not at all; without a path nothing is written."""
    if path is not None:
        keep_file(path, lambda file: file.write_bytes(content), "만든 것을 저장하지 못해 다음에 다시 만듭니다")


def keep_file(path, write, failure):
    """Have `write(a path)` make what becomes the file `path`, whole or not at all; warn of an OSError as `failure`."""
    unfinished = path.with_suffix(f".{secrets.token_hex(8)}")  # not the process's number: two containers may share one
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(unfinished)
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        warn_of_failure(error, f"{path.parent}: {failure} ({error}).")
    finally:
        with contextlib.suppress(OSError):  # after a signal too: it may be as large as a model
            unfinished.unlink(missing_ok=True)
