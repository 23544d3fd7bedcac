"""Commands to the interchange that Parsl's own does not know; see `interchange_commands`."""

DROP_WAITING = "DROP_WAITING"
END_BLOCKS = "END_BLOCKS"
TELL_PLACES = "TELL_PLACES"
PLACES = b"places "  # begins a packet among the results; see `interchange_places`
