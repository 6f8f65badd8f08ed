"""Does a process that is done leave the others, and end as what it did, whatever libraries' threads do at its end?"""

import os
import subprocess
import sys

import pytest
import torch.distributed as dist

from dasd import processes
from dasd.commands import train as command
from dasd.config import RunConfig, dump_config, validate
from dasd.training import run


def join(folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)


def test_leaving_ends_the_group_and_asks_for_none(tmp_path):
    processes.leave()
    join(tmp_path)
    processes.leave()
    assert not dist.is_initialized()
    processes.leave()


def test_dasd_train_leaves_after_the_run(tmp_path, monkeypatch):
    (tmp_path / "config.yaml").write_text(dump_config(validate(RunConfig, {"output": str(tmp_path / "run")})))
    monkeypatch.setattr(run, "train", lambda config: join(tmp_path))
    monkeypatch.setattr(processes, "is_main", lambda: False)
    known = Known(config=tmp_path / "config.yaml", dry_run=False)
    assert command.run(known, []) == 0
    assert not dist.is_initialized()


class Known:
    def __init__(self, **values):
        self.__dict__ |= dict.fromkeys(("device", "gpu_memory", "processes", "sharding", "prompt_length")) | values


ABORTS = """
import atexit, os, sys
from pathlib import Path
from dasd import cli, processes

class Aborts:
    def __del__(self, abort=os.abort):
        abort()

kept = Aborts()  # as a thread of torch.distributed may, while the interpreter shuts down
atexit.register(Path(sys.argv[2]).touch)
print("said", end="")
cli.run = lambda arguments: int(sys.argv[1])
cli.main()
"""
SEVERAL = {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "2"}


def ends(code, file, stdout=subprocess.PIPE, **environment):
    command = [sys.executable, "-c", ABORTS, str(code), str(file)]
    return subprocess.run(command, env=os.environ | environment, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=120)


@pytest.mark.parametrize("code", [0, 2])
def test_one_of_several_ends_with_its_exit_code_whatever_aborts_its_interpreter(tmp_path, code):
    done = ends(code, tmp_path / "at-exit", **SEVERAL)
    assert (done.returncode, done.stdout, done.stderr) == (code, "said", "")
    assert (tmp_path / "at-exit").exists()


def test_a_process_alone_ends_as_python_does(tmp_path):
    assert ends(0, tmp_path / "at-exit").returncode < 0
    assert (tmp_path / "at-exit").exists()


def test_last_words_that_cannot_be_written_are_not_success(tmp_path):
    with open("/dev/full", "w") as full:
        assert ends(0, tmp_path / "at-exit", full, PYTHONUNBUFFERED="", **SEVERAL).returncode == processes.UNWRITTEN
