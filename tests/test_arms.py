"""Do two arms run side by side, does a failure of the second reach the first, and does none outlive the other?"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dasd.arms import LOG, beside
from dasd.config import BadInput, RunFailed


def note(path: Path, words: str) -> None:
    print(f"writing {words}")
    path.write_text(f"{words} {torch.get_num_threads()} {os.getpid()}")


def fail(words: str) -> None:
    raise BadInput(words)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_it_runs_in_a_process_of_its_own_on_half_of_the_threads(tmp_path):
    with beside(note, tmp_path / "note", "both", folder=tmp_path):
        assert torch.get_num_threads() == 1
    words, threads, process = (tmp_path / "note").read_text().split()
    assert (words, threads) == ("both", "1")
    assert int(process) != os.getpid()
    assert (tmp_path / LOG).read_text() == "writing both\n"
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_its_failure_is_a_failure_with_its_last_words(tmp_path):
    with pytest.raises(RunFailed, match=r"failed: no such data .*log\.txt"), beside(fail, "no such data", folder=tmp_path):
        pass


def test_one_thread_does_one_after_the_other(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with beside(note, tmp_path / "note", "after", folder=tmp_path):
            assert not (tmp_path / "note").exists()
    finally:
        torch.set_num_threads(before)
    assert (tmp_path / "note").read_text().split()[2] == str(os.getpid())


def wait_long(path: Path) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(120)


SCRIPT = """
import sys, time, torch
from pathlib import Path
sys.path.insert(0, {tests!r})
from dasd.arms import beside
from test_arms import wait_long
if __name__ == "__main__":
    torch.set_num_threads(2)
    with beside(wait_long, Path({note!r}), folder=Path({folder!r})):
        time.sleep(120)
"""


def test_a_killed_job_leaves_no_worker_behind(tmp_path):
    script, written = tmp_path / "job.py", tmp_path / "note"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), note=str(written), folder=str(tmp_path)))
    job = subprocess.Popen([sys.executable, str(script)])
    for _ in range(600):
        if written.exists() and written.read_text():
            break
        time.sleep(0.1)
    worker = int(written.read_text())
    job.send_signal(signal.SIGKILL)
    job.wait()
    for _ in range(100):
        if not Path(f"/proc/{worker}").exists():
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker outlived its job")
