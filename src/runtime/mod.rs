//! A plan made live: snapshot, registry, build, the one swap.
