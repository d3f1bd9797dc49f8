# SPDX-License-Identifier: Apache-2.0
"""Where a processor keeps no order by itself, programs ask for it; where it does, nothing of that is left of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.kernel import features
from runtime.kernel.datapath import DataPath
from tests.dataplane.enhanced_stage import Stage
from tests.dataplane.redirects import skip_where_redirects_are_broken
from tests.dataplane.test_enhanced_streams import (  # noqa: F401 - run here too
    test_pipelined_requests_are_answered_in_their_order,
)
from tests.dataplane.test_enhanced_underway import (  # noqa: F401 - run here too
    test_a_request_sent_meanwhile_is_not_taken_and_comes_second,
    test_the_gate_is_told_until_it_is_there,
)

pytestmark = pytest.mark.root


@contextmanager
def loaded_for(*, keeps_order: int) -> Iterator[None]:
    """What is loaded inside is loaded as for such a processor."""
    config = features.config()._replace(keeps_order=keeps_order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "config", lambda: config)
        yield


@pytest.fixture(scope="module")
def shared_stage(all_objects: Path, gate_program: Path) -> Iterator[Stage]:
    skip_where_redirects_are_broken()
    with (
        loaded_for(keeps_order=0),
        Stage(all_objects, gate_program, accelerated=True) as made,
    ):
        yield made


def test_what_a_processor_does_anyway_costs_nothing(all_objects: Path, pins: Path) -> None:
    sizes: list[dict[str, int]] = []
    for keeps_order in (0, 1):
        with loaded_for(keeps_order=keeps_order):
            path = DataPath.open(all_objects, pins=pins, path="enhanced")
        sizes.append({one.name: one.instructions for one in path.programs()})
        path.destroy()
    asks, does = sizes
    longer = {name for name in asks if asks[name] != does[name]}
    assert longer == {"kmesh_read_requ"}
    assert asks["kmesh_read_requ"] > does["kmesh_read_requ"]
