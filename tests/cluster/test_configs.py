"""Are the cluster files valid, of one version, and shut to strangers?"""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
STUDY = "studies/mlkd_search.py"


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / name).read_text(encoding="utf-8"))


def pinned(package: str) -> str:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{package}(?:\[[^\]]*\])?==([\w.]+)", text, re.MULTILINE)
    assert found, f"constraints.txt pins no {package}"
    return found[1]


def cluster_specs() -> list[dict[str, Any]]:
    job = read("kuberay-rayjob.yaml")["spec"]["rayClusterSpec"]
    return [read("kuberay-raycluster.yaml")["spec"], job]


def groups(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def containers(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for group in groups(spec):
        yield from group["template"]["spec"]["containers"]


def test_ray_up_accepts_the_aws_file() -> None:
    validate_config(prepare_config(read("aws.yaml")))


def test_ray_up_would_refuse_a_misspelt_aws_file() -> None:
    broken = copy.deepcopy(read("aws.yaml"))
    broken["idle_timeout"] = broken.pop("idle_timeout_minutes")
    with pytest.raises(Exception, match="idle_timeout"):
        validate_config(prepare_config(broken))


def test_on_aws_the_head_stays_and_only_gpu_workers_are_spot_machines() -> None:
    config = read("aws.yaml")
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert head["resources"]["CPU"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]
    for workers in types.values():
        assert workers["resources"]["GPU"] > 0
        assert workers["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
        assert workers["min_workers"] == 0
    assert 0 < config["idle_timeout_minutes"] <= 10


def test_on_aws_disks_are_encrypted_and_the_storage_is_the_same_everywhere() -> None:
    config = read("aws.yaml")
    for kind in config["available_node_types"].values():
        for disk in kind["node_config"]["BlockDeviceMappings"]:
            assert disk["Ebs"]["Encrypted"] is True
    assert any(option.endswith(":/study") for option in config["docker"]["run_options"])
    assert "-o tls" in " ".join(config["initialization_commands"])


def test_on_aws_every_ray_asks_for_the_token_and_the_dashboard_is_not_public() -> None:
    config = read("aws.yaml")
    head, workers = config["head_start_ray_commands"], config["worker_start_ray_commands"]
    starts = [command for command in head + workers if "ray start" in command]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in " ".join(head)
    assert any(target.endswith(".ray/auth_token") for target in config["file_mounts"])


@pytest.mark.parametrize(
    ("name", "kind"),
    [("kuberay-raycluster.yaml", "RayCluster"), ("kuberay-rayjob.yaml", "RayJob")],
)
def test_a_kuberay_manifest_says_what_it_is(name: str, kind: str) -> None:
    manifest = read(name)
    assert manifest["apiVersion"] == "ray.io/v1"
    assert manifest["kind"] == kind
    assert manifest["metadata"].keys() & {"name", "generateName"}


@pytest.mark.parametrize("spec", cluster_specs(), ids=["RayCluster", "RayJob"])
def test_a_kuberay_cluster_is_complete_shut_and_unprivileged(spec: dict[str, Any]) -> None:
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["idleTimeoutSeconds"] > 0
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in groups(spec):
        pod = group["template"]["spec"]
        claims = {volume["name"]: volume["persistentVolumeClaim"] for volume in pod["volumes"]}
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert mounts == {"study": "/study"}
            assert mounts.keys() == claims.keys()
            requests, limits = (container["resources"][kind] for kind in ("requests", "limits"))
            assert requests["memory"] == limits["memory"]
    for group in spec["workerGroupSpecs"]:
        assert group["groupName"]
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert limits["nvidia.com/gpu"] == "1"


def test_the_job_runs_the_study_and_writes_to_the_shared_storage() -> None:
    spec = read("kuberay-rayjob.yaml")["spec"]
    program, script, *flags = spec["entrypoint"].split()
    assert program == "python"
    assert script == f"/home/ray/dsgkd/{STUDY}"
    assert flags[flags.index("--out") + 1].startswith("/study/")
    assert flags[flags.index("--data") + 1].startswith("/study/")
    assert spec["shutdownAfterJobFinishes"] is True


def test_the_two_kuberay_clusters_are_the_same() -> None:
    standing, of_the_job = cluster_specs()
    assert standing == of_the_job


def test_every_file_names_the_pinned_version_of_ray() -> None:
    ray = pinned("ray")
    dockerfile = (CLUSTER / "Dockerfile").read_text(encoding="utf-8")
    assert f"ARG RAY_VERSION={ray}\n" in dockerfile
    for spec in cluster_specs():
        assert spec["rayVersion"] == ray


def test_every_file_names_the_same_image() -> None:
    images = {container["image"] for spec in cluster_specs() for container in containers(spec)}
    images.add(read("aws.yaml")["docker"]["image"])
    assert len({image.rsplit("/", 1)[1] for image in images}) == 1


def test_the_image_is_pinned_unprivileged_and_holds_no_data() -> None:
    lines = (CLUSTER / "Dockerfile").read_text(encoding="utf-8").splitlines()
    installs = [line for line in lines if line.startswith("RUN pip install")]
    assert installs
    assert all("-c constraints.txt" in line for line in installs)
    assert [line for line in lines if line.startswith("USER")] == ["USER ray"]
    assert any(line.startswith("ARG TORCH_INDEX=") for line in lines)
    assert any(line.startswith("ENV RAY_AUTH_MODE=token") for line in lines)
    allowed = (CLUSTER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in allowed
    assert not {"!runs", "!data", "!tests", "!.git"} & set(allowed)


def test_the_readme_speaks_of_every_file_and_of_storage_and_token() -> None:
    text = (CLUSTER / "README.md").read_text(encoding="utf-8")
    for path in CLUSTER.iterdir():
        assert path.name == "README.md" or f"`{path.name}`" in text
    for words in ("Every node must see `--out`", "RAY_AUTH_MODE=token", "Never in a public bucket"):
        assert words in text
