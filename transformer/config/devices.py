"""A mesh of devices, what is split over it, and several processes of one run."""

from dataclasses import dataclass

from transformer.config.fields import Section, checked, not_negative, positive, require


def _axis(key: str, value: int) -> None:
    require(
        value == -1 or value > 0, f"{key} is {value}; give a number, or -1 for all that are left"
    )


@dataclass(frozen=True)
class MeshConfig(Section, section="mesh"):
    """Devices along each axis; -1: all that are left."""

    data: int = checked(-1, _axis)
    """Data parallelism: batch rows split, parameters copied."""
    fsdp: int = checked(1, _axis)
    """Fully sharded data parallelism: batch rows and parameters split."""
    tensor: int = checked(1, _axis)
    """Tensor parallelism: heads, feed-forward and vocabulary split."""
    sequence: int = checked(1, _axis)
    """Sequence parallelism (context parallelism): positions split, in encoder, decoder and loss."""


@dataclass(frozen=True)
class ShardingConfig(Section, section="sharding"):
    """Which axes of the mesh split which logical axes of arrays."""

    rules: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("batch", ("data", "fsdp")),
        ("length", ("sequence",)),
        ("embed", ("fsdp",)),
        ("hidden", ()),
        ("heads", ("tensor",)),
        ("kv_heads", ("tensor",)),
        ("head_size", ()),
        ("mlp", ("tensor",)),
        ("gates", ()),
        ("state", ("tensor",)),
        ("vocab", ("tensor",)),
        ("layers", ()),
    )
    """Logical axis → mesh axes; (): not split."""


def _coordinator(key: str, value: str) -> None:
    host, _, port = value.rpartition(":")
    require(
        not value or (host != "" and port.isdigit()),
        f"{key} is {value!r}; give host:port of process 0",
    )


@dataclass(frozen=True)
class DistributedConfig(Section, section="distributed"):
    """Several processes of one run."""

    enabled: bool = False
    """Several processes, one run: each starts the same command."""
    coordinator: str = checked("", _coordinator)
    """host:port of process 0; "": found from the environment."""
    processes: int = not_negative(0)
    """How many; 0: found from the environment."""
    process: int = -1
    """Which one this is; -1: found from the environment."""
    timeout: float = positive(300.0)
    """Seconds to wait for the others at the start."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.processes == 0 or self.process < self.processes,
            f"distributed.process is {self.process} of {self.processes}; they count from 0",
        )
