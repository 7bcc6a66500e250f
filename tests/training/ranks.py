"""One of two ranks: python ranks.py WAY WORDS, where WORDS are train.py's; tests/training/test_ranks.py starts it."""

import errno
import os
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from torch import distributed
from transformers import Trainer

import train
from gpt2_korean.checkpoints import atomic_files, lock
from gpt2_korean.ending import run_script
from gpt2_korean.speed import choose, graphs
from gpt2_korean.text import vocabulary
from gpt2_korean.training import muon
from gpt2_korean.training.muon import MuonWithAdamW


def average():
    """Assert that ranks start with the first one's weights and that each gets the mean of their gradients."""
    graphs.BUCKET, graphs.WARM_UP = 10, 10**9
    distributed.init_process_group("gloo")
    torch.manual_seed(distributed.get_rank())
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.LayerNorm(5), torch.nn.Linear(5, 2))
    graphs.start_alike(model)
    start = [weight.detach().clone() for weight in model.parameters()]
    everyone = [None, None]
    distributed.all_gather_object(everyone, start)
    assert all(torch.equal(one, other) for one, other in zip(*everyone, strict=True))
    model[0].bias.requires_grad_(False)
    step = graphs.RecordedStep(model.parameters(), torch.device("cpu"))
    for dtype, error in ((None, 1e-5), (torch.bfloat16, 1e-2)):

        def pass_(x, last, dtype=dtype):
            step(lambda inputs, items: backward(model(inputs["x"])), {"x": x}, torch.tensor(1))
            if last:
                graphs.average_over_ranks(list(model.parameters()), dtype)

        assert_mean(model, pass_, error)
    assert model[0].bias.grad is None


def average_products():
    """The same of products that add gradients themselves, where DistributedDataParallel averages them."""
    from gpt2_korean.speed.layer import multiply

    class Products(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Parameter(torch.randn(3, 5)), torch.nn.Parameter(torch.randn(5, 2))

        def forward(self, x):
            return multiply(multiply(x, self.first).tanh(), self.second)

    distributed.init_process_group("gloo")
    model = Products()
    wrapped = torch.nn.parallel.DistributedDataParallel(model)

    def pass_(x, last):
        with nullcontext() if last else wrapped.no_sync():
            backward(wrapped(x))

    for _ in range(3):  # the first pass is not as the others: DistributedDataParallel then orders its buckets
        assert_mean(model, pass_, 1e-5)


def backward(y):
    y.square().sum().backward()
    return y.sum().detach()


def assert_mean(model, pass_, error):
    """Assert that after three passes each weight's gradient is the mean over ranks of those that autograd sums up."""
    torch.manual_seed(distributed.get_rank() + 5)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    inputs = torch.randn(3, 4, 3)
    model.zero_grad()
    own, everyone = torch.autograd.grad(model(inputs.flatten(0, 1)).square().sum(), weights), [None, None]
    distributed.all_gather_object(everyone, own)
    assert not torch.equal(everyone[0][0], everyone[1][0])
    for number, x in enumerate(inputs):
        pass_(x, number == 2)
    for weight, one, other in zip(weights, *everyone, strict=True):
        torch.testing.assert_close(weight.grad, (one + other) / 2, rtol=error, atol=error)


def step_by_muon():
    """Assert that ranks that share Muon's work take the steps that one takes alone: here of five and of one matrix."""

    def step(dtype):
        muon._precision = lambda device: dtype
        torch.manual_seed(0)
        own = [torch.nn.Parameter(torch.randn(shape)) for shape in [(6, 8)] * 5 + [(4, 12), (3,)]]
        for weight in own:
            weight.grad = torch.randn_like(weight)
        groups = [{"params": own[:5], "matrices": 1}, {"params": own[5:6], "matrices": 3}, {"params": own[6:]}]
        MuonWithAdamW(groups).step()
        return own

    alone = step(torch.float32), step(torch.bfloat16)
    distributed.init_process_group("gloo")
    shared = step(torch.float32), step(torch.bfloat16)
    torch.testing.assert_close(shared, alone, rtol=1e-6, atol=1e-7)
    everyone = [None, None]
    distributed.all_gather_object(everyone, shared)
    torch.testing.assert_close(*everyone, rtol=0, atol=0)


def save_slowly(save=Trainer._save, sync=atomic_files.sync):
    """Have the first rank still write, and files come and go, when the second has nothing left to save."""

    def slow_save(self, output_dir=None, state_dict=None):
        if not self.args.should_save:
            return save(self, output_dir, state_dict)
        passing = [Path(output_dir) / f"passing-{number}" for number in range(20)]
        Path(output_dir).mkdir(exist_ok=True)
        for path in passing:
            path.touch()
        time.sleep(0.4)
        save(self, output_dir, state_dict)
        for path in passing:
            path.unlink()

    def slow_sync(folder):
        time.sleep(0.2)
        atomic_files._sync_path, at_once = lambda path: (time.sleep(0.02), at_once(path)), atomic_files._sync_path
        sync(folder)
        atomic_files._sync_path = at_once

    Trainer._save, atomic_files.sync = slow_save, slow_sync


def signal_the_second_rank_in_its_third_step(number, step=Trainer.training_step):
    calls = []

    def stopped_step(self, *args, **kwargs):
        calls.append(None)
        if len(calls) == 3 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), number)
        return step(self, *args, **kwargs)

    Trainer.training_step = stopped_step


def fail_to_save_the_random_numbers_of_the_second_rank(save=Trainer._save_rng_state):
    def full(self, folder):
        if os.environ["RANK"] == "1":
            raise OSError(errno.ENOSPC, "stands in for a disk that is full")
        save(self, folder)

    Trainer._save_rng_state = full


def learn_a_vocabulary(differs, train_tokenizer=vocabulary.train_tokenizer):
    """Tell who learns one; where it `differs`, the second rank finds none and learns it from other texts."""

    def told(texts, *sizes):
        print(f"rank {os.environ['RANK']} learns", file=sys.stderr)
        return train_tokenizer(texts, *sizes)

    vocabulary.train_tokenizer = told
    if differs and os.environ["RANK"] == "1":
        vocabulary.learn_tokenizer = lambda documents, *sizes: told(documents["text"][1:], *sizes)


if __name__ == "__main__":
    way = sys.argv.pop(1)
    if way == "average":
        sys.exit(average())
    if way == "products":
        sys.exit(average_products())
    if way == "muon":
        sys.exit(step_by_muon())
    if way == "stopped":
        signal_the_second_rank_in_its_third_step(signal.SIGUSR1)
    elif way == "killed":
        signal_the_second_rank_in_its_third_step(signal.SIGKILL)
    elif way == "full":
        fail_to_save_the_random_numbers_of_the_second_rank()
    elif way == "other texts":
        sys.argv += ["--dataset_path=data/korean_texts.txt"] if os.environ["RANK"] == "1" else []
    elif way == "other disk":
        lock.SHARED_SECONDS = 0
        sys.argv += [f"--output_dir={os.environ['TMPDIR']}/other disk"] if os.environ["RANK"] == "1" else []
    elif way in ("learnt", "learnt otherwise"):
        learn_a_vocabulary(differs=way == "learnt otherwise")
    else:
        save_slowly()
    if way == "recorded":  # as on GPUs that have graphs, but for the replay
        choose.has_graphs, graphs.WARM_UP = lambda device: True, 10**9
        sys.argv.append("--device_graphs")
    sys.exit(run_script(train.main))
