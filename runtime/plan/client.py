# SPDX-License-Identifier: Apache-2.0
"""Who sends a request, as authorization asks for it."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.errors import KmeshError
from runtime.model.http import PrincipalIs, SourceIn
from runtime.model.mesh import IPAddress
from runtime.model.policy import Identity
from runtime.plan.reference import text_matches
from runtime.tables.http_regex import full_match
from runtime.tables.http_regex_syntax import UnsupportedRegexError

_SCHEME = "spiffe://"


@dataclass(frozen=True, slots=True)
class Client:
    """A client; without an identity it is none of the mesh's.

    Attributes:
        identity: who it is.
        address: where it is, None where that is not told.
    """

    identity: Identity | None = None
    address: IPAddress | None = None

    @property
    def principal(self) -> str:
        """As certificates have it; "" without an identity."""
        return f"{_SCHEME}{self.identity.principal}" if self.identity else ""

    def meets(self, condition: SourceIn | PrincipalIs) -> bool:
        """Whether it is who a condition asks for.

        Raises:
            KmeshError: that cannot be told.
        """
        match condition:
            case SourceIn(block):
                if self.address is None:
                    raise KmeshError(
                        f"a policy asks whether the client is in {block}",
                        hint="tell its address with --ip",
                    )
                return self.address in block
            case PrincipalIs(text):
                try:
                    return self.identity is not None and text_matches(
                        text, self.principal, full_match
                    )
                except UnsupportedRegexError as error:
                    raise KmeshError(
                        f"a policy asks for the client by {text.value!r}: {error}"
                    ) from error


def identity_from(text: str) -> Identity:
    """An identity from `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT`, the scheme left out or not.

    Raises:
        KmeshError: it is none.
    """
    parts = text.removeprefix(_SCHEME).split("/")
    if len(parts) != 5 or parts[1::2] != ["ns", "sa"] or not all(parts):
        raise KmeshError(
            f"{text!r} is no principal", hint="write cluster.local/ns/NAMESPACE/sa/SERVICE-ACCOUNT"
        )
    return Identity(parts[0], parts[2], parts[4])
