"""CPUs as a platform of verl's, which knows NVIDIA's, AMD's and Huawei's alone: for tests of its engine and its loop.

verl's own FSDP2 engine then runs as it is, on gloo. `VERL_USE_EXTERNAL_MODULES=verl_cpu` brings it into every process of Ray.
"""

import contextlib
import os
from types import SimpleNamespace

import torch
from verl.plugin.platform import platform_manager
from verl.plugin.platform.platform_base import PlatformBase
from verl.utils import distributed

NOTHING = SimpleNamespace(
    memory_allocated=lambda *_: 0, memory_reserved=lambda *_: 0, max_memory_allocated=lambda *_: 0,
    max_memory_reserved=lambda *_: 0, mem_get_info=lambda *_: (0, 0), empty_cache=lambda: None, synchronize=lambda *_: None,
    reset_peak_memory_stats=lambda *_: None, set_device=lambda *_: None, current_device=lambda: "cpu",
    is_available=lambda: True,
    device_count=lambda: 1, get_rng_state=torch.get_rng_state, set_rng_state=torch.set_rng_state, manual_seed=torch.manual_seed,
    get_device_name=lambda *_: "cpu",
)  # fmt: skip


@platform_manager.PlatformRegistry.register("cpu")
class CPU(PlatformBase):
    device_name = vendor_name = "cpu"
    device_module = NOTHING

    def is_available(self):
        return True

    def current_device(self):
        return "cpu"

    def device_count(self):
        return 1

    def set_device(self, device_index):
        pass

    def synchronize(self, device_index=None):
        pass

    def manual_seed(self, seed):
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def set_allocator_settings(self, settings):
        pass

    def empty_cache(self):
        pass

    def get_device_capability(self, device_index=0):
        return None, None

    def communication_backend_name(self):
        return "gloo"

    def visible_devices_envvar(self):
        return "VISIBLE_CPUS"

    def nvtx_range(self, msg):
        return contextlib.nullcontext()

    def profiler_start(self):
        pass

    def profiler_stop(self):
        pass

    def ray_resource_name(self):
        return "GPU"  # Ray is told that it has some: a worker of verl asks for one

    def ray_noset_envvars(self):
        return []

    def is_ipc_supported(self):
        return False

    def cudart(self):
        return None


# Its default, "cpu:gloo" and a device's backend beside it, would name the CPU twice.
distributed.initialize_global_process_group_ray.__defaults__ = (None, "cpu:gloo")
os.environ["VERL_ENGINE_DEVICE"] = "cuda"  # the engine that is registered for NVIDIA's
platform_manager.set_platform(CPU())
