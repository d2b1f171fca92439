"""An experiment's configuration: each key with its type, default, meaning and check, in one place.

Each section is a frozen dataclass whose fields are the keys. `base()` makes a ConfigDict of them,
for experiment files; `from_dict` makes the dataclasses of a ConfigDict, and refuses a key that is
unknown (naming the nearest one, or its new name), a value of another type, and what a check finds.
"""

from transformer.config.comparison import ComparisonConfig, ReachConfig, SpeedConfig
from transformer.config.data import DataConfig, LeaveOutConfig, TokenizerConfig
from transformer.config.decoding import DecodingConfig, EvaluationConfig
from transformer.config.defaults import base, base_comparison, smoke, with_variants
from transformer.config.devices import DistributedConfig, MeshConfig, ShardingConfig
from transformer.config.experiment import (
    Config,
    digest_of,
    from_dict,
    is_default,
)
from transformer.config.experiment_files import load_config, load_rows
from transformer.config.model import AttentionConfig, ModelConfig, PositionsConfig, RecurrentConfig
from transformer.config.overrides import override
from transformer.config.sources import PartConfig, RecallConfig
from transformer.config.training import (
    CheckpointsConfig,
    DivergenceConfig,
    EarlyStoppingConfig,
    OptimizerConfig,
    TrainingConfig,
)

__all__ = [
    "AttentionConfig",
    "CheckpointsConfig",
    "ComparisonConfig",
    "Config",
    "DataConfig",
    "DecodingConfig",
    "DistributedConfig",
    "DivergenceConfig",
    "EarlyStoppingConfig",
    "EvaluationConfig",
    "LeaveOutConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PartConfig",
    "PositionsConfig",
    "ReachConfig",
    "RecallConfig",
    "RecurrentConfig",
    "ShardingConfig",
    "SpeedConfig",
    "TokenizerConfig",
    "TrainingConfig",
    "base",
    "base_comparison",
    "digest_of",
    "from_dict",
    "is_default",
    "load_config",
    "load_rows",
    "override",
    "smoke",
    "with_variants",
]
