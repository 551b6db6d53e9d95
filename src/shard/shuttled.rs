//! Hand-off and cancellation under every interleaving that shuttle finds.
