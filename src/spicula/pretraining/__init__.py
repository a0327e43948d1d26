"""Self-supervised pretraining: views, heads and losses, one method a file."""
