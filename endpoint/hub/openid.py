"""Who has logged in, as a signed statement (OpenID Connect Core 2): clients compare its `sub` with the last login's."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from endpoint.hub.models import Identity
from endpoint.hub.tokens import new_secret

ALGORITHM = "RS256"
LIFETIME_S = 600


class Signer:
    """A key that lives as long as this process: a statement is read right after the login, and never again."""

    def __init__(self) -> None:
        self._key: rsa.RSAPrivateKey | None = None
        self._id = new_secret()[:16]
        self._making = asyncio.Lock()

    async def statement(self, identity: Identity, *, issuer: str, client_id: str, scope: str, nonce: str | None) -> str:
        """The `id_token` for a program that `identity` has logged in to."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": issuer,
            "aud": client_id,
            "sub": identity.id,
            "iat": now,
            "auth_time": now,
            "exp": now + LIFETIME_S,
        }
        words = scope.split()
        if "profile" in words:
            claims |= {"preferred_username": identity.username, "name": identity.name}
        if "email" in words and identity.email:
            claims["email"] = identity.email
        if nonce is not None:
            claims["nonce"] = nonce
        return jwt.encode(claims, await self._private(), algorithm=ALGORITHM, headers={"kid": self._id})

    async def public(self) -> dict[str, Any]:
        """The key as a JSON web key."""
        key: dict[str, Any] = json.loads(RSAAlgorithm.to_jwk((await self._private()).public_key()))
        return {**key, "kid": self._id, "use": "sig", "alg": ALGORITHM}

    async def _private(self) -> rsa.RSAPrivateKey:
        async with self._making:
            if self._key is None:
                self._key = await asyncio.to_thread(rsa.generate_private_key, 65537, 2048)
            return self._key


def configuration(issuer: str) -> dict[str, Any]:
    """What a client needs to know of this provider; `issuer` is its URL, without a slash at the end."""
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/v2/oauth2/authorize",
        "token_endpoint": f"{issuer}/v2/oauth2/token",
        "userinfo_endpoint": f"{issuer}/v2/oauth2/userinfo",
        "revocation_endpoint": f"{issuer}/v2/oauth2/token/revoke",
        "jwks_uri": f"{issuer}/jwk.json",
        "scopes_supported": ["openid", "email", "profile"],
        "response_types_supported": ["code"],
        "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
        "code_challenge_methods_supported": ["S256"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
    }
