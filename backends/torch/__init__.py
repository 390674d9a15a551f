"""PyTorch: CPU, CUDA, and Ascend through torch_npu."""
