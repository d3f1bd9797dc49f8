# SPDX-License-Identifier: Apache-2.0
"""A descriptor pool of our own.

The messages carry Envoy's, Istio's and Google's full names, since these are on the wire. In the
process-wide pool they would clash with any library that brings the same names from other files
(xds-protos, googleapis-common-protos), which must remain usable beside them.
"""

from google.protobuf import any_pb2, duration_pb2, empty_pb2, struct_pb2, wrappers_pb2
from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
for _module in (any_pb2, duration_pb2, empty_pb2, struct_pb2, wrappers_pb2):
    POOL.AddSerializedFile(_module.DESCRIPTOR.serialized_pb)
