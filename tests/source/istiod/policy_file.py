# SPDX-License-Identifier: Apache-2.0
"""A control plane whose policies are those that a file names, from one moment to the next."""

from __future__ import annotations

import asyncio
import json
from itertools import count
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from runtime.source.istiod.wire import AUTHORIZATION_TYPE
from tests.source.istiod.mesh_messages import policy
from tests.source.istiod.xds_server import XdsServer


async def serve(server: XdsServer, given: Path) -> None:
    """Start the server, say "up", and push whatever the file says anew, until cancelled."""
    await server.start()
    print("up", flush=True)
    seen: dict[str, Any] = {}
    for version in count():
        now = json.loads(given.read_text())  # noqa: ASYNC240 - a few bytes
        if now != seen:
            for name in seen.keys() - now.keys():
                server.remove(AUTHORIZATION_TYPE, f"shop/{name}")
            for name, fields in now.items():
                made = json_format.ParseDict(fields, policy(name))
                server.put(AUTHORIZATION_TYPE, f"shop/{name}", made, version=str(version))
            server.push()
            seen = now
        await asyncio.sleep(0.05)
