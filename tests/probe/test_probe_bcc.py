# SPDX-License-Identifier: Apache-2.0
"""The bcc adapter: headers found, constants read from what bcc compiles, and nobody waits for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from runtime.probe import bcc_adapter
from runtime.probe.bcc_adapter import Headers, HeadersError, constants
from tests.probe.header_tree import build, common

needs_bcc = pytest.mark.skipif(
    bcc_adapter._interpreter() is None,
    reason="needs the distribution's bcc (python3-bpfcc)",
)
RELEASE = "1.2.3-test"
PAD = "#define CONFIG_PAD 12\n"
SOCK = """\
struct sock { char pad[CONFIG_PAD]; int sk_sndbuf; struct { long a; unsigned char b; } inner; };
"""


@pytest.fixture
def split(tmp_path: Path) -> Headers:
    return Headers(
        (
            build(tmp_path / "build", release=RELEASE, config=PAD),
            common(tmp_path / "common", sock=SOCK),
        )
    )


def installed(root: Path, *, release: str = RELEASE) -> Path:
    build(root / f"usr/src/linux-headers-{RELEASE}", release=release)
    makefile = root / f"usr/src/linux-headers-{RELEASE}/Makefile"
    makefile.write_text("include /usr/src/common/Makefile\n")
    common(root / "usr/src/common", sock=SOCK)
    modules = root / f"lib/modules/{RELEASE}"
    modules.mkdir(parents=True)
    (modules / "build").symlink_to(f"/usr/src/linux-headers-{RELEASE}")
    return root


def test_headers_where_distributions_put_them(tmp_path: Path) -> None:
    assert bcc_adapter.headers(RELEASE, root=tmp_path) is None
    found = bcc_adapter.headers(RELEASE, root=installed(tmp_path))
    assert found is not None
    assert found.places[0] == tmp_path / f"usr/src/linux-headers-{RELEASE}"
    assert tmp_path / "usr/src/common" in found.places


def test_headers_of_another_kernel_are_none_of_this_one(tmp_path: Path) -> None:
    installed(tmp_path, release="1.2.4-test")
    assert bcc_adapter.headers(RELEASE, root=tmp_path) is None


def test_the_archive_that_a_kernel_carries(tmp_path: Path) -> None:
    archive = tmp_path / "sys/kernel/kheaders.tar.xz"
    archive.parent.mkdir(parents=True)
    archive.touch()
    assert bcc_adapter.headers("1.2", root=tmp_path) == Headers((archive,))


def test_headers_that_were_said_count_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = build(tmp_path / "said", release=RELEASE)
    installed(tmp_path / "root")
    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(said))
    assert bcc_adapter.headers(RELEASE, root=tmp_path / "root") == Headers((said,))
    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(tmp_path / "none"))
    assert bcc_adapter.headers(RELEASE, root=tmp_path / "root") is None


def test_why_it_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bcc_adapter, "_interpreter", lambda: Path(sys.executable))
    reason, remedy = bcc_adapter.unavailable(RELEASE, root=tmp_path) or ("", "")
    assert f"the headers of kernel {RELEASE} are not" in reason
    assert "linux-headers-" in remedy
    assert bcc_adapter.unavailable(RELEASE, root=installed(tmp_path)) is None
    monkeypatch.setattr(bcc_adapter, "_interpreter", lambda: None)
    reason, remedy = bcc_adapter.unavailable(RELEASE, root=tmp_path) or ("", "")
    assert reason == "bcc for Python is not installed"
    assert "python3-bpfcc" in remedy


ASKED = {
    "sock": ("sizeof(struct sock)",),
    "sock.sk_sndbuf": ("__builtin_offsetof(struct sock, sk_sndbuf)", "-1"),
    "large": ("0x123456789abcdefULL",),
}


@needs_bcc
def test_constants_under_a_configuration(split: Headers) -> None:
    values, unknown = constants(ASKED, found=split)
    assert values["sock"] == [32]
    assert values["sock.sk_sndbuf"][0] == 12
    assert values["sock.sk_sndbuf"][1] & 0xFFFFFFFF == 0xFFFFFFFF
    assert values["large"] == [0x123456789ABCDEF]
    assert unknown == []


@needs_bcc
def test_another_configuration_has_other_constants(tmp_path: Path, split: Headers) -> None:
    build(tmp_path / "build", release=RELEASE, config="#define CONFIG_PAD 40\n")
    values, _ = constants(ASKED, found=split)
    assert values["sock.sk_sndbuf"][0] == 40


@needs_bcc
def test_what_headers_do_not_know_is_told_from_what_they_do(split: Headers) -> None:
    more = {f"none{number}.x": (f"sizeof(struct none{number})",) * 2 for number in range(30)}
    asked = {**more, **ASKED, "sock.gone": ("__builtin_offsetof(struct sock, gone)",)}
    values, unknown = constants(asked, found=split)
    assert values.keys() == ASKED.keys()
    assert set(unknown) == {*more, "sock.gone"}


@needs_bcc
def test_an_archive_is_unpacked_and_removed_again(tmp_path: Path, split: Headers) -> None:
    merged = tmp_path / "merged"
    for place in split.places:
        shutil.copytree(place, merged, dirs_exist_ok=True)
    archive = tmp_path / "kheaders.tar.xz"
    with tarfile.open(archive, "w:xz") as tar:
        tar.add(merged, ".")
    before = set(Path("/tmp").iterdir())
    values, _ = constants(ASKED, found=Headers((archive,)))
    assert values["sock"] == [32]
    left = {path.name for path in set(Path("/tmp").iterdir()) - before}
    assert not [name for name in left if name.startswith(("kheaders", "kmesh-headers"))]


@needs_bcc
@pytest.mark.parametrize(
    ("config", "sock", "said"),
    [
        (f"{PAD}#define CONFIG_RANDSTRUCT 1\n", SOCK, "randomized"),
        (
            "#define CONFIG_PAD 12\n",
            "struct sock { damaged }",
            "bcc cannot compile with the headers",
        ),
    ],
)
def test_headers_that_cannot_be_used(tmp_path: Path, config: str, sock: str, said: str) -> None:
    found = Headers(
        (build(tmp_path / "b", release=RELEASE, config=config), common(tmp_path / "c", sock=sock))
    )
    with pytest.raises(HeadersError, match=said):
        constants(ASKED, found=found)


@needs_bcc
def test_headers_that_are_not_whole(tmp_path: Path) -> None:
    with pytest.raises(HeadersError, match="are not whole"):
        constants(ASKED, found=Headers((build(tmp_path / "b", release=RELEASE, config=PAD),)))


@needs_bcc
def test_a_compiler_that_is_killed(
    split: Headers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    killed = tmp_path / "killed.py"
    killed.write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    monkeypatch.setattr(bcc_adapter, "_CHILD", killed)
    with pytest.raises(HeadersError, match="status -9"):
        constants(ASKED, found=split)


@needs_bcc
def test_a_compiler_that_does_not_end(
    split: Headers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    endless = tmp_path / "endless.py"
    endless.write_text("while True: pass")
    monkeypatch.setattr(bcc_adapter, "_CHILD", endless)
    monkeypatch.setattr(bcc_adapter, "_SECONDS", 0.2)
    with pytest.raises(HeadersError, match="no end after"):
        constants(ASKED, found=split)


@needs_bcc
def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    archive = tmp_path / "kheaders.tar.xz"
    archive.write_bytes(b"\0" * 100)
    with pytest.raises(HeadersError, match="cannot read"):
        constants(ASKED, found=Headers((archive,)))


def test_a_prober_that_needs_no_bcc_does_not_import_it() -> None:
    code = (
        "import sys; from pathlib import Path; from runtime.probe.run import probe\n"
        "probe(objects=None, quick=True)\n"
        "print([name for name in sys.modules if name.split('.')[0] in"
        " ('bcc', 'rich', 'kubernetes', 'grpc', 'docker') or name.endswith('bcc_adapter')])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
