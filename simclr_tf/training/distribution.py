"""From settings to devices: the tf.distribute strategy, the precision and the use of XLA.

Everything here must run before the first TensorFlow operation, because logical devices and the
connections between workers are fixed by then.
"""

import json
import logging
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from data_prep.errors import UserError
from simclr_tf.config.sections import MachineSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Devices:
    """The devices of a run.

    Attributes:
        strategy: The strategy under whose scope everything is built.
        worker: This process's number among the workers.
        num_workers: How many processes train together.
        kind: `CPU`, `GPU` or `TPU`.
    """

    strategy: tf.distribute.Strategy
    worker: int
    num_workers: int
    kind: str

    @property
    def num_replicas(self) -> int:
        """Replicas over all workers."""
        return self.strategy.num_replicas_in_sync

    @property
    def is_chief(self) -> bool:
        """True if this process writes the run's files."""
        return self.worker == 0

    def any_worker(self, flag: bool) -> bool:
        """True if the flag is set on any worker; all of them must ask at the same step."""
        if self.num_workers == 1:
            return flag
        per_replica = self.strategy.run(tf.identity, (tf.constant(float(flag)),))
        return bool(self.strategy.reduce("SUM", per_replica, axis=None) > 0)

    def describe(self) -> str:
        """One line for the log."""
        name = type(self.strategy).__name__
        return (
            f"{name}: {self.num_replicas} replica(s) on {self.kind}, {self.num_workers} worker(s)"
        )


def connect(machine: MachineSettings) -> Devices:
    """Builds the strategy that the settings ask for.

    Args:
        machine: `distribute`, `num_cpu_devices` and the TPU settings.

    Returns:
        The devices, ready to build models on.

    Raises:
        UserError: The devices asked for are not there.
    """
    if machine.num_cpu_devices > 1:
        _split_cpu(machine.num_cpu_devices)
    how = machine.distribute
    if how == "tpu" or machine.use_tpu:
        return _tpu(machine)
    if how == "auto" and sum(map(len, _cluster().values())) > 1:
        how = "multi_worker"
    if how in ("multi_worker", "slurm"):
        return _multi_worker(how)
    return _this_machine(how, machine.num_cpu_devices)


def _split_cpu(count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    wanted = [tf.config.LogicalDeviceConfiguration()] * count
    try:
        tf.config.set_logical_device_configuration(cpu, wanted)
    except RuntimeError:
        if len(tf.config.list_logical_devices("CPU")) < count:
            raise UserError(
                "TensorFlow has already started with fewer; set it before the first operation",
                setting="num_cpu_devices",
                value=count,
            ) from None


def _this_machine(how: str, num_cpu_devices: int) -> Devices:
    gpus = tf.config.list_logical_devices("GPU")
    kind = "GPU" if gpus and num_cpu_devices < 2 else "CPU"
    names = [d.name for d in gpus] if kind == "GPU" else _cpu_names(num_cpu_devices)
    if how == "one_device" or (how == "auto" and len(names) == 1):
        return Devices(tf.distribute.OneDeviceStrategy(names[0]), 0, 1, kind)
    return Devices(mirrored(names, kind), 0, 1, kind)


def mirrored(names: list[str], kind: str) -> tf.distribute.MirroredStrategy:
    """A mirrored strategy over the devices of this machine.

    On CPUs sums go over one device: TensorFlow's collectives remember their group for the life of
    the process, so that a second strategy in it would fail.
    """
    reduction = tf.distribute.ReductionToOneDevice() if kind == "CPU" else None
    return tf.distribute.MirroredStrategy(names, cross_device_ops=reduction)


def _cpu_names(count: int) -> list[str]:
    return [d.name for d in tf.config.list_logical_devices("CPU")][: max(count, 1)]


def _cluster() -> dict[str, list[str]]:
    """Addresses of the processes that TF_CONFIG lists, by job; empty if it is not set.

    Raises:
        UserError: It is no description of a cluster and of this process's place in it.
    """
    text = os.environ.get("TF_CONFIG", "")
    mend = "mend TF_CONFIG or unset it"
    try:
        config = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise UserError(f"TF_CONFIG is not valid JSON ({error}): mend or unset it") from None
    cluster = config.get("cluster") if isinstance(config, dict) else None
    if not text.strip() or config == {}:
        return {}
    if not isinstance(cluster, dict) or not cluster:
        raise UserError(f'TF_CONFIG has no "cluster" with lists of addresses: {mend}')
    for job, places in cluster.items():
        if job not in _JOBS:
            raise UserError(f"TF_CONFIG has a job {job!r}, and there are {_listed(_JOBS)}: {mend}")
        if not isinstance(places, list) or not all(map(_is_address, places)):
            raise UserError(f"TF_CONFIG: the {job}s must be a list of HOST:PORT: {mend}")
    places = [place for own in cluster.values() for place in own]
    twice = next((place for place in places if places.count(place) > 1), "")
    if twice:
        raise UserError(f"TF_CONFIG lists {twice} twice: {mend}")
    task = config.get("task")
    job, index = (task.get("type"), task.get("index")) if isinstance(task, dict) else (None, None)
    number = int(str(index)) if str(index).isdecimal() else -1
    if job not in cluster or not 0 <= number < len(cluster[job]):
        raise UserError(
            f'TF_CONFIG: the "task" {{"type": {json.dumps(job)}, "index": {json.dumps(index)}}} is '
            f"none of the cluster's; each process needs one of its own: {mend}"
        )
    return cluster


_JOBS = ("chief", "worker")


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)


def _is_address(place: object) -> bool:
    host, _, port = place.rpartition(":") if isinstance(place, str) else ("", "", "")
    return bool(host) and port.isdecimal() and 0 < int(port) < 65536


_TOGETHER: dict[str, Devices] = {}  # workers find one another once in the life of a process


def connected_workers() -> int:
    """The number of processes that are connected to train together, this one included."""
    return max((devices.num_workers for devices in _TOGETHER.values()), default=1)


def refuse_cluster(command: str) -> None:
    """Refuses to run as one of several processes.

    Args:
        command: What trains on one machine only.

    Raises:
        UserError: TF_CONFIG lists several processes.
    """
    if sum(map(len, _cluster().values())) > 1:
        raise UserError(f"{command} trains on one machine: unset TF_CONFIG")


def _multi_worker(how: str) -> Devices:
    if how not in _TOGETHER:
        _TOGETHER[how] = _joined(how)
    return _TOGETHER[how]


def _joined(how: str) -> Devices:
    if how == "slurm":
        resolver = _slurm_resolver()
    else:
        if not _cluster():
            raise UserError(
                "set TF_CONFIG with the cluster's workers and this process's task",
                setting="distribute",
                value="multi_worker",
            )
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    spec = resolver.cluster_spec().as_dict()
    num_workers = len(spec.get("chief", [])) + len(spec.get("worker", []))
    worker = int(resolver.task_id or 0)
    if resolver.task_type == "worker" and spec.get("chief"):
        worker += len(spec["chief"])
    places = [*spec.get("chief", []), *spec.get("worker", [])]
    if num_workers > 1:
        _bound_waiting(spec)
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except (tf.errors.OpError, RuntimeError, OSError) as error:
        log.debug("TensorFlow says: %s", error)
        taken = "Could not start gRPC server" in str(error)
        raise UserError(
            f"worker {worker} of {num_workers} cannot listen on {places[worker]}: the port is "
            "taken, or the address is not of this machine"
            if taken
            else f"the {num_workers} workers have not all found one another within "
            f"{JOIN_SECONDS} seconds; see that all are started, and that each reaches worker 0 at "
            f"{places[0]}, then start all of them again"
        ) from None
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    return Devices(strategy, worker, num_workers, kind)


JOIN_SECONDS = 120
"""How long workers wait for one another to start."""

_HEARTBEAT_SECONDS = 10  # without a sign of life for so long a worker counts as dead


def _bound_waiting(cluster: Mapping[str, Sequence[str]]) -> None:
    """Bounds the time that workers wait for one another; TensorFlow's own bound is an hour."""
    from tensorflow.python.eager import context

    jobs = tf.compat.v1.ConfigProto().experimental.coordination_config.coordinated_job_list
    for name in filter(cluster.__contains__, _JOBS):
        jobs.add(name=name, num_tasks=len(cluster[name]))
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader=f"/job:{jobs[0].name}/replica:0/task:0",
        coordinated_jobs=list(jobs),
        cluster_register_timeout_in_ms=JOIN_SECONDS * 1000,
        heartbeat_timeout_in_ms=_HEARTBEAT_SECONDS * 1000,
    )


def _slurm_resolver() -> tf.distribute.cluster_resolver.ClusterResolver:
    """The cluster of a job step: a worker a task, on its GPUs or, if there are too few, on CPUs."""
    resolvers = tf.distribute.cluster_resolver
    try:
        # One imagined GPU a task, for the resolver cannot do with fewer.
        found = resolvers.SlurmClusterResolver(
            gpus_per_node=_MANY, gpus_per_task=1, auto_set_gpu=False
        )
        cluster = found.cluster_spec()
    except (RuntimeError, KeyError, ValueError, OSError) as error:
        raise UserError(
            f"start the command with srun ({error})", setting="distribute", value="slurm"
        ) from None
    hosts = [task.rpartition(":")[0] for task in cluster.job_tasks("worker")]
    tasks, gpus = max(hosts.count(host) for host in hosts), _gpus_of_node()
    if gpus >= tasks:
        return resolvers.SlurmClusterResolver(gpus_per_node=gpus)
    if gpus:
        log.warning("%d tasks a node, but %d GPUs: the CPUs are used", tasks, gpus)
    tf.config.set_visible_devices([], "GPU")
    return resolvers.SimpleClusterResolver(
        cluster, task_type=found.task_type, task_id=found.task_id, num_accelerators={"GPU": 0},
        rpc_layer="grpc",
    )  # fmt: skip


_MANY = 1024  # more than a node has tasks


def _gpus_of_node() -> int:
    """GPUs that `nvidia-smi` lists; 0 where there is no such program."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def _tpu(machine: MachineSettings) -> Devices:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            machine.tpu_name or machine.master or None,
            zone=machine.tpu_zone or None,
            project=machine.gcp_project or None,
        )
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"no TPU could be reached ({first}): give --tpu_name, or leave --use_tpu away"
        ) from None
    return Devices(tf.distribute.TPUStrategy(resolver), 0, 1, "TPU")


def choose_precision(asked: str, devices: Devices) -> str:
    """Name of the Keras dtype policy for the network.

    `auto` takes bfloat16 only where the hardware multiplies in it: TPUs, GPUs of compute
    capability 8 or more, CPUs with AVX512-BF16 or AMX. Elsewhere bfloat16 is emulated, slower
    than float32 and less exact.

    Args:
        asked: `auto`, `float32` or `bfloat16`.
        devices: The devices of the run.

    Returns:
        `float32` or `mixed_bfloat16`.
    """
    if asked == "auto":
        asked = "bfloat16" if _computes_in_bfloat16(devices.kind) else "float32"
    return "float32" if asked == "float32" else "mixed_bfloat16"


def _computes_in_bfloat16(kind: str) -> bool:
    if kind == "TPU":
        return True
    if kind == "GPU":
        details = [
            tf.config.experimental.get_device_details(d)
            for d in tf.config.list_physical_devices("GPU")
        ]
        return all(d.get("compute_capability", (0, 0))[0] >= 8 for d in details)
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def choose_jit(asked: str, devices: Devices) -> bool:
    """Decides whether XLA compiles the train step.

    On CPUs XLA makes the step about four times slower, so `auto` never takes it there; under
    several GPU replicas the collectives cannot be compiled.
    """
    if asked != "auto":
        return asked == "true"
    return devices.kind == "TPU" or (devices.kind == "GPU" and devices.num_replicas == 1)


def choose_steps_per_loop(asked: int, devices: Devices) -> int:
    """Steps that run between two looks at the host."""
    return asked or {"CPU": 1, "GPU": 20, "TPU": 100}[devices.kind]


def set_seeds(seed: int) -> None:
    """Seeds everything that draws initial weights."""
    keras.utils.set_random_seed(seed)
