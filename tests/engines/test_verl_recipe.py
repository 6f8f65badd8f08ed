"""Does verl compose what the recipes say, and does dasd's trainer accept it?"""

import os
import re
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("verl")
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from verl.trainer.ppo.utils import need_critic, need_reference_policy

from dasd.config import BadInput
from dasd.verl import settings

RECIPES = sorted((Path(__file__).parents[2] / "recipes" / "verl").glob("*.sh"))


def test_a_method_that_is_refused_names_others_that_are_not(tmp_path):
    with pytest.raises(BadInput, match=r"needs \w+, which dasd does not compute under verl: .*\((.*)\)") as caught:
        settings.read({"method": {"name": "sdpo"}})
    for name in re.findall(r"\(([\w, ]+)\)", str(caught.value))[0].split(", "):
        settings.read({"method": {"name": name}})
    own = tmp_path / "mine.py"
    own.write_text("def method(signals):\n    return signals\nmethod.needs = frozenset({'teacher_entropies'})\n")
    with pytest.raises(BadInput, match="needs teacher_entropies, which comes with a teacher"):
        settings.read({"method": {"name": f"{own}:method"}})


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_is_sound(path, tmp_path):
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any("Tested on:" in line for line in header)
    assert any(f"bash recipes/verl/{path.name}" in line for line in header)
    python = tmp_path / "python"  # says what it is started with
    python.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    python.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    said = subprocess.run(["bash", str(path)], env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[:2] == ["-m", "verl.trainer.main_ppo"]
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=said[2:])  # an unknown key would be refused
    assert config.trainer.v1.trainer_mode == "dasd"
    read, method, context = settings.read(OmegaConf.to_container(config.dasd, resolve=True))
    settings.check(config, read, method, need_reference_policy(config), False, need_critic(config))
    assert (method.beta, context.kind) == (0.1, "answer")
    rollout, data = config.actor_rollout_ref.rollout, config.data
    assert rollout.log_prob_max_token_len_per_gpu >= 2 * data.max_prompt_length + data.max_response_length
    assert data.train_batch_size * rollout.n % (config.trainer.nnodes * config.trainer.n_gpus_per_node) == 0
