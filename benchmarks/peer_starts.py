"""Starts of a new vocabulary that others have published, as their own packages compute them, for adaptation.py.

Each takes (rows, old, new, ids): the old model's embeddings [old vocab, width], the two byte-level tokenizers and the
corpus as tokens of the new one, int64 [n]; and gives rows [new vocab, width] on the device of the old ones. Nothing is
downloaded. Their packages are no part of requirements.txt, and want older ones beside them than they need:

    pip install --no-deps tokenizer-adapter deepfocus fasttext-numpy2-wheel entmax fastdist print-on-steroids mergekit
    pip install numba scipy rich pydantic immutables
"""

import contextlib
import importlib
import io
import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from gpt2_korean.model import embeddings


def adapter(rows, old, new, ids):
    """tokenizer-adapter's default: the mean of what the old tokenizer makes of the token's text."""
    from tokenizer_adapter import TokenizerAdapter

    adapting = TokenizerAdapter("average")
    with _silence():
        pairs = adapting.prepare_correspondance_dict(new, old)
        return adapting.process_single_tensor(rows.cpu(), pairs).to(rows)


def focus(rows, old, new, ids):
    """FOCUS (Dobler and de Melo 2023, arXiv 2305.14481), by deepfocus: sparsemax over the tokens that both have.

    The fastText vectors it compares them by are trained on the corpus with deepfocus's settings, but from tokens that
    are cut already, and with a tenth of fastText's table of n-grams: 800 MB written and read would be most of the time.
    """
    import fasttext
    from deepfocus import FOCUS

    with tempfile.TemporaryDirectory() as folder, _silence():
        text, vectors = Path(folder, "tokens.txt"), Path(folder, "vectors.bin")
        names = new.convert_ids_to_tokens(range(len(new)))
        names[new.eos_token_id] = "\n"
        text.write_text(" ".join(map(names.__getitem__, ids.tolist())), "utf-8")
        settings = {"model": "cbow", "dim": 100, "neg": 10, "epoch": 3, "minCount": 10, "bucket": 200_000}
        trained = fasttext.train_unsupervised(str(text), thread=os.cpu_count(), verbose=0, **settings)
        trained.save_model(str(vectors))
        return FOCUS(new, old, rows.cpu(), fasttext_model_path=str(vectors), verbosity="silent").to(rows)


def omp(rows, old, new, ids, atoms=64, batch=4096):
    """Orthogonal matching pursuit (Goddard and Fernandes Neto 2025, arXiv 2506.06607), by mergekit-tokensurgeon.

    A token's vector in a donor model is rebuilt from those of `atoms` tokens that both vocabularies have, and its row
    from the same tokens' rows. No donor is at hand: what stands in for its embeddings is how the corpus uses a token.
    """
    from mergekit.tokensurgeon import batch_omp

    pieces = embeddings.find_pieces(old, new)
    result = embeddings.mean_of_pieces(rows, pieces)
    donor = embeddings.usage_vectors(ids, len(new), rows.shape[1]).to(rows)
    kept = torch.tensor([len(piece) == 1 for piece in pieces], device=rows.device)
    shared = (kept & (torch.bincount(ids, minlength=len(new)) > 0)).nonzero().flatten()
    for wanted in (~kept).nonzero().flatten().split(batch):
        chosen, shares = batch_omp(donor[wanted], donor[shared], min(atoms, len(shared)))
        result[wanted] = torch.bmm(shares[:, None], result[shared][chosen])[:, 0]
    return result


PEERS = {"adapter": adapter, "focus": focus, "omp": omp}
_MODULES = {"adapter": ["tokenizer_adapter"], "focus": ["deepfocus", "fasttext"], "omp": ["mergekit.tokensurgeon"]}


def is_ready(method):
    """Whether `method` has what it needs: a peer's packages, which are imported now, off the clock."""
    try:
        for module in _MODULES.get(method, []):
            importlib.import_module(module)
    except ImportError as error:
        print(f"{method} is left out: {error}", flush=True)
        return False
    if method == "focus":  # numba compiles for half a minute
        from fastdist import fastdist

        fastdist.cosine_matrix_to_matrix(*np.ones((2, 1, 2), "float32"))
    return True


@contextlib.contextmanager
def _silence():
    nothing = io.StringIO()
    with contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
        yield
