# SPDX-License-Identifier: Apache-2.0
"""Compile the `.proto` files of the Istiod client to Python: `python -m builder.protos`.

What is generated is kept in the repository, so that neither users nor images need a compiler; a
test generates it again and compares. Modules register in the client's own descriptor pool.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from runtime.errors import KmeshError

ROOT = Path(__file__).resolve().parent.parent
PROTO_DIR = Path("runtime/source/istiod/proto")
_DEFAULT_POOL = "from google.protobuf import descriptor_pool as _descriptor_pool\n"
_OWN_POOL = f"from {'.'.join(PROTO_DIR.parts)}.pool import POOL as _POOL\n"


def compile_protos(out: Path, *, root: Path = ROOT) -> list[Path]:
    """Generate one `_pb2.py` per `.proto` file, below `out`, in the tree's own layout.

    Args:
        out: the directory that stands for the root of the tree; made when missing.
        root: the tree that the `.proto` files are read from.

    Raises:
        KmeshError: grpcio-tools is not installed, or a file does not compile.
    """
    sources = sorted((root / PROTO_DIR).glob("*.proto"))
    out.mkdir(parents=True, exist_ok=True)
    _protoc(sources, root=root, out=out)
    modules = [out / PROTO_DIR / f"{source.stem}_pb2.py" for source in sources]
    for module in modules:
        module.write_text(_use_own_pool(module.read_text(encoding="utf-8")), encoding="utf-8")
    return modules


def _protoc(sources: list[Path], *, root: Path, out: Path) -> None:
    try:
        from grpc_tools import protoc  # type: ignore[import-untyped]
    except ImportError as error:
        hint = "install the development requirements: make setup"
        raise KmeshError("cannot compile .proto files: no grpcio-tools", hint=hint) from error
    include = files("grpc_tools") / "_proto"
    arguments = ["protoc", f"-I{root}", f"-I{include}", f"--python_out={out}"]
    if protoc.main([*arguments, *map(str, sources)]) != 0:
        raise KmeshError(f"protoc refused the files in {root / PROTO_DIR}; it says why above")


def _use_own_pool(text: str) -> str:
    changed = text.replace(_DEFAULT_POOL, _OWN_POOL).replace("_descriptor_pool.Default()", "_POOL")
    if "_descriptor_pool" in changed or "_POOL." not in changed:
        raise KmeshError("protoc writes its modules in a form that builder.protos does not know")
    return "# SPDX-License-Identifier: Apache-2.0\n" + changed


def main() -> int:
    """Write the modules into this tree; status 1 and one line when that fails."""
    try:
        for path in compile_protos(ROOT):
            print(path.relative_to(ROOT))
    except KmeshError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
