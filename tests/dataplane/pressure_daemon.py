# SPDX-License-Identifier: Apache-2.0
"""What a daemon holds and does, in a process that may be killed: it opens the path, and endpoints come and go.

Started with the objects, the pins and the places of the gate; each line on its input has clusters' ports.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runtime.kernel.datapath import DataPath
from runtime.kernel.http_ports import HttpPorts
from runtime.tables.http_ports import Target


def main() -> None:
    objects, pins, places = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    path = DataPath.open(objects, pins=pins, path="enhanced")
    ports = HttpPorts(path.maps)
    for turn in count():
        for name, all_of_them in places.items():
            chosen = all_of_them[: 1 + turn % len(all_of_them)]
            ports.set_cluster(name, [Target("127.0.0.1", port) for port in chosen])
        print(turn, flush=True)
        time.sleep(0.1)


if __name__ == "__main__":
    main()
