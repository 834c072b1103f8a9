//! A request, in one straight line.
