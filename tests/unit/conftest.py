from __future__ import annotations

from hypothesis import HealthCheck, settings

# On a fresh machine the first test that draws text waits for hypothesis to write its table of characters.
settings.register_profile("unit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unit")
