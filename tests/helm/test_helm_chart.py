# SPDX-License-Identifier: Apache-2.0
"""The chart without a cluster: what Helm makes of it, for several versions and settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ci.cluster import binaries, manifests
from runtime.errors import KmeshError
from runtime.process import run
from runtime.waypoint.place import EXTERNAL, USER

pytestmark = pytest.mark.skipif(
    not binaries.are_built(), reason="no Helm: python -m ci.cluster prepare"
)
VERSIONS = ("1.24.0", "1.29.0", "1.34.4")


def render(*settings: str, **more: Any) -> dict[tuple[str, str], Any]:
    """The chart's objects by kind and name."""
    sets = [part for setting in settings for part in ("--set", setting)]
    documents = yaml.safe_load_all(manifests.template(*sets, **more))
    return {(each["kind"], each["metadata"]["name"]): each for each in documents if each}


def container(objects: Any, name: str = "kmesh") -> Any:
    (only,) = objects["DaemonSet", name]["spec"]["template"]["spec"]["containers"]
    return only


def verbs(objects: Any) -> dict[str, list[str]]:
    rules = objects["ClusterRole", "kmesh-system-kmesh"]["rules"]
    return {resource: rule["verbs"] for rule in rules for resource in rule["resources"]}


def test_helm_finds_no_fault() -> None:
    assert "0 chart(s) failed" in run([str(binaries.helm()), "lint", str(manifests.CHART)]).stdout


@pytest.mark.parametrize("version", VERSIONS)
def test_it_is_the_same_for_every_supported_kubernetes(version: str) -> None:
    assert render(kubernetes=version) == render()


def test_too_old_a_kubernetes_is_refused() -> None:
    with pytest.raises(KmeshError, match="incompatible with Kubernetes"):
        render(kubernetes="1.23.0")


def test_plain_manifests_are_rendered_from_the_chart() -> None:
    assert manifests.written() == manifests.rendered(), "run `make manifests`"


def test_plain_manifests_know_nothing_of_helm() -> None:
    for name, text in manifests.written().items():
        assert "helm.sh" not in text, name
        assert list(yaml.safe_load_all(text)), name


def test_no_container_is_privileged_and_capabilities_are_named() -> None:
    for key, item in render().items():
        if key[0] in ("DaemonSet", "Job"):
            for each in item["spec"]["template"]["spec"]["containers"]:
                context = each["securityContext"]
                assert context["readOnlyRootFilesystem"]
                assert not context["allowPrivilegeEscalation"]
                assert not context.get("privileged")
                assert context["capabilities"]["drop"] == ["ALL"]
    added = container(render())["securityContext"]["capabilities"]["add"]
    assert added == ["SYS_ADMIN", "NET_ADMIN", "DAC_OVERRIDE"]


def test_rights_are_the_fewest() -> None:
    assert verbs(render()) == {
        "pods": ["get", "list", "watch", "patch"],
        "namespaces": ["get", "list", "watch"],
        "nodes": ["get", "patch"],
        "events": ["create"],
        "authorizationpolicies": ["list", "watch"],
    }
    read = ["list", "watch"]
    assert verbs(render("source=kubernetes")) == verbs(render()) | {
        "services": read,
        "endpointslices": read,
        "httproutes": read,
    }
    assert verbs(render("enrolment.enabled=false")) == {"authorizationpolicies": read}


def test_renamed_namespace_is_everywhere() -> None:
    objects = render(namespace="mesh")
    assert {item["metadata"].get("namespace", "mesh") for item in objects.values()} == {"mesh"}
    subjects = [item["subjects"] for key, item in objects.items() if key[0].endswith("Binding")]
    assert {each["namespace"] for some in subjects for each in some} == {"mesh"}
    assert ("ClusterRole", "mesh-kmesh") in objects, "two installations must not share a role"


def test_private_registry() -> None:
    objects = render("image.repository=registry.local:5000/kmesh", "image.pullSecrets={one,two}")
    for name in ("kmesh", "kmesh-cleanup"):
        assert container(objects, name)["image"] == "registry.local:5000/kmesh:latest"
        spec = objects["DaemonSet", name]["spec"]["template"]["spec"]
        assert spec["imagePullSecrets"] == [{"name": "one"}, {"name": "two"}]


def test_other_paths_of_the_cni_and_the_runtime() -> None:
    objects = render(
        "cni.binDir=/usr/libexec/cni", "cni.confDir=/etc/k/net.d", "hostPaths.run=/run/k"
    )
    for name in ("kmesh", "kmesh-cleanup"):
        volumes = objects["DaemonSet", name]["spec"]["template"]["spec"]["volumes"]
        paths = {each["name"]: each.get("hostPath", {}).get("path") for each in volumes}
        assert paths["cni-bin"] == "/usr/libexec/cni"
        assert paths["cni-conf"] == "/etc/k/net.d"
    assert objects["ConfigMap", "kmesh"]["data"]["KMESH_CNI_SOCKET"] == "/run/k/cni.sock"


def test_every_volume_that_is_mounted_is_there() -> None:
    for settings in (
        (),
        ("source=kubernetes",),
        ("cni.enabled=false",),
        ("nodeFeature.enabled=true",),
        ("kernelHeaders=true",),
    ):
        for key, item in render(*settings).items():
            if key[0] != "DaemonSet":
                continue
            spec = item["spec"]["template"]["spec"]
            there = {each["name"] for each in spec["volumes"]}
            mounted = {m["name"] for each in spec["containers"] for m in each["volumeMounts"]}
            assert mounted == there


def test_change_of_configuration_is_another_pod() -> None:
    def checksum(*settings: str) -> str:
        template = render(*settings)["DaemonSet", "kmesh"]["spec"]["template"]
        value: str = template["metadata"]["annotations"]["checksum/config"]
        return value

    assert checksum() == checksum()
    assert checksum() != checksum("logLevel=debug")


def test_waypoints_are_connected_to_where_the_filter_listens() -> None:
    def ports(*settings: str) -> str:
        value: str = render(*settings)["ConfigMap", "kmesh"]["data"]["KMESH_WAYPOINT_PORTS"]
        return value

    assert ports() == "15008:15019"
    assert ports("waypointFilter.port=15020") == "15008:15020"
    assert ports("waypointFilter.insteadOf=0") == "none"


def test_routes_are_followed_where_that_is_asked_for() -> None:
    assert "KMESH_ROUTES" not in render()["ConfigMap", "kmesh"]["data"]
    assert render("routes=true")["ConfigMap", "kmesh"]["data"]["KMESH_ROUTES"] == "true"


def test_names_that_no_dns_knows() -> None:
    objects = render(
        "hostAliases[0].ip=10.0.0.1", "hostAliases[0].hostnames={istiod.istio-system.svc}"
    )
    spec = objects["DaemonSet", "kmesh"]["spec"]["template"]["spec"]
    assert spec["hostAliases"] == [{"ip": "10.0.0.1", "hostnames": ["istiod.istio-system.svc"]}]
    assert "hostAliases" not in render()["DaemonSet", "kmesh"]["spec"]["template"]["spec"]


def test_what_outlives_the_daemon_is_kept_over_updates() -> None:
    assert render()["ConfigMap", "kmesh"]["data"]["KMESH_KEEP_DATAPATH"] == "true"


def test_whose_word_is_taken_for_policies_on_requests_is_told_where_it_is_chosen() -> None:
    assert "KMESH_HTTP_POLICIES" not in render()["ConfigMap", "kmesh"]["data"]
    data = render("httpPolicies=clients")["ConfigMap", "kmesh"]["data"]
    assert data["KMESH_HTTP_POLICIES"] == "clients"


def test_the_way_of_responses_is_told_where_it_is_chosen() -> None:
    assert "KMESH_RESPONSES" not in render()["ConfigMap", "kmesh"]["data"]
    assert render("responses=gate")["ConfigMap", "kmesh"]["data"]["KMESH_RESPONSES"] == "gate"


def test_environment_of_the_config_map_is_what_the_command_reads(checkout: Path) -> None:
    known = (checkout / "runtime" / "cli" / "run.py").read_text()
    settings = (
        "acceleration=on",
        "responses=kernel",
        "ignoreBugs={a,b}",
        "nodeFeature.enabled=true",
    )
    for name in render(*settings)["ConfigMap", "kmesh"]["data"]:
        assert not name.startswith("KMESH_") or f'"{name}"' in known, name


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("mode=fast", "/mode"),
        ("responses=home", "/responses"),
        ("xds.address=istiod", "/xds/address"),
        ("cni.binDir=relative", "/cni/binDir"),
        ("logLevel=loud", "/logLevel"),
        ("unknown=1", "additional properties 'unknown'"),
        ("metrics.port=0", "/metrics/port"),
        ("extraCapabilities={sys_ptrace}", "/extraCapabilities"),
    ],
)
def test_wrong_value_is_refused_by_name(setting: str, complaint: str) -> None:
    with pytest.raises(KmeshError, match=re.escape(complaint)):
        render(setting)


def test_every_value_is_in_the_schema_and_documented(checkout: Path) -> None:
    chart = checkout / "helm" / "kmesh"
    values = yaml.safe_load((chart / "values.yaml").read_text())
    schema = yaml.safe_load((chart / "values.schema.json").read_text())
    assert set(values) == set(schema["properties"]) - {"global"}
    for name, inner in values.items():
        properties = schema["properties"][name].get("properties")
        if isinstance(inner, dict) and properties is not None:
            assert set(inner) == set(properties), name


def test_clean_up_may_delete_nothing_but_the_daemons() -> None:
    rules = render()["Role", "kmesh-cleanup"]["rules"]
    deleting = [rule for rule in rules if "delete" in rule["verbs"]]
    assert [rule["resourceNames"] for rule in deleting] == [["kmesh"]]
    assert render("cleanup.enabled=false").keys().isdisjoint({("Job", "kmesh-cleanup")})


def pod_of(objects: Any) -> Any:
    return objects["DaemonSet", "kmesh"]["spec"]["template"]["spec"]


def test_the_nodes_waypoint_is_left_out_unless_it_is_wanted() -> None:
    objects = render()
    assert [each["name"] for each in pod_of(objects)["containers"]] == ["kmesh"]
    assert "KMESH_NODE_WAYPOINT" not in objects["ConfigMap", "kmesh"]["data"]


def test_the_nodes_waypoint_is_a_container_without_rights_in_the_daemons_directory() -> None:
    objects = render(
        "waypoint.node.enabled=true",
        "waypoint.node.image.repository=registry.example/envoy",
        "hostPaths.run=/var/run/mesh",
    )
    assert objects["ConfigMap", "kmesh"]["data"]["KMESH_NODE_WAYPOINT"] == EXTERNAL
    daemon, envoy = pod_of(objects)["containers"]
    assert "CHOWN" in daemon["securityContext"]["capabilities"]["add"]
    assert envoy["image"].startswith("registry.example/envoy:")
    assert envoy["securityContext"]["runAsUser"] == envoy["securityContext"]["runAsGroup"] == USER
    assert envoy["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert envoy["resources"]["limits"]["memory"] == "640Mi"
    (mount,) = envoy["volumeMounts"]
    assert mount["mountPath"] == envoy["workingDir"]
    (volume,) = [each for each in pod_of(objects)["volumes"] if each["name"] == mount["name"]]
    assert volume["hostPath"]["path"] == "/var/run/mesh/node-waypoint"
    assert "bootstrap.json" in envoy["command"][-1]


def test_only_istiod_has_what_the_nodes_waypoint_takes() -> None:
    with pytest.raises(KmeshError, match="takes source=istiod"):
        render("waypoint.node.enabled=true", "source=kubernetes")
