"""The parts that decoders are composed of. Each is a frozen record, and a function that builds it for a target."""
