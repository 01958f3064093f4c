"""cluster.yaml and jobs/kuberay/ are valid for Ray, AWS and KubeRay, which check some errors only on a paid node."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from botocore import session, validate
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.runtime_env import RuntimeEnv

from aupipe.commands import annotate, train

pytestmark = pytest.mark.unit

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML; the nodes have 3.11")

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "cluster.yaml").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
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
        ("InstanceType: g6.xlarge", "InstanceTyp: g6.xlarge"), ("g6.2xlarge", "g6.3xlarge"),
        ("MarketType: spot", "MarketTyp: spot"), ("VolumeSize: 150", "VolumeSize: much"),
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
    assert {name: kind["labels"] for name, kind in kinds.items()} == {name: {"pool": name} for name in kinds}
    assert {name: kind["resources"]["GPU"] for name, kind in kinds.items()} == {"decode": 0, "infer": 1, "train": 1}
    assert kinds["decode"]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert all("IamInstanceProfile" in kind["node_config"] for kind in (head, *kinds.values()))


def test_images_have_the_ray_and_python_of_the_project() -> None:
    files = [TEXT, (ROOT / "jobs/kuberay/Dockerfile").read_text()]
    images = {image for text in files for image in re.findall(r"rayproject/ray:([\w.-]+)", text)}
    assert {image.rpartition("-")[2] for image in images} == {"cpu", "gpu"}
    required = next(r for r in map(Requirement, PROJECT["dependencies"]) if r.name == "ray")
    releases = {image.partition("-")[0] for image in images}
    assert len(releases) == 1
    assert all(release in required.specifier for release in releases)
    assert {image.split("-")[1] for image in images} == {"py311"}
    assert "3.11" in SpecifierSet(PROJECT["requires-python"])
    for job in KUBERAY.values():
        cluster = job["spec"]["rayClusterSpec"]
        assert {cluster["rayVersion"]} == releases
        pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        used = {pod["template"]["spec"]["containers"][0]["image"].rpartition(":")[2] for pod in pods}
        assert used == releases


def test_nodes_install_the_dependencies_and_not_aupipe(tmp_path: Path) -> None:
    commands = yaml.safe_load(TEXT)["setup_commands"]
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    command = commands[0].replace("python -c", f"{sys.executable} -c")
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert (tmp_path / "requirements.txt").read_text().splitlines() == PROJECT["dependencies"]
    assert "requirements.txt" in commands[1]
    assert " -e " not in commands[1] + commands[0]
    assert not any("aupipe" in source for source in yaml.safe_load(TEXT)["file_mounts"].values())
    for source in yaml.safe_load(TEXT)["file_mounts"].values():
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


@pytest.mark.parametrize(("name", "main"), [("annotate", annotate.main), ("train", train.main)])
def test_the_command_of_a_rayjob_is_valid(name: str, main: object, monkeypatch: pytest.MonkeyPatch) -> None:
    python, script, *arguments = shlex.split(KUBERAY[name]["spec"]["entrypoint"])
    assert (python, script) == ("python", f"jobs/{name}.py")
    parsed = []
    monkeypatch.setattr(
        "aupipe.commands.job.run", lambda parser, body, argv, settings: parsed.append(parser.parse_args(argv))
    )
    main(arguments)
    assert parsed[0].out.startswith("s3://")
