"""The same model on MLX: made of the torch model, and given back to it."""
