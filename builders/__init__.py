"""From an upstream snapshot to what is published: fixed 16-bit model, GGUF, importance matrix, quantized variants."""
