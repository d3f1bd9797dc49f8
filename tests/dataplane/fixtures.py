# SPDX-License-Identifier: Apache-2.0
"""Worlds, pins, cgroups and data paths for tests that need a kernel; all gone afterwards."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from runtime.kernel.cgroup import cgroup2_root
from runtime.kernel.cleanup import cleanup
from runtime.kernel.datapath import DataPath
from runtime.model.mesh import Service, Workload
from runtime.source.update import Update
from runtime.tables.services import ServiceTables
from tests.dataplane.world import VIP4, Agent, World
from tests.tables.tables_model import service

_numbers = count()


@pytest.fixture
def world() -> Iterator[World]:
    """A network namespace with processes in it."""
    with World() as made:
        yield made


@pytest.fixture
def pins() -> Iterator[Path]:
    """A directory for pins, with no BPF file system there yet."""
    with tempfile.TemporaryDirectory(prefix=f"kmesh-test-{os.getpid()}-") as name:
        yield Path(name)
        cleanup(Path(name))


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """An empty cgroup."""
    path = cgroup2_root() / f"kmesh-test-{os.getpid()}-cgroup-{next(_numbers)}"
    path.mkdir()
    yield path
    if path.is_dir():
        path.rmdir()


@pytest.fixture
def datapath(objects: Path, pins: Path) -> Iterator[DataPath]:
    """A data path without tables."""
    opened = DataPath.open(objects, pins=pins)
    yield opened
    opened.destroy()


Publish = Callable[..., None]


@pytest.fixture
def tables() -> ServiceTables:
    return ServiceTables()


@pytest.fixture
def publish(datapath: DataPath, tables: ServiceTables) -> Publish:
    """Bring a whole picture into the kernel: workloads, and services or service a's attributes."""

    def whole(
        *workloads: Workload,
        addresses: tuple[str, ...] = (VIP4,),
        services: tuple[Service, ...] = (),
        **extra: Any,
    ) -> None:
        wanted = services or (service("a", *addresses, **extra),)
        datapath.apply(tables.apply(Update(services=wanted, workloads=workloads, complete=True)))

    return whole


@pytest.fixture
def client(world: World, datapath: DataPath) -> Agent:
    """A process in an enrolled cgroup."""
    enrolled = world.cgroup()
    datapath.enroll_cgroup(enrolled)
    return world.agent(enrolled)
