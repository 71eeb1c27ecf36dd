"""Black-box checks of the wire protocol, for this server and any other that speaks it."""
