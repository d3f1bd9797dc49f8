# SPDX-License-Identifier: Apache-2.0
"""A directory as a source: what is told when files change, and that the last good state stays."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from runtime.errors import KmeshError
from runtime.source.directory import Directory
from runtime.source.files import FilesSource, State
from runtime.source.update import Update

WEB = "default/web.default.svc.cluster.local"


def service(name: str = "web", address: str = "10.96.0.10") -> str:
    return (
        f"---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n"
        f"spec: {{clusterIP: {address}, ports: [{{port: 80}}]}}\n"
    )


class Poller:
    """A directory that is looked at when told to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._directory, self._state = Directory(path), State()

    def write(self, name: str, text: str) -> None:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name("." + target.name)
        draft.write_text(text)
        draft.replace(target)

    def poll(self) -> Update:
        return self._state.take(self._directory.scan())


@pytest.fixture
def poller(tmp_path: Path) -> Poller:
    return Poller(tmp_path)


def addresses(update: Update) -> dict[str, str]:
    return {each.name: str(each.addresses[0].address) for each in update.services}


def test_the_first_update_is_whole_and_the_next_hold_what_changed(poller: Poller) -> None:
    poller.write("a.yaml", service() + service("api", "10.96.0.11"))
    poller.write("sub/b.yml", service("db", "10.96.0.12"))
    first = poller.poll()
    assert first.complete
    assert sorted(addresses(first)) == ["api", "db", "web"]
    poller.write("sub/b.yml", service("db", "10.96.0.13"))
    second = poller.poll()
    assert addresses(second) == {"db": "10.96.0.13"}
    assert second == Update(services=second.services)
    assert poller.poll() == Update()


def test_no_files_is_a_whole_picture_too(poller: Poller) -> None:
    assert poller.poll() == Update(complete=True)


def test_a_removed_file_removes_its_objects(poller: Poller) -> None:
    poller.write("a.yaml", service())
    poller.poll()
    (poller.path / "a.yaml").unlink()
    assert poller.poll() == Update(removed_services=(WEB,))


def test_an_object_may_move_to_another_file(poller: Poller) -> None:
    poller.write("a.yaml", service())
    poller.poll()
    (poller.path / "a.yaml").rename(poller.path / "b.yaml")
    assert poller.poll() == Update()


def test_bad_yaml_keeps_all_that_the_file_said_and_is_told_once(poller: Poller) -> None:
    poller.write("a.yaml", service() + service("api", "10.96.0.11"))
    poller.poll()
    poller.write("a.yaml", "oh: [no")
    update = poller.poll()
    assert (update.services, update.removed_services) == ((), ())
    (rejection,) = update.rejections
    assert rejection.resource == "a.yaml document 1"
    poller.write("b.yaml", service("db", "10.96.0.12"))
    assert poller.poll().rejections == ()


def test_a_bad_object_keeps_its_last_good_version_while_others_change(poller: Poller) -> None:
    poller.write("a.yaml", service() + service("api", "10.96.0.11"))
    poller.poll()
    poller.write("a.yaml", service(address="10.96.0.999") + service("api", "10.96.0.12"))
    update = poller.poll()
    assert addresses(update) == {"api": "10.96.0.12"}
    assert update.removed_services == ()
    assert update.rejections[0].resource == "a.yaml document 1 (Service default/web)"


def test_a_rejection_ends_when_the_file_is_as_it_was(poller: Poller) -> None:
    poller.write("a.yaml", service())
    poller.poll()
    poller.write("a.yaml", service(address="nonsense"))
    (rejection,) = poller.poll().rejections
    poller.write("a.yaml", service())
    assert poller.poll() == Update(accepted=(rejection.resource,))


def test_an_object_missing_from_a_readable_file_is_gone_even_beside_a_bad_one(
    poller: Poller,
) -> None:
    poller.write("a.yaml", service() + service("api", "10.96.0.11"))
    poller.poll()
    poller.write("a.yaml", service(address="nonsense"))
    assert poller.poll().removed_services == ("default/api.default.svc.cluster.local",)


def test_of_two_files_with_one_object_the_first_by_name_decides(poller: Poller) -> None:
    poller.write("b.yaml", service(address="10.96.0.2"))
    assert addresses(poller.poll()) == {"web": "10.96.0.2"}
    poller.write("a.yaml", service(address="10.96.0.1"))
    update = poller.poll()
    assert addresses(update) == {"web": "10.96.0.1"}
    assert update.rejections[0].resource == "b.yaml (Service default/web)"
    (poller.path / "a.yaml").unlink()
    update = poller.poll()
    assert addresses(update) == {"web": "10.96.0.2"}
    assert update.accepted == ("b.yaml (Service default/web)",)


@pytest.mark.parametrize(
    "name", [".a.yaml.swp", ".hidden.yaml", "a.yaml~", "#a.yaml", "4913", "README"]
)
def test_files_of_editors_and_others_are_passed_over(poller: Poller, name: str) -> None:
    (poller.path / name).write_text(service())
    assert poller.poll() == Update(complete=True)


def test_an_unreadable_file_is_rejected_and_keeps_what_it_said(poller: Poller) -> None:
    poller.write("a.yaml", service())
    poller.poll()
    (poller.path / "a.yaml").write_bytes(b"\xff\xfe\xff")
    update = poller.poll()
    assert update.removed_services == ()
    assert "not UTF-8" in update.rejections[0].reason


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_file_that_could_not_be_read_is_tried_again(
    poller: Poller, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_arguments: object, **_more: object) -> str:
        raise OSError(number, os.strerror(number))

    poller.write("a.yaml", service())
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", refuse)
        (rejection,) = poller.poll().rejections
        assert os.strerror(number) in rejection.reason
    update = poller.poll()
    assert (addresses(update), update.accepted) == ({"web": "10.96.0.10"}, ("a.yaml",))
    assert poller.poll() == Update()


def test_a_subdirectory_that_cannot_be_read_loses_nothing(
    poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The superuser may read everything, so the refusal of a broken disk is played."""
    poller.write("sub/a.yaml", service())
    poller.poll()
    real = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "sub":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", refuse)
        with pytest.raises(OSError, match="Input/output error"):
            poller.poll()
    assert poller.poll() == Update()


def test_a_subdirectory_that_goes_takes_its_objects_along(poller: Poller) -> None:
    poller.write("sub/a.yaml", service())
    poller.poll()
    (poller.path / "sub" / "a.yaml").unlink()
    (poller.path / "sub").rmdir()
    assert poller.poll().removed_services == (WEB,)


def test_a_config_map_is_replaced_at_once(poller: Poller) -> None:
    """As the kubelet does it: files link to ..data, which links to a dated directory."""
    top = poller.path
    for stamp, address in (("1", "10.96.0.1"), ("2", "10.96.0.2")):
        (top / f"..{stamp}").mkdir()
        (top / f"..{stamp}" / "a.yaml").write_text(service(address=address))
    (top / "..data").symlink_to("..1")
    (top / "a.yaml").symlink_to("..data/a.yaml")
    assert addresses(poller.poll()) == {"web": "10.96.0.1"}
    (top / "..tmp").symlink_to("..2")
    (top / "..tmp").rename(top / "..data")
    assert addresses(poller.poll()) == {"web": "10.96.0.2"}


def test_links_that_lead_back_up_end(poller: Poller) -> None:
    poller.write("sub/a.yaml", service())
    (poller.path / "sub" / "loop").symlink_to(poller.path)
    assert addresses(poller.poll()) == {"web": "10.96.0.10"}


def test_a_kind_that_is_not_read_is_logged_once(
    poller: Poller, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="kmesh"):
        poller.write("a.yaml", "kind: Deployment\n")
        poller.poll()
        poller.write("b.yaml", "kind: Deployment\n---\nkind: Namespace\n")
        poller.poll()
    assert [record.getMessage() for record in caplog.records] == [
        "a.yaml: kind Deployment is not read here and is passed over"
    ]


def test_a_source_needs_its_directory(tmp_path: Path) -> None:
    with pytest.raises(KmeshError, match="no directory"):
        FilesSource(tmp_path / "missing")


@asynccontextmanager
async def watching(path: Path) -> AsyncIterator[AsyncGenerator[Update, None]]:
    updates = cast("AsyncGenerator[Update, None]", FilesSource(path).updates())
    try:
        yield updates
    finally:
        await updates.aclose()


async def following(updates: AsyncIterator[Update]) -> Update:
    return await asyncio.wait_for(anext(updates), timeout=20)


async def test_changes_are_seen_as_they_happen(poller: Poller) -> None:
    poller.write("a.yaml", service())
    async with watching(poller.path) as updates:
        assert addresses(await following(updates)) == {"web": "10.96.0.10"}
        for number in (11, 12, 13):
            poller.write("a.yaml", service(address=f"10.96.0.{number}"))
            assert addresses(await following(updates)) == {"web": f"10.96.0.{number}"}


async def test_a_file_behind_a_link_out_of_the_directory_is_followed(
    poller: Poller, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "a.yaml"
    elsewhere.write_text(service())
    (poller.path / "a.yaml").symlink_to(elsewhere)
    async with watching(poller.path) as updates:
        await following(updates)
        elsewhere.write_text(service(address="10.96.0.99"))
        assert addresses(await following(updates)) == {"web": "10.96.0.99"}


async def test_a_directory_that_vanishes_keeps_its_last_state_and_may_come_back(
    poller: Poller,
) -> None:
    top = poller.path / "conf"
    inner = Poller(top)
    inner.write("a.yaml", service())
    async with watching(top) as updates:
        await following(updates)
        top.rename(poller.path / "away")
        lost = await following(updates)
        assert lost.removed_services == ()
        assert "last still holds" in lost.rejections[0].reason
        inner.write("a.yaml", service(address="10.96.0.77"))
        back = await following(updates)
        assert addresses(back) == {"web": "10.96.0.77"}
        assert back.accepted == (str(top),)


async def test_a_file_whose_name_is_no_text_does_not_end_the_watching(poller: Poller) -> None:
    poller.write("a.yaml", service())
    async with watching(poller.path) as updates:
        await following(updates)
        strange = os.fsdecode(b"b\xff.yaml")
        poller.write(strange, service("api", "10.96.0.11"))
        assert addresses(await following(updates)) == {"api": "10.96.0.11"}
        poller.write(strange, service("api", "10.96.0.12"))
        assert addresses(await following(updates)) == {"api": "10.96.0.12"}


def test_the_example_of_the_documentation_can_be_served(checkout: Path) -> None:
    update = Poller(checkout / "docs/example").poll()
    assert not update.rejections
    assert addresses(update) == {"web": "10.96.0.10"}
    (workload,) = update.workloads
    assert [str(each) for each in workload.addresses] == ["127.0.0.1"]
    assert update.http is not None
    (table,) = update.http.tables.values()
    assert table is not None
    assert len(table.virtual_hosts[0].routes) == 1
