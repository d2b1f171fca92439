"""How much memory there is for arrays, by what the system says of it."""

from pathlib import Path

import pytest

from transformer import memory


def kernel(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"proc/meminfo": "MemTotal: 99 kB\nMemAvailable: 5 kB\nSwapFree: 2 kB\n"}, 7 * 1024),
        (
            {
                "proc/self/cgroup": "0::/jobs/7\n",
                "proc/meminfo": "MemAvailable: 5000 kB\n",
                "sys/fs/cgroup/jobs/7/memory.max": "max\n",
                "sys/fs/cgroup/jobs/memory.max": "3000\n",
                "sys/fs/cgroup/jobs/memory.current": "1000\n",
                "sys/fs/cgroup/jobs/memory.stat": "anon 7\nactive_file 200\ninactive_file 100\n",
            },
            2300,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/docker/a\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "3000\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "1000\n",
            },
            2000,
        ),
    ],
    ids=["unknown", "kernel", "cgroup 2", "cgroup 1 in a container"],
)
def test_what_is_there_is_what_the_system_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int | None
) -> None:
    kernel(tmp_path, files)
    monkeypatch.setattr(memory, "SYSTEM", tmp_path)
    assert memory.available_bytes() == expected
