"""The manifests of KubeRay: their fields, and what each decision in them rests on."""

import copy
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.kuberay import autoscaling_config

from pes_cluster.cluster.job import from_metadata
from pes_cluster.ray_backend.environment import DRAIN_SECONDS, DRIVER, NODE, RUNS
from pes_cluster.ray_backend.jobs import SAVE_SECONDS
from pes_cluster.ray_backend.service import DRIVERS
from tests.deploy.api import faults
from tests.deploy.manifests import (
    KUBERAY,
    ROOT,
    Document,
    clusters,
    documents,
    environment,
    groups,
    jobs,
    pinned,
    pods,
)

TEARDOWN_SECONDS = 10  # For Ray to end its processes once a node has drained.

every_file = pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.name)
every_cluster = pytest.mark.parametrize("name, spec", list(clusters()))
every_job = pytest.mark.parametrize("name, job", list(jobs()))


@every_file
def test_every_field_is_one_that_kuberay_or_kubernetes_knows(path: Path) -> None:
    found = documents(path)
    assert found
    assert [fault for document in found for fault in faults(document)] == []


def _rename(value: Any, old: str, new: str) -> bool:
    """Renames the first field of a name, however deep; whether there was one."""
    if isinstance(value, dict) and old in value:
        value[new] = value.pop(old)
        return True
    parts = value.values() if isinstance(value, dict) else value
    return isinstance(value, dict | list) and any(
        _rename(part, old, new) for part in parts
    )


@pytest.mark.parametrize(
    "field",
    [
        "authOptions",
        "mode",
        "gcsFaultToleranceOptions",
        "redisPassword",
        "autoscalerOptions",
        "idleTimeoutSeconds",
        "workerGroupSpecs",
        "rayStartParams",
        "terminationGracePeriodSeconds",
        "runAsNonRoot",
        "submissionMode",
        "entrypointResources",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "runtimeEnvYAML",
        "claimName",
        "podSelector",
    ],
)
def test_a_misspelt_field_is_reported(field: str) -> None:
    """The power of the check above: one letter at a time, wherever the field occurs."""
    wrong, seen = field[:-1] + ("x" if field[-1] != "x" else "y"), 0
    for path in KUBERAY:
        for document in documents(path):
            changed = copy.deepcopy(document)
            if _rename(changed, field, wrong):
                seen += 1
                assert any(wrong in fault for fault in faults(changed)), path.name
    assert seen


@pytest.mark.parametrize(
    "change, words",
    [
        ({"submissionMode": "HttpMode"}, "'HttpMode' is none of"),
        ({"backoffLimit": "3"}, "'3' is no whole"),
        ({"shutdownAfterJobFinishes": "yes"}, "'yes' is no flag"),
        ({"metadata": {"pes_attempt": 1}}, "is no map of texts"),
        ({"rayClusterSpec": {}}, "rayClusterSpec.headGroupSpec: is missing"),
    ],
)
def test_a_wrong_value_is_reported(change: Document, words: str) -> None:
    _, job = next(jobs())
    wrong = job | {"spec": job["spec"] | change}
    (fault,) = faults(wrong)
    assert words in fault


@every_cluster
def test_ray_reads_the_groups_as_we_mean_them(name: str, spec: Document) -> None:
    """By the code with which Ray's own autoscaler reads a RayCluster."""
    cluster = {
        "metadata": {"name": name, "namespace": "pes"},
        "spec": copy.deepcopy(spec),
    }
    read = autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster)
    types = read["available_node_types"]
    head = types.pop(read["head_node_type"])["resources"]
    assert head["CPU"] == 0 and head.get("GPU", 0) == 0 and DRIVER not in head
    assert any(one["resources"].get(DRIVER) == DRIVERS for one in types.values())
    shards = [one for one in types.values() if one["resources"]["CPU"] > 0]
    assert shards and all(one["max_workers"] > 0 for one in shards)
    # Where drivers have a group of their own, no shard is placed there.
    if "drivers" in types:
        assert types["drivers"]["resources"]["CPU"] == 0
        assert not any(DRIVER in one["resources"] for one in shards)
        assert types["drivers"]["min_workers"] == types["drivers"]["max_workers"]


@every_cluster
def test_every_node_has_the_environment_of_a_node(name: str, spec: Document) -> None:
    for group in groups(spec):
        (container,) = group["template"]["spec"]["containers"]
        assert environment(container) == NODE | {RUNS: "/runs"}


@every_cluster
def test_a_token_is_asked_for_wherever_the_dashboard_is_open(
    name: str, spec: Document
) -> None:
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"].get("serviceType", "ClusterIP") == "ClusterIP"
    assert not spec["headGroupSpec"].get("enableIngress")
    for group in groups(spec):
        for container in group["template"]["spec"]["containers"]:
            # An operator that drops the field above must not start an open cluster.
            assert environment(container)["RAY_AUTH_MODE"] == "token"


@every_cluster
def test_grace_is_longer_than_what_it_is_for(name: str, spec: Document) -> None:
    assert DRAIN_SECONDS >= SAVE_SECONDS
    for group in groups(spec):
        pod = group["template"]["spec"]
        needed = DRAIN_SECONDS + TEARDOWN_SECONDS
        assert pod["terminationGracePeriodSeconds"] >= needed
        # Whatever ends Ray before SIGTERM comes leaves nothing to drain.
        assert not any("lifecycle" in container for container in pod["containers"])


@every_file
def test_pods_run_as_nobody_special(path: Path) -> None:
    for pod in pods(documents(path)):
        user = pod["securityContext"]
        assert user["runAsNonRoot"] is True and user["runAsUser"] >= 999
        assert user["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }


@every_file
def test_pods_ask_for_what_they_need(path: Path) -> None:
    for pod in pods(documents(path)):
        for container in pod["containers"]:
            asked, most = (container["resources"][n] for n in ("requests", "limits"))
            assert asked["memory"] == most["memory"] and "cpu" in asked
            assert asked.get("nvidia.com/gpu") == most.get("nvidia.com/gpu")
            cuda = container["image"].endswith("-cuda")
            assert cuda == ("nvidia.com/gpu" in asked)


def test_only_the_autoscaler_speaks_to_kubernetes() -> None:
    for name, spec in clusters():
        for group in groups(spec):
            head = group is spec["headGroupSpec"]
            mounted = group["template"]["spec"].get(
                "automountServiceAccountToken", True
            )
            assert mounted == (head and spec.get("enableInTreeAutoscaling", False)), (
                name
            )


@every_cluster
def test_runs_lie_on_the_volume_that_all_nodes_share(name: str, spec: Document) -> None:
    (base,) = (path for path in KUBERAY if path.name == "namespace.yaml")
    _, claim, _ = documents(base)
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for group in groups(spec):
        pod = group["template"]["spec"]
        (volume,) = pod["volumes"]
        mount = pod["containers"][0]["volumeMounts"]
        assert mount == [{"name": volume["name"], "mountPath": "/runs"}]
        taken = volume["persistentVolumeClaim"]["claimName"]
        assert taken == claim["metadata"]["name"]


def test_all_pods_are_behind_the_network_policy() -> None:
    (base,) = (path for path in KUBERAY if path.name == "namespace.yaml")
    namespace, _, policy = documents(base)
    guarded = policy["spec"]["podSelector"]["matchLabels"]
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    for rule in policy["spec"]["ingress"]:
        ours = rule["from"] == [{"podSelector": {"matchLabels": guarded}}]
        assert ours or rule["ports"], "others reach named ports only"
    for path in KUBERAY:
        for document in documents(path):
            if document["kind"] != "Namespace":
                assert (
                    document["metadata"]["namespace"] == namespace["metadata"]["name"]
                )
            for template in _templates(document):
                labels = template["metadata"]["labels"]
                assert guarded.items() <= labels.items(), path.name


def _templates(value: Any) -> list[Document]:
    if isinstance(value, list):
        return [found for part in value for found in _templates(part)]
    if not isinstance(value, dict):
        return []
    own = [value["template"]] if "template" in value else []
    return own + [found for part in value.values() for found in _templates(part)]


@every_job
def test_a_job_is_known_to_the_commands_by_its_name(name: str, job: Document) -> None:
    spec, called = job["spec"], job["metadata"]["name"]
    attempt = from_metadata(spec["metadata"])
    assert attempt is not None
    assert (attempt.name, attempt.id) == (called, spec["jobId"])
    assert shlex.split(spec["entrypoint"])[:4] == ["exec", "pes", "job", called]
    # KubeRay appends to the name; Kubernetes allows 63 letters.
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?", called)


@every_job
def test_a_job_survives_what_it_is_meant_to(name: str, job: Document) -> None:
    spec = job["spec"]
    assert json.loads(spec["entrypointResources"]) == {DRIVER: 1}
    given = yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]
    assert given == {"RAY_JOB_STOP_WAIT_TIME_S": str(SAVE_SECONDS)}
    assert spec["backoffLimit"] >= 1 and spec["shutdownAfterJobFinishes"] is True
    # Modes in which a retry is refused by the operator.
    assert spec["submissionMode"] not in ("InteractiveMode",)
    assert "clusterSelector" not in spec


def test_passwords_come_from_secrets_only() -> None:
    for path in KUBERAY:
        for found in _fields(
            documents(path), re.compile("password|token$|secret", re.I)
        ):
            name, value = found
            assert not isinstance(value, str) or name == "secretName", (
                path.name,
                found,
            )


def _fields(value: Any, wanted: re.Pattern[str]) -> list[tuple[str, Any]]:
    """All fields of a name, and variables of an environment, with their values."""
    if isinstance(value, list):
        return [found for part in value for found in _fields(part, wanted)]
    if not isinstance(value, dict):
        return []
    found = [(name, part) for name, part in value.items() if wanted.search(name)]
    if "value" in value and wanted.search(str(value.get("name", ""))):
        found.append((value["name"], value["value"]))
    return found + [one for part in value.values() for one in _fields(part, wanted)]


def test_redis_is_the_one_that_ray_is_told_of() -> None:
    (path,) = (path for path in KUBERAY if "fault-tolerant" in path.name)
    cluster, redis, service = documents(path)
    options = cluster["spec"]["gcsFaultToleranceOptions"]
    host, port = options["redisAddress"].split(":")
    assert host == service["metadata"]["name"]
    assert int(port) == service["spec"]["ports"][0]["port"]
    labels = redis["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    (container,) = redis["spec"]["template"]["spec"]["containers"]
    assert container["env"][0]["valueFrom"] == options["redisPassword"]["valueFrom"]
    assert "--requirepass" not in str(container)


@every_cluster
def test_versions_agree_with_the_lock(name: str, spec: Document) -> None:
    assert {spec["rayVersion"]} == pinned(ROOT / "requirements.lock")["ray"]
