"""What can be set: `core` reads it, `parts` are the sections with their defaults, `commands` one config for each command."""

from dasd.config.commands import EvalConfig, ProbeConfig, RunConfig, TokensConfig
from dasd.config.core import BadInput, RunFailed, Section, dump_config, load_config, make_config, nearest, validate
from dasd.config.parts import (
    BUNDLED,
    TASKS,
    ColumnsConfig,
    ContextKind,
    DataConfig,
    JudgeConfig,
    MethodConfig,
    ModelConfig,
    SamplerConfig,
    SourceConfig,
    TeacherConfig,
    TrainingConfig,
    ValidationConfig,
)

__all__ = [
    "BUNDLED",
    "TASKS",
    "BadInput",
    "ColumnsConfig",
    "ContextKind",
    "DataConfig",
    "EvalConfig",
    "JudgeConfig",
    "MethodConfig",
    "ModelConfig",
    "ProbeConfig",
    "RunConfig",
    "RunFailed",
    "SamplerConfig",
    "Section",
    "SourceConfig",
    "TeacherConfig",
    "TokensConfig",
    "TrainingConfig",
    "ValidationConfig",
    "dump_config",
    "load_config",
    "make_config",
    "nearest",
    "validate",
]
