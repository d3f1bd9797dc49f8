# SPDX-License-Identifier: Apache-2.0
"""From changes of policies and workloads to changes of the authorization maps.

A destination is guarded when it is an address of a workload on this node to which policies apply.
Sources are known by address: whose it is in this node's network. An update gives, in this order:
rows of new sets and new identities, who is at which address, which set guards which destination,
and only then removals. So a connection meets the policies from before an update or from after it.

Without policies nothing is written at all, and nothing is worked out: the workloads are kept until
the first policy comes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from runtime.model.mesh import IPAddress, NetworkMode, Workload
from runtime.model.policy import Action, Policy
from runtime.source.update import Rejection, Update
from runtime.tables.ops import Op
from runtime.tables.place import Place
from runtime.tables.policy_book import AddressBook
from runtime.tables.policy_layout import MAPS, AddressKey, Identity
from runtime.tables.policy_set import Claim, Element, PolicySet, identity_number, mapped

EXEMPT = 1  # kmesh_identity.flags
# Written in this order, and removed in the opposite one.
TABLES = ("policy_rows", "policy_blocks", "policy_hits", "identities", "guards")

Sides = tuple[tuple[str, ...], ...]
Contents = Mapping[str, Mapping[bytes, bytes]]  # value by key, by table


class PolicyTables:
    """What the authorization maps hold, and what they should.

    Args:
        place: this node. Without a node's name every workload is taken to be here.
        exempt: addresses of the node itself, whose health checks no policy may refuse.
        existing: what an earlier process left in the maps; it serves until the first whole picture.
    """

    def __init__(
        self,
        *,
        place: Place,
        exempt: Iterable[IPAddress] = (),
        existing: Contents | None = None,
    ) -> None:
        self._place = place
        self._exempt = frozenset(exempt)
        self._kernel: dict[str, dict[bytes, bytes]] = {}
        self._adopt(existing or {})
        self._policies: dict[str, Policy] = {}
        self._book = AddressBook(network=place.network)
        self._claims: dict[IPAddress, Claim] = {}
        self._claimed: Counter[Claim] = Counter()
        self._guards: dict[IPAddress, PolicySet] = {}
        self._sets: dict[int, PolicySet] = {}
        self._guarding: Counter[int] = Counter()
        self._compiled: dict[tuple[IPAddress | None, tuple[str, ...], Sides], PolicySet] = {}
        self._idle = not any(self._kernel.values())  # there never was a policy
        self._moved: set[IPAddress] = set()  # by what was not an update

    def _adopt(self, existing: Contents) -> None:
        self._kernel = {table: dict(existing.get(table, {})) for table in TABLES}

    @property
    def problems(self) -> tuple[Rejection, ...]:
        """Policies that cannot be enforced as they are; nobody passes by them."""
        found = {key: why for one in self._sets.values() for key, why in one.problems.items()}
        return tuple(Rejection(resource=key, reason=why) for key, why in sorted(found.items()))

    @property
    def is_needed(self) -> bool:
        """Whether any destination is guarded."""
        return bool(self._guards)

    def guarded_by(self, key: str) -> list[IPAddress]:
        """The destinations that a policy guards here."""
        return sorted(
            (address for address, one in self._guards.items() if key in one.policies),
            key=lambda address: (address.version, int(address)),
        )

    @property
    def policies(self) -> Mapping[str, Policy]:
        """All that the source named, by key."""
        return self._policies

    def set_names(self) -> dict[int, list[str]]:
        """The keys of each set's policies, in the order of `kmesh_hit.policy`."""
        return {number: one.policies for number, one in self._sets.items()}

    # Changes.

    def relocate(self, place: Place) -> None:
        """This node turns out to be elsewhere; the next `apply` brings the maps there."""
        self._place = place
        self._moved |= self._book.relocate(place.network)

    def exempt(self, addresses: Iterable[IPAddress]) -> bool:
        """The node has these addresses now; returns whether the next `apply` has to tell the maps."""
        now = frozenset(addresses)
        changed = now ^ self._exempt
        self._exempt = now
        self._moved |= changed
        return bool(changed) and bool(self._guards)

    @property
    def exempted(self) -> list[IPAddress]:
        """The node's addresses that no policy refuses."""
        found = filter(self._is_exempt, self._exempt)
        return sorted(found, key=lambda address: (address.version, int(address)))

    def _is_exempt(self, address: IPAddress) -> bool:
        """Not where a workload has it: then it is that workload's."""
        known = self._claims.get(address, frozenset())
        return address in self._exempt and not any(known)

    def apply(self, update: Update) -> list[Op]:
        """Take an update in.

        Returns:
            what to do in the kernel, in order.
        """
        moved = self._take_policies(update)
        self._idle = self._idle and not self._policies
        if self._idle:
            self._book.keep(update)
            return []
        touched = self._book.take(update) | self._moved
        self._moved = set()
        if moved:
            touched.update(self._book.addresses)
        before = dict(self._sets)
        new_claims = self._take_claims(touched)
        self._take_guards(touched)
        ops = list(self._writes(touched, before=before, new_claims=new_claims))
        if update.complete:
            return [*ops, *self._sweep()]
        return [*ops, *self._removals(touched, before=before)]

    def resync(self, existing: Contents) -> list[Op]:
        """What is to be done when the maps turn out to hold this."""
        self._adopt(existing)
        every = set(self._book.addresses)
        return [*self._writes(every, before={}, new_claims=set()), *self._sweep()]

    def _take_policies(self, update: Update) -> bool:
        """Returns whether any policy changed."""
        gone = set(update.removed_policies) & self._policies.keys()
        if update.complete:
            gone = self._policies.keys() - {one.key for one in update.policies}
        changed = [one for one in update.policies if self._policies.get(one.key) != one]
        for key in gone:
            del self._policies[key]
        self._policies.update({one.key: one for one in changed})
        if gone or changed:
            self._compiled.clear()
        return bool(gone or changed)

    # Who is at an address.

    def _take_claims(self, touched: Iterable[IPAddress]) -> set[Claim]:
        """Returns the claims that were nobody's before."""
        new: set[Claim] = set()
        for address in touched:
            before, now = self._claims.pop(address, None), self._book.claim(address)
            if now:
                self._claims[address] = now
                new.update({now} if not self._claimed[now] else ())
                self._claimed[now] += 1
            if before is not None:
                self._claimed[before] -= 1
        return new

    # Which set guards a destination.

    def _is_local(self, workload: Workload) -> bool:
        """A workload that does not say where it runs may run here."""
        if workload.network_mode is NetworkMode.HOST_NETWORK:
            return False
        return not workload.node or self._place.node in {"", workload.node}

    def _wanted_set(self, address: IPAddress) -> PolicySet | None:
        """The policies of every workload that claims the address; of one, as a rule."""
        local = [one for one in self._book.at(address) if self._is_local(one)]
        keys = tuple(
            key
            for key, policy in self._policies.items()
            if any(policy.applies_to(one) for one in local)
        )
        if not keys:
            return None
        policies = [self._policies[key] for key in keys]
        alike = address if any(map(_asks_destination, policies)) else None
        sides = _sides(policies, local) if len(local) > 1 else ()
        if (alike, keys, sides) not in self._compiled:
            self._compiled[alike, keys, sides] = PolicySet(policies, address, sides)
        return self._compiled[alike, keys, sides]

    def _take_guards(self, touched: Iterable[IPAddress]) -> None:
        for address in touched:
            before, now = self._guards.pop(address, None), self._wanted_set(address)
            if now is not None:
                self._guards[address] = now
                self._guarding[now.number] += 1
                self._sets[now.number] = now
            if before is not None:
                self._guarding[before.number] -= 1
        for number in [number for number, count in self._guarding.items() if not count]:
            del self._guarding[number]
            del self._sets[number]

    # What to write.

    def _writes(
        self,
        touched: Iterable[IPAddress],
        *,
        before: Mapping[int, PolicySet],
        new_claims: set[Claim],
    ) -> Iterator[Op]:
        live = [claim for claim, count in self._claimed.items() if count]
        for one in self._sets.values():
            whole = one.number not in before
            claims = live if whole else new_claims
            rows = chain.from_iterable(one.identity_elements(claim) for claim in claims)
            yield from self._put(chain(one.elements() if whole else (), rows), _resource(one))
        if self._guards:
            yield from self._put_identities(self._claims if not before else touched)
        for address in touched:
            if address in self._guards:
                found = self._guards[address]
                yield from self._put([_guard(address, found)], _resource(found))

    def _put_identities(self, addresses: Iterable[IPAddress]) -> Iterator[Op]:
        for address in chain(addresses, self._exempt):
            value = self._identity(address)
            if value is not None:
                element = ("identities", _key(address), value)
                yield from self._put([element], f"address {address}")

    def _identity(self, address: IPAddress) -> bytes | None:
        """What is known of an address; None for nothing."""
        if self._is_exempt(address):
            return Identity(0, EXEMPT).pack()
        number = identity_number(self._claims.get(address, frozenset()))
        return Identity(number, 0).pack() if number else None

    def _put(self, elements: Iterable[Element], resource: str) -> Iterator[Op]:
        for table, key, value in elements:
            there = self._kernel[table].get(key)
            if there == value or (there is not None and table == "policy_hits"):
                continue
            self._kernel[table][key] = value
            yield Op(table, key, value, resource)

    # What to remove.

    def _drop(self, table: str, key: bytes, resource: str) -> Iterator[Op]:
        if self._kernel[table].pop(key, None) is not None:
            yield Op(table, key, None, resource)

    def _removals(
        self, touched: Iterable[IPAddress], *, before: Mapping[int, PolicySet]
    ) -> Iterator[Op]:
        """What an update left without use: looked for only where something went."""
        for address in touched:
            if address not in self._guards:
                yield from self._drop("guards", _key(address), f"address {address}")
        idle = bool(before) and not self._guards
        for address in chain(self._claims, self._exempt) if idle else ():
            yield from self._drop("identities", _key(address), f"address {address}")
        for address in touched:
            if self._identity(address) is None:
                yield from self._drop("identities", _key(address), f"address {address}")
        gone = [claim for claim, count in self._claimed.items() if not count]
        for number, one in before.items():
            retired = number not in self._sets
            rows = (one.identity_elements(each) for each in (self._claimed if retired else gone))
            every = chain(one.elements() if retired else (), *rows)
            for table, key, _value in every:
                yield from self._drop(table, key, _resource(one))
        self._claimed = +self._claimed

    def _sweep(self) -> Iterator[Op]:
        """Remove everything that is not wanted."""
        self._claimed = +self._claimed
        wanted = self._wanted_keys()
        for table in reversed(TABLES):
            for key in [key for key in self._kernel[table] if key not in wanted[table]]:
                yield from self._drop(table, key, table)

    def _wanted_keys(self) -> dict[str, set[bytes]]:
        wanted: dict[str, set[bytes]] = {table: set() for table in TABLES}
        for one in self._sets.values():
            rows = (one.identity_elements(claim) for claim in self._claimed)
            for table, key, _value in chain(one.elements(), *rows):
                wanted[table].add(key)
        wanted["guards"] = {_key(address) for address in self._guards}
        if self._guards:
            known = chain(self._claims, self._exempt)
            wanted["identities"] = {_key(address) for address in known if self._identity(address)}
        return wanted


def _guard(address: IPAddress, found: PolicySet) -> Element:
    return "guards", _key(address), found.guard


def _key(address: IPAddress) -> bytes:
    return AddressKey(mapped(address)).pack()


def _resource(found: PolicySet) -> str:
    """What an error names: without all of a set's rows no destination is put under it."""
    return f"policies {', '.join(found.policies)}"


def _sides(policies: Iterable[Policy], workloads: Iterable[Workload]) -> Sides:
    """The policies that allow, for each workload that has any; nothing where they are the same for all."""
    allowing = [one for one in policies if one.action is Action.ALLOW and not one.dry_run]
    found = {
        tuple(one.key for one in allowing if one.applies_to(workload)) for workload in workloads
    }
    sides = tuple(sorted(found - {()}))
    return sides if len(sides) > 1 else ()


def _asks_destination(policy: Policy) -> bool:
    return any(
        match.destination_ips or match.not_destination_ips
        for group in policy.groups
        for rule in group
        for match in rule
    )


assert set(TABLES) == set(MAPS)
