//! Where requests go: backends and what is known of them, balancing, connections.
