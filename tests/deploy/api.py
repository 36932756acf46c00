"""The fields that a manifest may have, and a check against them.

Of KubeRay: ray.io/v1 as the reference of its release 1.7 lists it. Of Kubernetes: what
our pods and their neighbours use, from its API reference (1.34). A field that KubeRay
takes and this list lacks is a reason to extend the list, never to leave the check out.

A tree is read like this: a dict is an object with these fields, of which those with "!"
must be there; a list is a list of its one element; a tuple names all values; else the
name of a type.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Tree = Any
TEXT, WHOLE, NUMBER, FLAG, MAP = "text", "whole", "number", "flag", "map of texts"
QUANTITY = "quantity"

LABELS = {"matchLabels": MAP, "matchExpressions": "anything"}
METADATA = {
    "name": TEXT,
    "namespace": TEXT,
    "labels": MAP,
    "annotations": MAP,
}
RESOURCES = {"requests": QUANTITY, "limits": QUANTITY}
KEY = {"name!": TEXT, "key!": TEXT, "optional": FLAG}
SOURCE = {
    "secretKeyRef": KEY,
    "configMapKeyRef": KEY,
    "fieldRef": {"fieldPath!": TEXT, "apiVersion": TEXT},
    "resourceFieldRef": {"resource!": TEXT, "containerName": TEXT},
}
ENV = [{"name!": TEXT, "value": TEXT, "valueFrom": SOURCE}]
MOUNTS = [
    {
        "name!": TEXT,
        "mountPath!": TEXT,
        "subPath": TEXT,
        "readOnly": FLAG,
        "mountPropagation": TEXT,
    }
]
CONFINED = {
    "allowPrivilegeEscalation": FLAG,
    "capabilities": {"add": [TEXT], "drop": [TEXT]},
    "privileged": FLAG,
    "readOnlyRootFilesystem": FLAG,
    "runAsNonRoot": FLAG,
    "runAsUser": WHOLE,
    "runAsGroup": WHOLE,
    "seccompProfile": {"type!": TEXT, "localhostProfile": TEXT},
}
ACTION = {
    "exec": {"command": [TEXT]},
    "httpGet": {"path": TEXT, "port!": "port", "scheme": TEXT},
    "tcpSocket": {"port!": "port"},
    "sleep": {"seconds!": WHOLE},
}
PROBE = {
    **{name: tree for name, tree in ACTION.items() if name != "sleep"},
    "initialDelaySeconds": WHOLE,
    "periodSeconds": WHOLE,
    "timeoutSeconds": WHOLE,
    "successThreshold": WHOLE,
    "failureThreshold": WHOLE,
}
CONTAINER = {
    "name!": TEXT,
    "image": TEXT,
    "imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "command": [TEXT],
    "args": [TEXT],
    "workingDir": TEXT,
    "env": ENV,
    "envFrom": [{"secretRef": {"name": TEXT}, "configMapRef": {"name": TEXT}}],
    "ports": [
        {"name": TEXT, "containerPort!": WHOLE, "protocol": ("TCP", "UDP", "SCTP")}
    ],
    "resources": RESOURCES,
    "securityContext": CONFINED,
    "lifecycle": {"preStop": ACTION, "postStart": ACTION},
    "livenessProbe": PROBE,
    "readinessProbe": PROBE,
    "startupProbe": PROBE,
    "volumeMounts": MOUNTS,
}
POD = {
    "activeDeadlineSeconds": WHOLE,
    "affinity": "anything",
    "automountServiceAccountToken": FLAG,
    "containers!": [CONTAINER],
    "enableServiceLinks": FLAG,
    "hostNetwork": FLAG,
    "imagePullSecrets": [{"name": TEXT}],
    "initContainers": [CONTAINER],
    "nodeSelector": MAP,
    "priorityClassName": TEXT,
    "restartPolicy": ("Always", "OnFailure", "Never"),
    "runtimeClassName": TEXT,
    "securityContext": {
        "fsGroup": WHOLE,
        "fsGroupChangePolicy": ("Always", "OnRootMismatch"),
        "runAsNonRoot": FLAG,
        "runAsUser": WHOLE,
        "runAsGroup": WHOLE,
        "seccompProfile": {"type!": TEXT, "localhostProfile": TEXT},
        "supplementalGroups": [WHOLE],
    },
    "serviceAccountName": TEXT,
    "terminationGracePeriodSeconds": WHOLE,
    "tolerations": [
        {
            "key": TEXT,
            "operator": ("Exists", "Equal"),
            "value": TEXT,
            "effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
            "tolerationSeconds": WHOLE,
        }
    ],
    "topologySpreadConstraints": "anything",
    "volumes": [
        {
            "name!": TEXT,
            "emptyDir": {"medium": ("", "Memory"), "sizeLimit": TEXT},
            "persistentVolumeClaim": {"claimName!": TEXT, "readOnly": FLAG},
            "secret": {"secretName": TEXT, "defaultMode": WHOLE},
            "configMap": {"name": TEXT, "defaultMode": WHOLE},
        }
    ],
}
TEMPLATE = {"metadata": METADATA, "spec!": POD}
CLAIM = {
    "accessModes!": [
        ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")
    ],
    "resources!": RESOURCES,
    "storageClassName": TEXT,
    "volumeMode": TEXT,
    "volumeName": TEXT,
    "selector": LABELS,
}
PEERS = [
    {
        "podSelector": LABELS,
        "namespaceSelector": LABELS,
        "ipBlock": {"cidr!": TEXT, "except": [TEXT]},
    }
]
PORTS = [{"port": "port", "endPort": WHOLE, "protocol": ("TCP", "UDP", "SCTP")}]
INGRESS, EGRESS = (
    [{"from": PEERS, "ports": PORTS}],
    [{"to": PEERS, "ports": PORTS}],
)

CREDENTIAL = {"value": TEXT, "valueFrom": SOURCE}
RULES = {"ingressRules": INGRESS, "egressRules": EGRESS}
HEAD_GROUP = {
    "template!": TEMPLATE,
    "headService": "anything",
    "enableIngress": FLAG,
    "ingressOptions": "anything",
    "resources": MAP,
    "labels": MAP,
    "rayStartParams": MAP,
    "serviceType": ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName"),
}
WORKER_GROUP = {
    "suspend": FLAG,
    "groupName!": TEXT,
    "replicas": WHOLE,
    "minReplicas!": WHOLE,
    "maxReplicas!": WHOLE,
    "idleTimeoutSeconds": WHOLE,
    "priority": WHOLE,
    "resources": MAP,
    "labels": MAP,
    "rayStartParams": MAP,
    "template!": TEMPLATE,
    "scaleStrategy": {"workersToDelete": [TEXT]},
    "numOfHosts": WHOLE,
}
RAY_CLUSTER = {
    "upgradeStrategy": {"type": ("Recreate", "None")},
    "authOptions": {
        "mode": ("disabled", "token"),
        "secretName": TEXT,
        "enableK8sTokenAuth": FLAG,
    },
    "suspend": FLAG,
    "managedBy": TEXT,
    "autoscalerOptions": {
        "resources": RESOURCES,
        "image": TEXT,
        "imagePullPolicy": ("Always", "IfNotPresent", "Never"),
        "securityContext": CONFINED,
        "idleTimeoutSeconds": WHOLE,
        "upscalingMode": ("Default", "Aggressive", "Conservative"),
        "version": ("v1", "v2"),
        "env": ENV,
        "envFrom": "anything",
        "volumeMounts": MOUNTS,
        "command": [TEXT],
        "args": [TEXT],
    },
    "headServiceAnnotations": MAP,
    "enableInTreeAutoscaling": FLAG,
    "gcsFaultToleranceOptions": {
        "backend": ("redis", "rocksdb"),
        "redisUsername": CREDENTIAL,
        "redisPassword": CREDENTIAL,
        "externalStorageNamespace": TEXT,
        "redisAddress": TEXT,
        "storage": {
            "claimName": TEXT,
            "size": TEXT,
            "storageClassName": TEXT,
            "accessModes": [TEXT],
            "subPath": TEXT,
            "deletionPolicy": ("DeleteWithCluster", "Retain"),
        },
    },
    "historyServerOptions": "anything",
    "networkPolicy": {
        "mode": ("DenyAll", "DenyAllIngress", "DenyAllEgress"),
        "head": RULES,
        "worker": RULES,
        "workerGroups": [{"groupName!": TEXT, **RULES}],
    },
    "tlsOptions": {"enabled": FLAG},
    "headGroupSpec!": HEAD_GROUP,
    "rayVersion": TEXT,
    "workerGroupSpecs": [WORKER_GROUP],
}
RAY_JOB = {
    "activeDeadlineSeconds": WHOLE,
    "backoffLimit": WHOLE,
    "rayClusterSpec": RAY_CLUSTER,
    "submitterPodTemplate": TEMPLATE,
    "metadata": MAP,
    "clusterSelector": MAP,
    "submitterConfig": {"backoffLimit": WHOLE},
    "managedBy": TEXT,
    "deletionStrategy": "anything",
    "entrypoint": TEXT,
    "runtimeEnvYAML": TEXT,
    "jobId": TEXT,
    "submissionMode": ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    "entrypointResources": TEXT,
    "entrypointNumCpus": NUMBER,
    "entrypointNumGpus": NUMBER,
    "ttlSecondsAfterFinished": WHOLE,
    "preRunningDeadlineSeconds": WHOLE,
    "shutdownAfterJobFinishes": FLAG,
    "suspend": FLAG,
}
STATEFUL_SET = {
    "serviceName": TEXT,
    "replicas": WHOLE,
    "selector!": LABELS,
    "template!": TEMPLATE,
    "volumeClaimTemplates": [{"metadata": METADATA, "spec": CLAIM}],
    "updateStrategy": "anything",
    "podManagementPolicy": TEXT,
}
SERVICE = {
    "selector": MAP,
    "ports": [
        {"name": TEXT, "port!": WHOLE, "targetPort": "port", "protocol": ("TCP", "UDP")}
    ],
    "type": ("ClusterIP", "NodePort", "LoadBalancer"),
    "clusterIP": TEXT,
}
NETWORK_POLICY = {
    "podSelector!": LABELS,
    "policyTypes": [("Ingress", "Egress")],
    "ingress": INGRESS,
    "egress": EGRESS,
}
SPECS: dict[tuple[str, str], Tree] = {
    ("ray.io/v1", "RayCluster"): RAY_CLUSTER,
    ("ray.io/v1", "RayJob"): RAY_JOB,
    ("v1", "Namespace"): None,
    ("v1", "PersistentVolumeClaim"): CLAIM,
    ("v1", "Service"): SERVICE,
    ("apps/v1", "StatefulSet"): STATEFUL_SET,
    ("networking.k8s.io/v1", "NetworkPolicy"): NETWORK_POLICY,
}


def faults(document: Mapping[str, Any]) -> list[str]:
    """What is wrong with the fields of a manifest, each in one line."""
    kind = (document.get("apiVersion", ""), document.get("kind", ""))
    if kind not in SPECS:
        return [f"{'/'.join(kind)}: no such kind here"]
    tree: dict[str, Tree] = {"apiVersion!": TEXT, "kind!": TEXT, "metadata!": METADATA}
    if SPECS[kind] is not None:
        tree["spec!"] = SPECS[kind]
    return list(_faults(document, tree, kind[1]))


def _faults(value: Any, tree: Tree, path: str) -> Iterator[str]:
    match tree:
        case dict():
            yield from _object(value, tree, path)
        case [element] if isinstance(tree, list):
            if not isinstance(value, list):
                yield f"{path}: is no list"
                return
            for index, one in enumerate(value):
                yield from _faults(one, element, f"{path}[{index}]")
        case tuple():
            if value not in tree:
                yield f"{path}: {value!r} is none of {tree}"
        case _:
            if not _is(value, tree):
                yield f"{path}: {value!r} is no {tree}"


def _object(value: Any, tree: dict[str, Tree], path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: is no object"
        return
    known = {name.rstrip("!"): part for name, part in tree.items()}
    needed = {name.rstrip("!") for name in tree if name.endswith("!")}
    yield from (f"{path}.{name}: is missing" for name in sorted(needed - set(value)))
    for name, part in value.items():
        if name not in known:
            yield f"{path}.{name}: no such field"
        else:
            yield from _faults(part, known[name], f"{path}.{name}")


def _is(value: Any, kind: str) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    match kind:
        case "text":
            return isinstance(value, str)
        case "whole":
            return whole
        case "number":
            return whole or isinstance(value, float)
        case "flag":
            return isinstance(value, bool)
        case "port":
            return whole or isinstance(value, str)
        case "map of texts":
            return isinstance(value, dict) and all(
                isinstance(part, str) for part in value.values()
            )
        case "quantity":
            return isinstance(value, dict) and all(
                isinstance(part, str | int) for part in value.values()
            )
        case _:
            return kind == "anything"
