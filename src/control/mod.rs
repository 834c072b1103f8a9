//! Change while running: watch, signals, reload.
