# SPDX-License-Identifier: Apache-2.0
"""Istiod's workload API as a source: delta ADS in, model changes out.

credentials, node   how to reach Istiod, and who we say we are
client, session     the stream: subscribe, answer, reconnect
subscription        what is known of one resource type, and what each response changes
decode              wire message to model, or the reason why not
pending             changes that the consumer has not taken yet, the latest of each resource
hostname, on_demand addresses that come from DNS, and resources that are asked for by address
source              all of it together
"""

import os

# Its core logs lost connections at "info", past our log: read once, when grpc is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
