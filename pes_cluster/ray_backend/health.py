"""How soon Ray's head gives up a host that is silent: the settings that we ship.

With Ray's own defaults a cut host is noticed after about 65 s, with these after 5 to
6 s (and a host that is merely busy for so long is given up wrongly: it costs a replay).
They belong in the environment of `ray start --head`, and of the other nodes.
"""

HEALTH = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    # A host that was away asks whether it still counts, 60 s apart by Ray's default.
    "RAY_raylet_liveness_self_check_interval_ms": "5000",
}
