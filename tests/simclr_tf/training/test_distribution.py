"""Clusters that a batch system describes, with and without GPUs."""

import json
import stat
from pathlib import Path

import pytest
import tensorflow as tf

from data_prep.errors import UserError
from simclr_tf.config.sections import MachineSettings
from simclr_tf.training import distribution


def slurm(monkeypatch: pytest.MonkeyPatch, rank: int = 1, tasks: str = "1(x2)") -> None:
    values = {
        "SLURM_PROCID": str(rank),
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "node[1-2]" if "x" in tasks else "node1",
        "SLURM_STEP_TASKS_PER_NODE": tasks,
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def program(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Puts an `nvidia-smi` on the path, or none."""
    folder.mkdir()
    if text:
        file = folder / "nvidia-smi"
        file.write_text(text)
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "#!/bin/sh\necho No devices found.\n",
        "#!/bin/sh\necho No devices were found\nexit 6\n",
        "#!/bin/sh\necho cannot talk to the driver >&2\nexit 9\n",
    ],
)
def test_a_job_on_nodes_without_gpus_runs_on_their_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    slurm(monkeypatch)
    program(tmp_path / "bin", monkeypatch, text)
    resolver = distribution._slurm_resolver()
    spec = resolver.cluster_spec().as_dict()
    assert spec == {"worker": ["node1:8888", "node2:8888"]}
    assert (resolver.task_type, resolver.task_id) == ("worker", 1)
    assert resolver.num_accelerators() == {"GPU": 0}


def test_more_tasks_than_gpus_on_a_node_run_on_its_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slurm(monkeypatch, tasks="2")
    program(tmp_path / "bin", monkeypatch, "#!/bin/sh\necho 'GPU 0: H200 (UUID: GPU-1)'\n")
    resolver = distribution._slurm_resolver()
    assert resolver.cluster_spec().as_dict() == {"worker": ["node1:8888", "node1:8889"]}
    assert resolver.num_accelerators() == {"GPU": 0}
    assert "2 tasks a node, but 1 GPUs" in caplog.text


def test_the_gpus_of_a_node_are_dealt_out_to_its_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm(monkeypatch, tasks="2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    listed = "GPU 0: H200 (UUID: GPU-1)\\nGPU 1: H200 (UUID: GPU-2)"
    program(tmp_path / "bin", monkeypatch, f"#!/bin/sh\nprintf '{listed}\\n'\n")
    resolver = distribution._slurm_resolver()
    assert isinstance(resolver, tf.distribute.cluster_resolver.SlurmClusterResolver)
    resolver.cluster_spec()
    assert resolver.num_accelerators() == {"GPU": 1}


def test_slurm_without_srun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PROCID", "STEP_NUM_TASKS", "STEP_NODELIST", "STEP_TASKS_PER_NODE"):
        monkeypatch.delenv(f"SLURM_{name}", raising=False)
    with pytest.raises(UserError, match="start the command with srun"):
        distribution._slurm_resolver()


TWO = {"worker": ["node0:2222", "node1:2222"]}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", 'has no "cluster"'),
        ({"task": {"type": "worker", "index": 0}}, 'has no "cluster"'),
        ({"cluster": {"worker": "node0:2222"}}, "must be a list of HOST:PORT"),
        ({"cluster": {"worker": ["node0", "node1"]}}, "must be a list of HOST:PORT"),
        ({"cluster": {"worker": ["node0:2222", "node1:99999"]}}, "must be a list of HOST:PORT"),
        ({"cluster": {"worker": ["node0:2222"], "ps": ["node1:2222"]}}, "has a job 'ps'"),
        ({"cluster": {"worker": ["a:1", "a:1"]}}, "lists a:1 twice"),
        ({"cluster": TWO}, '"task"'),
        ({"cluster": TWO, "task": {"type": "worker", "index": 2}}, '"index": 2} is none of'),
        ({"cluster": TWO, "task": {"type": "chief", "index": 0}}, '"chief", "index": 0} is none'),
    ],
)
def test_a_cluster_that_cannot_be_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, config: object, message: str
) -> None:
    monkeypatch.setenv("TF_CONFIG", config if isinstance(config, str) else json.dumps(config))
    for how in ("auto", "multi_worker"):
        with pytest.raises(UserError, match="TF_CONFIG") as caught:
            distribution.connect(MachineSettings(distribute=how))
        assert message in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_a_cluster_of_one_is_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    one = {"cluster": {"worker": ["node0:2222"]}, "task": {"type": "worker", "index": "0"}}
    for text in ("", "{}", json.dumps(one)):
        monkeypatch.setenv("TF_CONFIG", text)
        assert distribution.connect(MachineSettings()).num_workers == 1
