"""Does a process that is done leave the others, so that it ends by itself?"""

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
