# SPDX-License-Identifier: Apache-2.0
"""The wire messages. The `_pb2` modules are generated: `python -m builder.protos` writes them."""
