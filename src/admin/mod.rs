//! What the gateway answers about itself.
