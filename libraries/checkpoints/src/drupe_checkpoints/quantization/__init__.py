"""How the matrices of a checkpoint are packed, by the methods that quantize checkpoints."""
