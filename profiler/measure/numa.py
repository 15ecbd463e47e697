"""Does a process's memory lie where its threads run? Format: ``numa_maps(7)``, ``proc_pid_stat(5)``."""

from __future__ import annotations

from collections import defaultdict

from profiler.backends.tree import Tree, parse_cpu_list, whole_number
from profiler.results.schema import Flag

REMOTE_SHARE = 0.25
_NODES = "/sys/devices/system/node"
# Fields of /proc/PID/task/TID/stat after the name, counted from the state.
_TIMES, _LAST_CPU = slice(11, 13), 36


def remote_share(tree: Tree, pid: int) -> float | None:
    """Return how much of a process's memory lies on other NUMA nodes than its threads call for.

    Half of the summed differences between the shares of memory and of processor time of the nodes (total
    variation): 0 where memory is spread as the threads are, 1 where they have no node in common. Reading
    ``numa_maps`` takes time in proportion to the process's pages, so it is done once, after the trials.

    Returns:
        The share; 0 on a machine with one node; None where the kernel does not tell.
    """
    if not tree.exists(_NODES):
        return None
    if len(parse_cpu_list(tree.text(f"{_NODES}/has_memory") or "")) < 2:
        return 0.0
    memory, work = _memory(tree, pid), _work(tree, pid)
    if not memory or not work:
        return None
    nodes = memory.keys() | work.keys()
    return sum(abs(memory.get(node, 0.0) - work.get(node, 0.0)) for node in nodes) / 2


def numa_flag(share: float) -> Flag | None:
    """Return the flag of misplaced memory, or None.

    Args:
        share: :func:`remote_share`.
    """
    if share <= REMOTE_SHARE:
        return None
    text = (
        f"{share:.0%} of the worker's memory lies on other NUMA nodes than its threads ran on: "
        "reading it goes through the link between the sockets"
    )
    hint = "bind the sweep: numactl --cpunodebind=N --membind=N, or spread it: numactl --interleave=all"
    return Flag(code="numa_remote", text=text, hint=hint)


def _memory(tree: Tree, pid: int) -> dict[int, float]:
    pages: dict[int, float] = defaultdict(float)
    for line in (tree.text(f"/proc/{pid}/numa_maps") or "").splitlines():
        fields = dict(field.partition("=")[::2] for field in line.split())
        kib = whole_number(fields.get("kernelpagesize_kB"))
        for name, value in fields.items():
            node, count = whole_number(name[1:]) if name[:1] == "N" else None, whole_number(value)
            if node is not None and count is not None and kib is not None:
                pages[node] += count * kib
    return _shares(pages)


def _work(tree: Tree, pid: int) -> dict[int, float]:
    """Return the processor time of the threads by the node that they last ran on."""
    node_of = {
        cpu: node
        for path in tree.glob(f"{_NODES}/node[0-9]*")
        if (node := whole_number(path.rsplit("node", 1)[1])) is not None
        for cpu in parse_cpu_list(tree.text(f"{path}/cpulist") or "")
    }
    ticks: dict[int, float] = defaultdict(float)
    for name in tree.glob(f"/proc/{pid}/task/*/stat"):
        fields = (tree.text(name) or "").rpartition(")")[2].split()
        cpu = whole_number(fields[_LAST_CPU]) if len(fields) > _LAST_CPU else None
        if cpu in node_of:
            ticks[node_of[cpu]] += sum(whole_number(field) or 0 for field in fields[_TIMES])
    return _shares(ticks)


def _shares(counted: dict[int, float]) -> dict[int, float]:
    total = sum(counted.values())
    return {node: count / total for node, count in counted.items()} if total else {}
