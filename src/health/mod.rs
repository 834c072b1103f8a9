//! Whether a backend is fit: probes, the state machine, the task that publishes verdicts.
