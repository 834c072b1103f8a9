//! What may refuse or change a request.
