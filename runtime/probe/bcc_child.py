# SPDX-License-Identifier: Apache-2.0
"""The one module that imports bcc, run as a program of its own: compile a text, print its functions.

bcc takes long to import, brings LLVM along and writes its complaints to standard error. It may be there
for the distribution's Python alone: so nothing but the standard library is imported beside it.

Standard input: {"text": C, "flags": [...], "functions": [names]}; output: their code in hexadecimal.
"""

import json
import resource
import sys

_MEMORY = 4 << 30
_SECONDS = 120


def main() -> int:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    asked = json.load(sys.stdin)
    from bcc import BPF

    # Programs are loaded one by one on demand: this one loads none.
    module = BPF(text=asked["text"].encode(), cflags=asked["flags"])
    json.dump([module.dump_func(name.encode()).hex() for name in asked["functions"]], sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
