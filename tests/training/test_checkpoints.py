"""Is a checkpoint that cannot be written removed, said in one message, and the earlier ones left alone?"""

import errno

import pytest
import torch
from safetensors import SafetensorError

from dasd.config import RunFailed
from dasd.training.checkpoints import last_checkpoint, saving


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("unexpected pos 16725"), SafetensorError("serializing")],
)
def test_what_was_not_written_whole_is_removed(tmp_path, error):
    folder = tmp_path / "checkpoints" / "checkpoint-2"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"half")
    with pytest.raises(RunFailed, match=r"checkpoint-2 could not be written .* MiB free there"), saving(folder):
        raise error
    assert not folder.exists()


def test_other_errors_pass(tmp_path):
    with pytest.raises(ZeroDivisionError), saving(tmp_path / "x"):
        1 / 0  # noqa: B018


def test_a_full_disk_stops_training_and_keeps_the_last_good_checkpoint(train, tmp_path, monkeypatch):
    """The second save fails as torch does on a full disk."""
    saves, save = [], torch.save

    def full(value, file, *args, **kwargs):
        if str(file).endswith("optimizer.pt"):
            saves.append(file)
            if len(saves) == 2:
                raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 1672512 vs 1672404")
        return save(value, file, *args, **kwargs)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RunFailed, match="checkpoint-2 could not be written"):
        train(save_strategy="steps", save_steps=1, max_steps=3)
    [found] = tmp_path.rglob("checkpoint-*")
    assert found.name == "checkpoint-1"
    assert last_checkpoint(found.parent) == found
