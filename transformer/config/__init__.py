"""An experiment's ConfigDict as frozen dataclasses; bad values are refused here, with a reason.

`experiments/base.py` documents every key, `experiments/compare.py` those of a comparison. Here
stand the same names with their types, and what each value must satisfy. `from_dict` refuses a key
that is unknown (naming the nearest one), one that is missing, a value of another type, and whatever
a section's `__post_init__` finds wrong.
"""

from transformer.config.comparison import ComparisonConfig, ReachConfig, SpeedConfig
from transformer.config.data import (
    DataConfig,
    LeaveOutConfig,
    PartConfig,
    RecallConfig,
    TokenizerConfig,
)
from transformer.config.model import AttentionConfig, ModelConfig, PositionsConfig, RecurrentConfig
from transformer.config.overrides import override
from transformer.config.parse import from_dict
from transformer.config.resolved import (
    Config,
    DecodingConfig,
    DistributedConfig,
    EvaluationConfig,
    MeshConfig,
    ShardingConfig,
    digest_of,
)
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
    "digest_of",
    "from_dict",
    "override",
]
