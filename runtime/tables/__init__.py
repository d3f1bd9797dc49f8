# SPDX-License-Identifier: Apache-2.0
"""Tables: from changes of the model to changes of the maps, as pure functions of their input.

`ServiceTables.apply` takes an update and gives the map operations that it takes, in an order in
which no reader ever sees half of it. What an update costs is proportional to what it changes.
Nothing here touches a kernel.
"""
