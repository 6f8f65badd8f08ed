"""Is a checkpoint that cannot be written removed, said in one message, and the earlier ones left alone?"""

import errno

import pytest
import torch
from safetensors import SafetensorError

from dasd.config import RunFailed
from dasd.training.checkpoints import keep_newest, last_checkpoint, saving


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


def test_the_newest_whole_checkpoints_are_kept_whatever_their_times(tmp_path):
    """2 was half deleted just now, its state last; 8 is torn; 4 is the best."""
    for step in (2, 4, 6, 8, 10, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{" if step == 8 else "{}")
    (tmp_path / "checkpoint-2" / "new").touch()
    (tmp_path / "checkpoint-mine").mkdir()
    keep_newest(tmp_path, 2, best=str(tmp_path / "checkpoint-4"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-10",
        "checkpoint-12",
        "checkpoint-4",
        "checkpoint-mine",
    ]


def test_a_deletion_that_is_cut_off_leaves_no_checkpoint(tmp_path, monkeypatch):
    for step in (2, 4):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    monkeypatch.setattr("shutil.rmtree", lambda path, **_: None)
    keep_newest(tmp_path, 1)
    (tmp_path / "checkpoint-4" / "trainer_state.json").unlink()
    assert (tmp_path / "checkpoint-2").exists()
    assert last_checkpoint(tmp_path) is None


def test_training_keeps_as_many_as_asked_for(train, tmp_path):
    train(save_strategy="steps", save_steps=1, max_steps=3, save_total_limit=2)
    assert sorted(path.name for path in tmp_path.rglob("checkpoint-*")) == ["checkpoint-2", "checkpoint-3"]
