//! Sockets: listeners, workers, connections, drain.
