"""Several processes train as one would."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from test_training import config, losses
from transformers import AutoModelForCausalLM

from jinyong_gpt2.training import train

ROOT = Path(__file__).resolve().parent.parent

WORKER = """
import os, signal, sys
from jinyong_gpt2 import training
settings = eval(sys.argv[1])
victim = settings.pop("victim", None)
if os.environ.get("ACCELERATE_USE_FSDP"):
    # Accelerate shards where there are GPUs alone: here it is told that the CPU may be sharded on too.
    from accelerate.state import AcceleratorState, DistributedType
    begin = AcceleratorState.__init__
    def begin_sharded(self, *args, fsdp_plugin=None, **options):
        begin(self, *args, fsdp_plugin=fsdp_plugin, **options)
        self.distributed_type = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin or self.fsdp_plugin
    AcceleratorState.__init__ = begin_sharded
for metrics in training.train(training.TrainConfig(**settings)):
    if victim == os.environ["RANK"] and metrics["step"] >= 10:
        os.kill(os.getpid(), signal.SIGKILL)
"""


# What `accelerate launch --use_fsdp --fsdp_version 2` sets.
SHARDED = {
    "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
}  # fmt: skip


def launch(settings, processes=2, timeout=600, variables=(), **extra):
    """Train in so many gloo processes of this machine; the completed launcher."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    worker = Path(settings.output_dir).parent / "worker.py"
    worker.write_text(WORKER)
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)),
        *("--master_addr", "127.0.0.1", "--master_port", str(port)),
        *(str(worker), repr({**settings.__dict__, **extra})),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **dict(variables)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, cwd=ROOT)


@pytest.fixture(scope="module")
def alone(prepared, tmp_path_factory):
    settings = config(prepared, tmp_path_factory.mktemp("alone") / "run", dropout=0.0)
    return list(train(settings))


def test_two_processes_give_the_losses_of_one(prepared, alone, tmp_path):
    settings = config(prepared, tmp_path / "run", dropout=0.0)
    done = launch(settings)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 21))
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in alone], rel=1e-3)
    measured = [[r["heldout_bits_per_char"] for r in run if "heldout_bits_per_char" in r] for run in (rows, alone)]
    assert measured[0] == pytest.approx(measured[1], rel=1e-3)


def test_a_run_goes_on_with_two_processes_and_then_with_one(prepared, alone, tmp_path):
    settings = config(prepared, tmp_path / "run", dropout=0.0, stop_after=5)
    list(train(settings))
    settings.stop_after, settings.resume = 12, True
    done = launch(settings)
    assert done.returncode == 0, done.stderr[-3000:]
    settings.stop_after = None
    list(train(settings))
    assert list(losses(tmp_path / "run").values()) == pytest.approx([row["loss"] for row in alone], rel=1e-3)


def test_one_dying_ends_the_run_with_a_message(prepared, tmp_path):
    settings = config(prepared, tmp_path / "run", dropout=0.0, max_steps=100_000, save_every=5)
    done = launch(settings, victim="1")
    assert done.returncode != 0
    assert "SIGKILL" in done.stderr or "exitcode: -9" in done.stderr.replace(" ", "")
    assert (tmp_path / "run" / "last" / "training_state.pt").is_file()


def test_a_batch_that_cannot_be_shared_is_refused(prepared, tmp_path):
    done = launch(config(prepared, tmp_path / "run", batch_size=3))
    assert done.returncode != 0 and "must be a multiple of the 2 processes" in done.stderr


def test_sharded_weights_train_save_and_resume_as_whole_ones(prepared, alone, tmp_path):
    """One process, then two that share every tensor (FSDP2), then one again: the losses of one all along."""
    settings = config(prepared, tmp_path / "run", dropout=0.0, stop_after=5)
    list(train(settings))
    settings.stop_after, settings.resume = 12, True
    done = launch(settings, variables=SHARDED)
    assert done.returncode == 0, done.stderr[-3000:]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "last")
    assert model.lm_head.weight is model.transformer.wte.weight
    settings.stop_after = None
    list(train(settings))
    assert list(losses(tmp_path / "run").values()) == pytest.approx([row["loss"] for row in alone], rel=1e-3)
