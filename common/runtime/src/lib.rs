//! What every process needs: TLS, identity, configuration, tasks, telemetry, clock.
