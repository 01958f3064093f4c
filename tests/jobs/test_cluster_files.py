"""cluster.yaml and jobs/kuberay/ are valid for Ray, AWS and KubeRay, which check some errors only on a paid node."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import jsonschema
import pytest
import yaml
from botocore import session, validate
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.runtime_env import RuntimeEnv

from aupipe.commands import annotate, train
from harness import pins

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "cluster.yaml").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCKERFILE = (ROOT / "jobs/Dockerfile").read_text()
PINS = dict(re.findall(r"^(\S+)==(\S+)$", (ROOT / "jobs/constraints.txt").read_text(), re.MULTILINE))
KUBERAY = {name: yaml.safe_load((ROOT / f"jobs/kuberay/{name}.yaml").read_text()) for name in ("annotate", "train")}


def check(text: str) -> None:
    """Raise an error if the cluster file is invalid for Ray or AWS."""
    described = prepare_config(yaml.safe_load(text))
    validate_config(described)
    run_instances = session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    known = run_instances.members["InstanceType"].enum
    for name, kind in described["available_node_types"].items():
        request = {**kind["node_config"], "MinCount": 1, "MaxCount": 1}
        assert request.get("InstanceType") in known, name
        report = validate.ParamValidator().validate(request, run_instances)
        assert not report.has_errors(), f"{name}: {report.generate_report()}"
        if name != described["head_node_type"]:
            assert 0 == kind["min_workers"] < kind["max_workers"] <= described["max_workers"], name


def test_the_cluster_file_is_valid() -> None:
    check(TEXT)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("upscaling_speed", "upscaling_sped"), ("labels: {pool: train}", "lables: {pool: train}"),
        ("InstanceType: g6.xlarge", "InstanceType: g6.tiny"), ("g6.2xlarge", "g6.3xlarge"),
        ("MarketType: spot", "MarketTyp: spot"), ("VolumeSize: 200", "VolumeSize: much"),
        ("max_workers: 16", "max_workers: 99"), ("head_node_type: head", "head_node_type: none"),
    ],
)  # fmt: skip
def test_an_invalid_cluster_file_is_an_error(right: str, wrong: str) -> None:
    assert right in TEXT
    with pytest.raises((AssertionError, ValueError, jsonschema.ValidationError)):
        check(TEXT.replace(right, wrong))


def test_head_is_no_worker_and_pools_have_their_labels() -> None:
    kinds = yaml.safe_load(TEXT)["available_node_types"]
    head = kinds.pop("head")
    assert head["resources"]["CPU"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]
    assert {name: kind["labels"] for name, kind in kinds.items()} == {
        name: {"pool": name.partition("-")[0]} for name in kinds
    }
    assert {kind["labels"]["pool"]: kind["resources"]["GPU"] for kind in kinds.values()} == {
        "decode": 0, "infer": 1, "train": 1
    }  # fmt: skip
    for pool in ("decode", "infer", "train"):
        same = [kind for kind in kinds.values() if kind["labels"]["pool"] == pool]
        assert len({kind["node_config"]["InstanceType"] for kind in same}) == len(same) > 1
        spot = {kind["node_config"].get("InstanceMarketOptions", {}).get("MarketType") for kind in same}
        assert spot == {"spot"}
    assert all("IamInstanceProfile" in kind["node_config"] for kind in (head, *kinds.values()))


# Newest CUDA release line → oldest driver that runs it: CUDA Toolkit release notes, "minor version compatibility".
DRIVERS = {12: 525, 13: 580}
SNAPSHOT_GB = 140  # of the largest of AWS's deep learning images; a smaller disk is an error of RunInstances


def test_image_disk_and_driver_fit_the_torch_that_pip_resolves() -> None:
    cuda = int(PINS["cuda-toolkit"].partition(".")[0])
    torch_cuda = next(each for each in metadata.requires("torch") or [] if each.startswith("cuda-toolkit"))
    assert Requirement(torch_cuda).specifier.contains(PINS["cuda-toolkit"])
    assert f"a driver for CUDA {cuda} ({DRIVERS[cuda]} or newer)" in TEXT
    for name, kind in yaml.safe_load(TEXT)["available_node_types"].items():
        image = kind["node_config"]["ImageId"]
        assert re.fullmatch(
            r"ami-\w+|resolve:ssm:/aws/service/deeplearning/ami/x86_64/base-[\w.-]+/latest/ami-id", image
        )
        (disk,) = kind["node_config"]["BlockDeviceMappings"]
        assert disk["Ebs"]["VolumeSize"] > SNAPSHOT_GB, name
    (check,) = yaml.safe_load(TEXT)["setup_commands"]
    script = "import torch; torch.zeros(1, device='cuda')"
    assert script in check
    compile(script, "setup_commands", "exec")


def test_images_have_the_ray_and_python_of_the_project() -> None:
    (base,) = re.findall(r"rayproject/ray:(\S+)", DOCKERFILE)
    release, python, flavor = base.split("-")
    assert (python, flavor) == ("py311", "${FLAVOR}")
    assert "3.11" in SpecifierSet(PROJECT["requires-python"])
    assert release == PINS["ray"]
    kinds = yaml.safe_load(TEXT)["available_node_types"].values()
    docker = yaml.safe_load(TEXT)["docker"]["image"]
    images = {kind.get("docker", {}).get("worker_image", docker): kind["resources"]["GPU"] for kind in kinds}
    for job in KUBERAY.values():
        cluster = job["spec"]["rayClusterSpec"]
        assert cluster["rayVersion"] == release
        for pod in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            (container,) = pod["template"]["spec"]["containers"]
            images[container["image"]] = int(container["resources"]["limits"].get("nvidia.com/gpu", 0))
    assert images == {f"REGISTRY/aupipe:{release}-cpu": 0, f"REGISTRY/aupipe:{release}-gpu": 1}


def test_pins_fit_every_requirement() -> None:
    needed = pins.requirements(PROJECT["dependencies"])
    for each in needed:
        name = canonicalize_name(each.name)
        assert name in PINS, f"{name} has no pin; fix: PYTHONPATH=tests python -m harness.pins > jobs/constraints.txt"
        assert each.specifier.contains(PINS[name], prereleases=True), f"{each} excludes {PINS[name]}"
    assert PINS["boto3"] == PINS["botocore"]


def test_images_have_the_pinned_dependencies_and_not_aupipe(tmp_path: Path) -> None:
    listed, install = re.findall(r"^RUN ((?:.*\\\n)*.*)", DOCKERFILE, re.MULTILINE)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    subprocess.run(listed.replace("python -c", f"{sys.executable} -c"), shell=True, check=True, cwd=tmp_path)
    assert (tmp_path / "requirements.txt").read_text().splitlines() == PROJECT["dependencies"]
    assert "-r requirements.txt boto3 -c constraints.txt" in install
    assert "COPY pyproject.toml jobs/constraints.txt ./" in DOCKERFILE
    for source in yaml.safe_load(TEXT)["file_mounts"].values():
        assert "aupipe" not in source
        assert source.startswith("~") or (ROOT / source).is_file(), source


def test_a_dead_node_is_detected_soon_on_aws_and_on_kubernetes() -> None:
    (start,) = (line for line in yaml.safe_load(TEXT)["head_start_ray_commands"] if "--head" in line)
    (option,) = (part for part in shlex.split(start) if part.startswith("--system-config="))
    settings = json.loads(option.partition("=")[2])
    assert settings["health_check_period_ms"] * settings["health_check_failure_threshold"] <= 5000
    on_kubernetes = KUBERAY["train"]["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["system-config"]
    assert json.loads(shlex.split(on_kubernetes)[0]) == settings


# ray.io/v1 as of KubeRay 1.5: ray-operator/apis/ray/v1/{rayjob,raycluster}_types.go
JOB = {
    "entrypoint", "runtimeEnvYAML", "submissionMode", "submitterConfig", "backoffLimit", "shutdownAfterJobFinishes",
    "ttlSecondsAfterFinished", "activeDeadlineSeconds", "entrypointNumCpus", "rayClusterSpec",
}  # fmt: skip
CLUSTER = {
    "rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "authOptions", "headGroupSpec", "workerGroupSpecs",
}  # fmt: skip
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "labels", "rayStartParams", "template"}


@pytest.mark.parametrize("name", KUBERAY)
def test_fields_of_a_rayjob(name: str) -> None:
    job = KUBERAY[name]
    assert (job["apiVersion"], job["kind"], job["metadata"]["name"]) == ("ray.io/v1", "RayJob", f"aupipe-{name}")
    spec = job["spec"]
    assert set(spec) <= JOB
    assert spec["backoffLimit"] > 0
    assert spec["submitterConfig"] == {"backoffLimit": 0}
    assert spec["shutdownAfterJobFinishes"] is True
    environment = yaml.safe_load(spec["runtimeEnvYAML"])
    assert set(environment) == {"working_dir"}  # RuntimeEnv accepts any key.
    RuntimeEnv(**environment)
    cluster = spec["rayClusterSpec"]
    assert set(cluster) <= CLUSTER
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"
    assert cluster["authOptions"] == {"mode": "token"}
    assert set(cluster["headGroupSpec"]) == {"rayStartParams", "template"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in cluster["workerGroupSpecs"]:
        assert set(group) == GROUP
        assert group["labels"] == {"pool": group["groupName"]}
        assert group["replicas"] == group["minReplicas"] == 0 < group["maxReplicas"]
    for pod in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in pod["rayStartParams"].values())
        inside = pod["template"]["spec"]
        assert inside["restartPolicy"] == "Never"  # The autoscaler starts pods, not the kubelet.
        assert inside["containers"][0]["resources"]["requests"] == inside["containers"][0]["resources"]["limits"]


# Job → the pools that it places work in: `label_selector_for` of its pipelines.
POOLS = {"annotate": {"decode", "infer"}, "train": {"train"}}


@pytest.mark.parametrize("name", KUBERAY)
def test_a_rayjob_has_the_pools_and_gpus_that_its_command_asks_for(name: str) -> None:
    words = shlex.split(KUBERAY[name]["spec"]["entrypoint"])
    settings = {value for option, value in itertools.pairwise(words) if option == "--set"}
    assert {"resources.pools=true", "resources.gpu=true"} <= settings
    groups = {group["groupName"]: group for group in KUBERAY[name]["spec"]["rayClusterSpec"]["workerGroupSpecs"]}
    assert set(groups) == POOLS[name]
    if name == "train":
        _, _, most = words[words.index("--workers") + 1].partition("-")
        assert int(most) <= groups["train"]["maxReplicas"]


def test_submitted_commands_ask_for_gpus_where_they_name_pools() -> None:
    text = (ROOT / "jobs/README.md").read_text().replace("\\\n", " ")
    commands = [line for line in text.splitlines() if "ray job submit" in line and "pools=true" in line]
    kinds = yaml.safe_load(TEXT)["available_node_types"].values()
    assert commands
    for command in commands:
        (job,) = re.findall(r"python jobs/(\w+)\.py", command)
        assert POOLS[job] <= {kind["labels"]["pool"] for kind in kinds if "labels" in kind}
        assert "--set resources.gpu=true" in command, command


@pytest.mark.parametrize(("name", "main"), [("annotate", annotate.main), ("train", train.main)])
def test_the_command_of_a_rayjob_is_valid(name: str, main: object, monkeypatch: pytest.MonkeyPatch) -> None:
    python, wrapper, command, script, *arguments = shlex.split(KUBERAY[name]["spec"]["entrypoint"])
    assert (python, wrapper) == ("python", "jobs/kuberay/entrypoint.py")
    assert (command, script) == ("python", f"jobs/{name}.py")
    parsed = []
    monkeypatch.setattr(
        "aupipe.commands.job.run", lambda parser, body, argv, settings: parsed.append(parser.parse_args(argv))
    )
    main(arguments)
    assert parsed[0].out.startswith("s3://")


def test_the_slurm_script_needs_a_command_and_ends_with_its_exit_code(tmp_path: Path) -> None:
    script = [shutil.which("bash") or "bash", str(ROOT / "jobs/slurm.sh")]
    without = subprocess.run(script, capture_output=True, text=True, check=False)
    assert (without.returncode, without.stderr.split(":")[0]) == (2, "usage")
    log = tmp_path / "srun.log"
    (tmp_path / "srun").write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec sleep 100\n')
    wait = f'if [ "$1" = - ]; then until [ "$(grep -c . {log})" = 2 ]; do sleep .05; done; fi'  # as for Ray's nodes
    python = f'#!/bin/sh\nif [ "$1" = jobs/x.py ]; then env; exit 3; fi\n{wait}\necho secret\n'
    (tmp_path / "python").write_text(python)
    for name in ("srun", "python"):
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {
        "SLURM_JOB_ID": "1234", "SLURM_JOB_NUM_NODES": "3", "SLURM_CPUS_PER_TASK": "8", "SLURM_GPUS_ON_NODE": "2",
        "SLURMD_NODENAME": "rack-7", "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }  # fmt: skip
    command = [*script, "python", "jobs/x.py"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 3, ended.stderr
    variables = dict(line.split("=", 1) for line in ended.stdout.splitlines() if "=" in line)
    assert variables["RAY_AUTH_TOKEN"] == "secret"
    assert variables["RAY_ADDRESS"].endswith(":22340")
    steps = log.read_text().splitlines()
    assert all("--num-cpus=8" in step and "--num-gpus=2" in step for step in steps)
    assert sorted("--nodes=2 --ntasks=2" in step for step in steps) == [False, True]
    assert sorted(next(part for part in step.split() if "rack-7" in part) for step in steps) == [
        "--exclude=rack-7", "--nodelist=rack-7"
    ]  # fmt: skip
