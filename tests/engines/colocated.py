"""`dasd train` with vLLM in the same process, on a CPU: `colocated.py CONFIG OVERRIDES`. Run by `test_vllm_training.py`.

dasd refuses this, and rightly: vLLM's CPU backend repacks each weight for its own kernels and drops the original, so the new
weights after an update have nowhere to go. Here its linear layers keep the plain weight and multiply by it with torch, which is
slower; then everything else runs as on a GPU: TRL's synchronisation, vLLM's scheduler, sampler and log-probs.
"""

import sys

import torch
import vllm
from vllm.model_executor.layers import utils

from dasd.cli import main
from dasd.training import vllm as checks


def keep_weights(layer, remove_weight):
    layer.cpu_linear = torch.nn.functional.linear


class Eager(vllm.LLM):
    """Without compiling, which takes a minute on a CPU and gains nothing in two steps."""

    def __init__(self, *args, **options):
        super().__init__(*args, enforce_eager=True, **options)


utils.dispatch_cpu_unquantized_gemm = keep_weights
checks.refuse_cpu = lambda arguments: None
vllm.LLM = Eager  # before TRL imports it

if __name__ == "__main__":
    sys.argv[1:1] = ["train"]
    main()
