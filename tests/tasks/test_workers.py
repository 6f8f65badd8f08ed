"""Is every call answered in order, and does one that hangs, raises, dies or eats memory cost only itself?"""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from dasd.tasks.workers import WorkerPool


@pytest.fixture(scope="module")
def ev():
    pool = WorkerPool("builtins", "eval", size=2)
    assert pool.map([("1",), ("2",)], 20.0) == [1, 2]
    yield pool
    pool.stop()


def test_values_come_in_the_order_of_the_calls(ev):
    calls = [(f"__import__('time').sleep({0.02 * (n % 3)}) or {n}",) for n in range(20)]
    assert ev.map(calls, 20.0) == list(range(20))
    assert ev.map([], 20.0) == []


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param("__import__('time').sleep(60)", id="hangs"),
        pytest.param("9**9**9", id="hangs inside one operation"),
        pytest.param("1 / 0", id="raises"),
        pytest.param("__import__('os')._exit(3)", id="dies"),
        pytest.param("len(bytes(2**33))", id="eats memory"),
        pytest.param("exit()", id="leaves"),
        pytest.param("lambda: 0", id="returns what cannot be sent"),
    ],
)
def test_a_hostile_call_is_none_and_the_others_are_answered(ev, hostile):
    calls = [(str(n),) for n in range(10)]
    calls[3] = (hostile,)
    started = time.monotonic()
    assert ev.map(calls, 1.0) == [0, 1, 2, None, *range(4, 10)]
    assert time.monotonic() - started < 1.0 + 15.0


def test_workers_are_replaced_after_some_calls():
    pool = WorkerPool("builtins", "eval", size=1, max_calls=5)
    pids = pool.map([("__import__('os').getpid()",)] * 12, 20.0)
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [5, 5, 2]
    pool.stop()


def test_a_worker_that_cannot_start_is_an_error_with_its_exit_code():
    pool = WorkerPool("dasd.no_such_module", "nothing", size=1)
    with pytest.raises(RuntimeError, match=r"no_such_module.*exit code 1"):
        pool.map([("1",)], 1.0)
    pool.stop()


def test_an_interrupted_batch_leaves_no_stale_answer(ev):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            ev.map([("__import__('time').sleep(1) or 'stale'",)] * 2, 20.0)
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
    assert ev.map([("'fresh'",)] * 4, 20.0) == ["fresh"] * 4


def test_a_script_without_a_main_guard_can_use_it(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from dasd.tasks.workers import WorkerPool\n"
        "print(WorkerPool('builtins', 'eval', size=2).map([('1 + 1',), ('2 + 2',)], 20.0))\n"
    )
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert (run.stdout, run.returncode) == ("[2, 4]\n", 0), run.stderr


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    code = (
        "from dasd.tasks.workers import WorkerPool\n"
        "import os, signal\n"
        "pool = WorkerPool('builtins', 'eval', size=1)\n"
        "print(pool.map([('__import__(\"os\").getpid()',)], 20.0)[0], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{int(run.stdout)}/cmdline") and time.monotonic() < deadline:
        with open(f"/proc/{int(run.stdout)}/stat") as file:
            if file.read().split()[2] == "Z":
                break
        time.sleep(0.05)
    else:
        assert not os.path.exists(f"/proc/{int(run.stdout)}/cmdline")


def test_what_a_call_prints_is_no_figure(capfd):
    """With --json, a verifier that prints spoiled the figures on standard output."""
    pool = WorkerPool("builtins", "print", size=1)
    pool.map([("from a verifier",)], 10.0)
    pool.stop()
    said = capfd.readouterr()
    assert "from a verifier" not in said.out
