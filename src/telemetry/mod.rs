//! What the gateway tells the outside: metrics, the access log, events. It is told what happened and knows no routes.
