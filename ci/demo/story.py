# SPDX-License-Identifier: Apache-2.0
"""The demo's story: each step shows one thing, says why it is so, and fails if it is not."""

from __future__ import annotations

from collections import Counter
from textwrap import dedent

from ci.demo import tell
from ci.demo.mesh_story import check as _check
from ci.demo.mesh_story import tell_mesh
from ci.demo.stage import KMESH, Stage

ADDRESS, ADDRESS6 = "10.96.0.10", "fd00:10:96::10"
BACKENDS = {
    "blue": ("10.244.0.11", "fd00:10:244::11"),
    "green": ("10.244.0.12", "fd00:10:244::12"),
}
REQUESTS = 40

_SERVICE = f"""\
    apiVersion: v1
    kind: Service
    metadata: {{name: shop, namespace: demo}}
    spec:
      clusterIPs: [{ADDRESS}, "{ADDRESS6}"]
      ports: [{{name: http, port: 80, targetPort: 8080}}]
    """
_SLICE = """\
    ---
    apiVersion: discovery.k8s.io/v1
    kind: EndpointSlice
    metadata:
      name: shop-{family}
      namespace: demo
      labels: {{kubernetes.io/service-name: shop}}
    addressType: {family}
    ports: [{{name: http, port: 8080}}]
    endpoints:
    """


def manifests(*names: str) -> str:
    """The Service, and an EndpointSlice for each family with these backends."""
    text = dedent(_SERVICE)
    for index, family in enumerate(("IPv4", "IPv6")):
        text += dedent(_SLICE).format(family=family)
        text += "".join(f'- addresses: ["{BACKENDS[name][index]}"]\n' for name in names)
    return text


def tell_story(stage: Stage) -> None:
    """Tell all of it.

    Raises:
        DemoError: something was not as told.
    """
    _backends(stage)
    _configuration(stage)
    _daemon(stage)
    _requests(stage)
    _untouched(stage)
    _endpoint_removed(stage)
    _mistake(stage)
    tell_mesh(stage)
    _end(stage)


def _backends(stage: Stage) -> None:
    tell.step("Two backends")
    tell.say(
        "Two small HTTP servers, each answering with its name. All of this happens in a network "
        "namespace of its own: no packet leaves this machine, and no address of yours is touched."
    )
    for name, (address, address6) in BACKENDS.items():
        for each in (address, address6):
            stage.add_address(each)
        stage.start_backend(name, f"{address}:8080", f"[{address6}]:8080")
        tell.output([f"{name:<6} {address}:8080  [{address6}]:8080"])


def _configuration(stage: Stage) -> None:
    tell.step("One service")
    tell.say(
        f"Plain Kubernetes YAML in a directory. Nobody on this machine has the addresses {ADDRESS} "
        f"and {ADDRESS6}: they exist in this file alone."
    )
    _write(stage, manifests(*BACKENDS))
    tell.output(manifests(*BACKENDS).splitlines())


def _write(stage: Stage, text: str) -> None:
    draft = stage.services / ".shop.yaml"
    draft.write_text(text)
    draft.replace(stage.services / "shop.yaml")


def _daemon(stage: Stage) -> None:
    tell.step("Kmesh looks at this kernel, and starts the compat path")
    tell.output(stage.start_daemon())
    status = stage.ask("status")
    _check(status["mode"] == "compat", "the compat path is ready", f"it runs {status['mode']}")
    tell.say("What it knows now:")
    stage.show(["kmeshctl", "services"])


def _ask_shop(stage: Stage, url: str) -> Counter[str]:
    """Many requests by one managed command; how often each backend answered."""
    script = f'for i in $(seq {REQUESTS}); do curl -sS -m 5 "{url}"; done'
    argv = ["kmesh", "exec", "--", "sh", "-c", script]
    tell.command(argv)
    done = stage.run([str(KMESH), *argv[1:]])
    answers = Counter(done.stdout.split())
    tell.output([f"{name:<6} answered {count:>2} of {REQUESTS}" for name, count in answers.items()])
    return answers


def _requests(stage: Stage) -> None:
    tell.step("Real requests, answered by both")
    tell.say(
        "`kmesh exec` runs a command as a managed workload. When it connects to the service, the "
        "kernel replaces the address by that of one backend before the first packet is made: there "
        "is no proxy in between, no NAT, and no cost for any packet after."
    )
    for url in (f"http://{ADDRESS}/", f"http://[{ADDRESS6}]/"):
        answers = _ask_shop(stage, url)
        _check(set(answers) == set(BACKENDS), f"both answered {url}", f"answers were {answers}")
    _check(sum(answers.values()) == REQUESTS, "every request was answered", f"only {answers}")
    tell.say("The application itself believes that it talks to the service's address:")
    seen = stage.show(
        [
            "kmesh",
            "exec",
            "--",
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{remote_ip}\\n",
            f"http://{ADDRESS}/",
        ]
    )
    _check(seen == [ADDRESS], f"curl saw {ADDRESS}", f"curl saw {seen}")


def _untouched(stage: Stage) -> None:
    tell.step("What is not managed is not touched")
    tell.say("The same request without `kmesh exec`: for this process, the address does not exist.")
    argv = ["curl", "-sS", "-m", "3", f"http://{ADDRESS}/"]
    tell.command(argv)
    done = stage.run(argv, check=False)
    tell.output(done.stderr.splitlines())
    _check(done.returncode != 0, "nothing answered, as it should be", "it was answered")


def _endpoint_removed(stage: Stage) -> None:
    tell.step("An endpoint goes away while everything runs")
    tell.say("green is taken out of the file. Kmesh watches the directory:")
    _write(stage, manifests("blue"))
    seconds = stage.wait_for(lambda: _endpoints(stage) == 2, "the change was not seen")
    tell.good(f"seen, and in the kernel, within {seconds:.1f} s")
    answers = _ask_shop(stage, f"http://{ADDRESS}/")
    _check(answers == {"blue": REQUESTS}, "blue answers everything", f"answers were {answers}")


def _endpoints(stage: Stage) -> int:
    return sum(len(service["endpoints"]) for service in stage.ask("services"))


def _mistake(stage: Stage) -> None:
    tell.step("A mistake in the file breaks nothing")
    _write(stage, manifests("blue").replace("port: 80,", "port: eighty,"))
    stage.wait_for(lambda: stage.ask("status")["sync"]["rejected"], "the mistake was not seen")
    stage.show(["kmeshctl", "status"])
    answers = _ask_shop(stage, f"http://{ADDRESS}/")
    _check(answers == {"blue": REQUESTS}, "the last good state keeps serving", f"{answers}")


def _end(stage: Stage) -> None:
    tell.step("The end")
    tell.say("SIGTERM: the daemon detaches and unpins everything that it made.")
    status = stage.stop_daemon()
    _check(status == 0, "kmesh run ended cleanly", f"kmesh run ended with status {status}")
    left = [str(path) for path in stage.leftovers()]
    _check(not left, "no program, no map, no file is left", f"still there: {', '.join(left)}")
    tell.say(
        "To go on by yourself: `kmesh probe` tells what this kernel can do and why not more, "
        "`kmesh run --help` and `kmesh exec --help` the rest."
    )
